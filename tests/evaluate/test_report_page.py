"""The report in a browser: filters, order, keys, links, layers, themes, narrow screens, and text that stays text."""

import json
import os
import time

import numpy as np
import pytest

from dpad_fast import coco_mask
from dpad_fast.evaluate.report import render

EVIL = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script></script><b>'
SIDE = 40  # pixels of the pictures


def run_lengths(mask):
    found = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def left_half():
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[:, : SIDE // 2] = True
    return mask


def records(count, iou, picture=None):
    """Sample i has id `s i`; `iou` is a function of i."""
    mask = run_lengths(left_half())
    return [
        {
            "id": f"s {i}",
            "query": f"query {i}",
            "image": picture,
            "text": f"{EVIL} answer {i}",
            "chain": f"chain {i}",
            "caption": f"{EVIL} {i}",
            "box": [10, 10, 30, 30],
            "points": [[20, 20]],
            "s1": 0.25,
            "s2": 0.5,
            "terms": {"iou": float(i % 2), "point_l1": 1.0},
            "reason": "wrong-place" if i % 2 == 0 else None,
            "truth": {"box": [0, 0, 24, 40], "mask": mask},
            "prediction": mask,
            "iou": iou(i),
        }
        for i in range(count)
    ]


HISTORY = [{"step": step, "kl": step / 10, "reward": 2.0 - step / 10} for step in range(1, 21)]


def run_of(name, before, after):
    config = {"name": name, "evaluation": {"data": {"path": "elsewhere"}}}
    parts = {"before": {}, "after": {}, "history": HISTORY, "versions": {}}
    return {"kind": "run", "config": config, "records": {"before": before, "after": after}, **parts}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A run of six samples, and an evaluation of five of them."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("page")
    picture = str(folder / "grey.png")
    Image.new("RGB", (SIDE, SIDE), (128, 128, 128)).save(picture)
    before = records(6, lambda i: 0.5, picture)
    after = records(6, lambda i: [0.9, 0.1, 0.5, 0.7, 0.3, 0.6][i], picture)
    theirs = records(5, lambda i: [0.9, 0.2, 0.0, 0.7, 0.25][i], picture)
    run = run_of(f"run {EVIL}", before, after)
    text = render([("run", run), ("theirs", {"records": theirs, "notes": [EVIL]})])
    (folder / "page.html").write_text(text, encoding="utf-8")
    return (folder / "page.html").as_uri()


def ids(*numbers):
    return [f"s {number}" for number in numbers]


def test_order(at, page):
    at.open(page)
    assert at.shown() == ids(0, 1, 2, 3, 4, 5)
    at.lead(1)  # the run after training
    at.choose("base", "0")
    at.choose("order", "worst")
    assert at.shown() == ids(1, 4, 2, 5, 3, 0)
    at.choose("order", "improved")
    assert at.shown() == ids(0, 3, 5, 2, 4, 1)
    at.choose("order", "worsened")
    assert at.shown() == ids(1, 4, 2, 5, 3, 0)
    at.choose("order", "disagreeing")
    # Spreads of three columns: 0.4, 0.4, 0.5, 0.2, 0.25, 0.1.
    assert at.shown() == ids(2, 0, 1, 4, 3, 5)
    at.lead(2)
    at.choose("order", "worst")
    assert at.shown() == ids(2, 1, 4, 3, 0, 5)  # the sample that it did not answer comes last


def test_filters(at, page):
    at.open(page)
    at.choose("reason", "wrong-place")
    assert at.shown() == ids(0, 2, 4)
    at.choose("reason", "-")
    assert at.shown() == ids(1, 3)
    at.choose("reason", "")
    at.choose("term", "0iou")
    assert at.shown() == ids(0, 2, 4)
    at.choose("term", "1iou")
    assert at.shown() == ids(1, 3)
    at.choose("term", "0point_l1")
    assert at.shown() == []
    assert at.js("!document.getElementById('none').hidden")
    at.choose("term", "")
    at.press("/")
    at.press("ANSWER 3")
    at.until("document.getElementById('count').textContent === '1 of 6'")
    assert at.shown() == ids(3)


def test_keys_walk_and_links_lead_to_samples(at, page):
    from selenium.webdriver.common.keys import Keys

    at.open(page)
    panel = "!document.getElementById('cover').hidden"
    assert not at.js(panel)
    at.press("j")
    at.until(panel)
    assert at.js("location.hash") == "#s%200"
    for _ in range(25):  # Tab walks in the panel, not behind it
        at.press(Keys.TAB)
        assert at.js("!document.querySelector('main').contains(document.activeElement)")
    at.driver.execute_script("document.getElementById('panel').focus()")
    at.press("j")
    at.press(Keys.ARROW_RIGHT)
    assert at.js("location.hash") == "#s%202"
    at.press("k")
    assert at.js("document.querySelector('.ask').textContent") == "query 1"
    assert at.js("document.getElementById('where').textContent") == "s 1 · 2 of 6"
    at.driver.find_element("id", "next").click()
    assert at.js("document.querySelector('.ask').textContent") == "query 2"
    at.press("?")
    assert at.js("!document.getElementById('help').hidden")
    at.press(Keys.ESCAPE)
    assert at.js("document.getElementById('help').hidden")
    at.press(Keys.ESCAPE)
    assert not at.js(panel)
    assert at.js("location.hash") == ""
    assert at.js("document.activeElement.dataset.id") == "s 2"  # the card of the sample that was left
    at.open(f"{page}#s%204")
    assert at.js(panel)
    assert at.js("document.querySelector('.ask').textContent") == "query 4"
    assert at.js("document.querySelectorAll('.answer').length") == 3
    at.open(f"{page}#no%20such%")
    assert not at.js(panel)


def test_layers_are_drawn_and_go(at, page):
    at.open(f"{page}#s%201")
    red, green = [224, 54, 74], [15, 157, 88]
    # In the left half and outside of every line: the answer's mask, half transparent.
    inside = at.pixel(0.1, 0.6)
    assert np.abs(np.array(inside[:3]) - red).max() <= 2
    assert 0 < inside[3] < 255
    assert at.pixel(0.9, 0.6)[3] == 0
    assert at.pixel(0.25, 0.5) == [*red, 255]  # the box's left side, on the mask
    at.press("m")
    assert at.pixel(0.1, 0.6)[3] == 0
    at.press("g")
    assert np.abs(np.array(at.pixel(0.1, 0.6)[:3]) - green).max() <= 2
    at.press("g")
    at.press("b")
    assert at.pixel(0.25, 0.4)[3] == 0
    assert at.pixel(0.5, 0.5)[:3] == red  # the point stands
    at.press("p")
    at.press("t")
    assert at.js(
        "document.querySelector('.answer canvas').getContext('2d').getImageData(0, 0, 99, 99).data.every((v) => !v)"
    )
    assert not at.js("document.querySelector('.answer img').hidden")
    at.press("i")
    assert at.js("document.querySelector('.answer img').hidden")


def test_answers_are_text_and_run_nothing(at, page):
    at.open(f"{page}#s%201")
    assert at.js("window.hacked") is None
    assert at.js("document.querySelector('.raw').textContent") == f"{EVIL} answer 1"
    assert f"{EVIL} 1" in at.js("[...document.querySelectorAll('.answer pre')].map((p) => p.textContent)")
    assert at.js("document.querySelectorAll('.answer script, .answer b, .answer img[src=x]').length") == 0
    assert at.js("document.querySelector('h1').textContent").startswith(f"run {EVIL}")
    assert at.complaints() == []


def test_the_policy_forbids_what_is_not_the_pages_own(at, page):
    at.open(page)
    at.driver.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s);"
        "const i = document.createElement('img'); i.src = 'file:///etc/hostname'; document.body.append(i);"
    )
    time.sleep(0.1)
    assert at.js("window.hacked") is None
    assert sum("Content Security Policy" in message for message in at.complaints()) >= 2


