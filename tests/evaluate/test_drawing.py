"""The parts of a report that need no page: curves as numbers, masks made small, tables in text."""

import re

import numpy as np
import pytest

from dpad_fast.evaluate.drawing import curve_panels
from dpad_fast.evaluate.lookup import decode_mask
from dpad_fast.evaluate.small_masks import MASK_SIDE, small_mask
from dpad_fast.evaluate.tables import Table


def test_long_masks_are_thinned():
    mask = np.zeros((1300, 40), dtype=bool)
    mask[300:700] = True
    small = small_mask(mask)
    assert max(small["size"]) <= MASK_SIDE
    found = decode_mask(small)
    assert found.mean() == pytest.approx(mask.mean(), abs=0.01)
    np.testing.assert_array_equal(found, mask[1::3, 1::3])
    assert small_mask(None) is None


def test_curves_are_means_over_the_last_steps():
    history = [{"step": i, "kl": float(i), "rewards/a/mean": 1.0, "other": 3} for i in range(1, 5)]
    panels = curve_panels({"a": [history], "b": [history, history[:2]], "empty": [[]]}, window=2)
    assert [panel["title"] for panel in panels] == ["KL from the warm start", "mean of a"]
    first, second, third = panels[0]["lines"]
    assert panels[0]["steps"] == [1, 2, 3, 4]
    assert first["values"] == [1, 2, 3, 4]
    assert first["mean"] == [1, 1.5, 2.5, 3.5]
    assert (second["name"], third["name"], third["arm"]) == ("b, seed 0", "b, seed 1", 1)
    assert third["values"] == [1, 2, None, None]
    assert curve_panels({"a": [[]]}) == []
    assert curve_panels({"a": [[{"step": 1, "kl": float("nan")}]]}) == []
    assert curve_panels({}) == []


def test_table_text_and_markdown():
    table = Table("T", ("a", "b|c"), (("x", "1"), ("longer", "22")), ("note",))
    lines = table.text().splitlines()
    assert len({len(line) for line in lines[1:6] if set(line) == {"-"}}) == 1
    assert lines[4] == "x         1"
    assert re.search(r"\| a \| b\\\|c \|", table.markdown())
