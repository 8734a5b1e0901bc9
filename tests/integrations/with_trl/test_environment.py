"""The environment has the release that its requirements name."""

import importlib.metadata
import re
from pathlib import Path

import pytest

pytest.importorskip("trl")
REQUIREMENTS = Path(__file__).parents[1] / "environments" / "trl.txt"


def test_the_pinned_releases_are_installed():
    pins = dict(re.findall(r"^([\w-]+)===?([^=\s]+)$", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE))
    assert pins["trl"] == "1.16.0"
    found = {name: importlib.metadata.version(name).partition("+")[0] for name in pins}
    assert found == pins
