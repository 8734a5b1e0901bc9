"""A browser for the tests of pages."""

import shutil
import time

import pytest


@pytest.fixture(scope="module")
def browser():
    """Chromium, driven; skips where it is not there."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield driver
    driver.quit()


class Page:
    """A report in the browser."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, address, width=1200, dark=False):
        emulate = self.driver.execute_cdp_cmd
        emulate("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": _theme(dark)}]})
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        emulate("Emulation.setDeviceMetricsOverride", size)
        self.driver.get("about:blank")
        self.driver.get(address)
        self.until("document.documentElement.dataset.ready === 'yes'")
        return self

    def js(self, code):
        return self.driver.execute_script(f"return {code}")

    def until(self, code):
        end = time.monotonic() + 20
        while not self.js(code):
            assert time.monotonic() < end, f"never came true: {code}"
            time.sleep(0.02)

    def choose(self, name, value):
        self.driver.execute_script(
            "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
            "s.dispatchEvent(new Event('change'))",
            name,
            value,
        )

    def lead(self, number):
        self.choose("lead", str(number))

    def shown(self):
        """Ids in the order in which the cards lie."""
        return self.js(
            "[...document.querySelectorAll('.card')].sort((a, b) => parseFloat(a.style.top) - parseFloat(b.style.top)"
            " || parseFloat(a.style.left) - parseFloat(b.style.left)).map((card) => card.dataset.id)"
        )

    def press(self, key):
        self.driver.switch_to.active_element.send_keys(key)

    def pixel(self, x, y):
        """Of the first answer's layers in the panel, x and y from 0 to 1."""
        return self.js(
            "(() => { const c = document.querySelector('.answer canvas');"
            f"return [...c.getContext('2d').getImageData({x} * c.width, {y} * c.height, 1, 1).data] }})()"
        )

    def complaints(self):
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def _theme(dark):
    return "dark" if dark else "light"


@pytest.fixture
def at(browser):
    return Page(browser)
