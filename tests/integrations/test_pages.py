"""The pages of frameworks show the examples as they are, and their links lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {
    "ms-swift": ["ms-swift/plugin_dpad.py"],
    "openrlhf": ["openrlhf/reward.py"],
    "slime": ["slime/dpad_rewards.py"],
    "easyr1": ["easyr1/reward.yaml"],
    "areal": ["areal/dpad_rewards.py"],
    "authors-code": [],
}


@pytest.mark.parametrize("page", PAGES)
def test_page(page):
    text = (ROOT / "docs" / f"{page}.md").read_text()
    for example in PAGES[page]:
        assert (ROOT / "examples" / example).read_text().strip() in text
    assert {"## What changes", "## What is logged", "## Known traps"} <= set(text.splitlines())
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    assert all((ROOT / "docs" / link).exists() for link in links)
    assert max(map(len, text.splitlines())) <= 200