def test_every_term_stands_with_value_and_reason(at, page):
    at.open(f"{page}#s%200")
    rows = at.js("[...document.querySelector('.answer table').rows].map((r) => [...r.cells].map((c) => c.textContent))")
    assert rows == [["term", "value", "reason"], ["iou", "0", "wrong-place"], ["point_l1", "1", ""]]
    numbers = at.js("document.querySelector('.numbers').innerText")
    assert "IoU 0.500" in numbers
    assert "S1 0.250" in numbers
    assert "S2 0.500" in numbers


def test_curves_answer_the_pointer_in_both_themes(at, page):
    from selenium.webdriver import ActionChains

    colours = []
    for dark in (False, True):
        at.open(page, dark=dark)
        assert at.js("document.documentElement.dataset.theme") == ("dark" if dark else "light")
        plot = at.driver.find_elements("css selector", ".chart .u-over")[0]
        ActionChains(at.driver).move_to_element(plot).perform()
        at.until("document.querySelector('.chart .told').textContent.startsWith('step 1')")
        colours.append(at.js("getComputedStyle(document.querySelector('.key')).backgroundColor"))
    assert colours[0] != colours[1]
    at.driver.find_element("id", "theme").click()
    assert at.js("document.documentElement.dataset.theme") == "light"
    assert at.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def luminance(colour):
    parts = [part / 255 for part in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_colours_can_be_read(at, page, dark):
    """By WCAG 2.1: texts 4.5 to 1, lines of charts and borders of controls 3 to 1, on both grounds of the page."""
    at.open(f"{page}#s%200", dark=dark)

    def colours(code):
        return [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in at.js(code)]

    named = "['%s'].map((n) => getComputedStyle(document.documentElement).getPropertyValue('--' + n).trim())"
    grounds = [c if len(c) == 7 else f"#{c[1] * 2}{c[2] * 2}{c[3] * 2}" for c in at.js(named % "paper','raised")]
    grounds = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in grounds]
    for ground in grounds:
        for colour in colours(named % "','".join(("ink", "soft", "bad", "accent"))):
            assert contrast(colour, ground) >= 4.5
        for colour in [*colours("COLOURS[theme()]"), *colours(named % "rim")]:
            assert contrast(colour, ground) >= 3
    used = "[...document.querySelectorAll('button, select, input, td, th, p, pre, h1, h2, h3, h4, summary')]"
    assert at.js(f"new Set({used}.map((e) => getComputedStyle(e).color)).size") <= 4


