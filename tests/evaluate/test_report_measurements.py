"""What the report shows of measurements: curves of held-out samples, comparisons, box IoU."""

import json
import re
from html import escape

import pytest

from dpad_fast.data import shapes
from dpad_fast.evaluate.report import render
from dpad_fast.train.config import TrainConfig

EVIL = "<script>alert(1)</script>"


def data_of(*results):
    page = render([(f"{i}.json", result) for i, result in enumerate(results)])
    return json.loads(re.search(r"id='data'>(.*?)</script>", page).group(1))


def run_of(name, **more):
    numbers = {key: {"value": 0.5, "error": 0.1, "units": 8} for key in ("giou", "ciou", "format")}
    history = [{"step": step, "reward": 1.0} for step in range(1, 6)]
    parts = {"before": numbers, "after": numbers, "records": {"before": [], "after": []}, "history": history}
    return {"kind": "run", "config": TrainConfig(name=name).as_dict(), "versions": {}, **parts, **more}


def test_what_was_measured_during_training_has_curves():
    during = [{"step": 2, "metrics": {"giou": {"value": 0.25}, "format": {"value": None}}}]
    curves = data_of(run_of("a", during=during), run_of("b", during=[]))["curves"]
    held_out = {panel["title"]: panel for panel in curves[1]}
    assert held_out["gIoU"]["steps"] == [0, 2, 5]  # before, at step 2, after the last step of the log
    (line,) = held_out["gIoU"]["lines"]  # the other run measured nothing on the way
    assert line["values"] == line["mean"] == [0.5, 0.25, 0.5]
    assert held_out["format"]["steps"] == [0, 5]
    assert len(data_of(run_of("a"))["curves"]) == 1


def test_a_comparison_is_a_table():
    value = {"value": 0.125, "error": 0.1, "low": -0.25, "high": 0.5, "units": 2, "p": 0.5}
    hostile = {"gIoU": EVIL, "box_giou": {"value": EVIL}, EVIL: value | {"low": None, "p": None}}
    comparison = {"other": EVIL, "n": 2, "differences": {"strict": {"gIoU": value}, EVIL: hostile, "lisa": EVIL}}
    page = render([("a.json", {"records": [], "comparison": comparison})])
    assert "<td>strict: gIoU</td><td>+0.1250</td><td>-0.2500 to +0.5000</td><td>0.500</td>" in page
    assert page.count("<td>+0.1250</td>") == 2
    assert f"<caption>a minus {escape(EVIL)}, on 2 samples</caption>" in page
    assert EVIL not in page


@pytest.mark.parametrize(
    ("areas", "iou"), [([3, 4], 0.75), ([0.0, 4.0], 0.0), (None, None), ([1, 0], None), ("34", None), ([EVIL, 1], None)]
)
def test_the_iou_of_boxes_is_shown(areas, iou):
    row = {"id": shapes.sample(9000, 0).id, "text": "x", "box": [1, 2, 3, 4], "box_areas": areas}
    assert data_of({"records": [row]})["answers"][0][0][0].get("box_iou") == iou