def test_what_is_shown_is_named(at, page):
    """The lines of charts by their runs' whole names, their axis, and both lists of runs."""
    at.open(page)
    assert at.js("document.querySelector('.legend').textContent") == f"run {EVIL}"
    assert at.js("document.querySelectorAll('.chart canvas').length") > 0
    labels = at.js("[...document.querySelectorAll('.bar label')].map((l) => l.firstChild.textContent.trim())")
    assert labels == ["shown", "against"]
    assert at.js("[...document.querySelectorAll('button, select, input')].every((e) => e.textContent || e.ariaLabel)")
    # The evaluation has one moment, so it is held against the run before training.
    assert at.js("[document.getElementById('lead').value, document.getElementById('base').value]") == ["2", "0"]


@pytest.mark.parametrize("dark", [False, True])
def test_narrow_screens_need_no_sideways_scrolling(at, page, dark):
    at.open(page, width=390, dark=dark)
    assert at.js("document.documentElement.scrollWidth") <= 390
    at.open(f"{page}#s%202", width=390, dark=dark)
    panel = "document.getElementById('panel')"
    assert at.js(f"{panel}.scrollWidth <= {panel}.clientWidth && {panel}.getBoundingClientRect().right <= 390")
    light = at.js("getComputedStyle(document.body).color.match(/[0-9]+/g).every((part) => part > 128)")
    assert light is dark


def test_run_lengths_are_read_as_pycocotools_writes_them(at, page):
    at.open(page)
    rng = np.random.default_rng(0)
    for height, width, share in ((1, 1, 1), (7, 5, 0.5), (40, 33, 0.02), (64, 300, 0.97), (300, 9, 0)):
        mask = rng.random((height, width)) < share
        mask[: height // 2] |= height > 60
        code = "[...maskCanvas(JSON.parse(arguments[0]), [1, 2, 3]).getContext('2d').getImageData(0, 0, %d, %d).data]"
        found = at.driver.execute_script(f"return {code % (width, height)}", json.dumps(run_lengths(mask)))
        alpha = np.array(found).reshape(height, width, 4)[..., 3]
        np.testing.assert_array_equal(alpha > 0, mask)


def test_thousands_of_samples_open_and_scroll(at, tmp_path, capsys):
    """How long it took is printed and decides nothing; that few cards are in the page at a time does."""
    rows = records(5000, lambda i: (i * 37 % 100) / 100)
    uri = "data:image/webp;base64," + "A" * 4000
    text = render([("big", {"records": rows})])
    text = text.replace(json.dumps([None] * 200, separators=(",", ":")), json.dumps([uri] * 200))
    (tmp_path / "big.html").write_text(text, encoding="utf-8")
    at.open((tmp_path / "big.html").as_uri())
    opened = at.js("performance.getEntriesByName('ready')[0].startTime")
    size = os.path.getsize(tmp_path / "big.html") / 1e6
    with capsys.disabled():
        print(f"\n5,000 samples ({size:.0f} MB) are open after {opened:.0f} ms")
    assert at.js("document.querySelectorAll('.card').length") < 100
    at.driver.execute_script("scrollTo(0, document.body.scrollHeight)")
    at.until("[...document.querySelectorAll('.card')].some((card) => card.dataset.id === 's 4999')")
    assert at.js("document.querySelectorAll('.card').length") < 100
    frames = at.driver.execute_async_script(
        "const told = arguments[0], times = []; scrollTo(0, 0);"
        "const step = (now) => { times.push(now); scrollBy(0, 300);"
        "times.length > 90 ? told(times.slice(1).map((t, i) => t - times[i])) : requestAnimationFrame(step); };"
        "requestAnimationFrame(step)"
    )
    with capsys.disabled():
        print(
            f"a frame of scrolling takes {np.median(frames):.1f} ms (median), {np.percentile(frames, 95):.1f} ms (95 %)"
        )
    at.choose("order", "best")
    at.driver.execute_script("document.getElementById('list').scrollIntoView()")
    at.until("document.querySelector(\".card[data-id='s 27']\") !== null")  # 27 * 37 % 100 = 99


def test_without_masks_the_order_is_that_of_box_ious(at, tmp_path):
    rows = records(3, lambda i: None)
    for row, shared in zip(rows, (3, 1, 2), strict=True):
        row |= {"prediction": None, "box_areas": [shared, 4], "truth": {"box": [0, 0, 24, 40], "mask": None}}
    (tmp_path / "boxes.html").write_text(render([("boxes", {"records": rows})]), encoding="utf-8")
    at.open((tmp_path / "boxes.html").as_uri())
    at.choose("order", "worst")
    assert at.shown() == ids(1, 2, 0)
    assert at.js("document.querySelector('.card .facts').textContent").startswith("box IoU ")
    at.open((tmp_path / "boxes.html").as_uri() + "#s%201")
    assert "box IoU 0.250" in at.js("document.querySelector('.numbers').textContent")
