"""What a check finds: each kind of problem in a set that has it, and nothing in a set that is well."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from dpad_fast.data import reasonseg, shapes
from dpad_fast.data.check import check, picture_digests
from dpad_fast.types import Sample, Target


@pytest.fixture(scope="module")
def well(tmp_path_factory):
    """Thirty rows of a folder."""
    return list(reasonseg.load(shapes.export_reasonseg(tmp_path_factory.mktemp("data") / "d", seed=3, count=30)))


def changed(samples, index=0, **fields):
    """The samples with one of them changed: its target's fields, or its own."""
    sample = samples[index]
    own = {name: fields.pop(name) for name in ("id", "image", "query") if name in fields}
    target = dataclasses.replace(sample.target, **fields) if fields else sample.target
    return [*samples[:index], dataclasses.replace(sample, target=target, **own), *samples[index + 1 :]]


def kinds(report):
    return {problem.kind: problem.count for problem in report.problems}


def test_a_set_that_is_well_has_no_problem(well):
    report = check(well)
    assert report.problems == ()
    assert (report.rows, report.errors, report.numbers["pictures"]) == (30, 0, 30)
    assert (report.coordinates.space, report.coordinates.sure) == ("original", "sure")
    assert report.text().startswith("30 rows: nothing is wrong\n")


@pytest.mark.parametrize(
    ("fields", "kind", "said"),
    [
        ({"id": "shapes-3-1"}, "id-twice", "shapes-3-1"),
        ({"query": " \n"}, "query-empty", "shapes-3-0"),
        ({"query": "word " * 61}, "long", "61 words"),
        ({"image": "gone.png"}, "picture-missing", "gone.png"),
        ({"image": b"no picture"}, "picture-broken", "cannot be opened"),
        ({"image": Image.new("RGB", (7, 9))}, "size", "the picture is 7x9, the truth says 112x112"),
        ({"box": (50, 50, 40, 60)}, "box-area", "box (50, 50, 40, 60)"),
        ({"box": (50, 50, 400, 60)}, "box-off", "the picture is 112x112"),
        ({"points": ((0, 0), (1, 1))}, "point-mask", "(0.0, 0.0)"),
        ({"points": ((0, 0), (400, 1))}, "point-off", "(400.0, 1.0)"),
        ({"mask": np.zeros((112, 112), bool)}, "no-target", "shapes-3-0"),
        ({"ignore": np.ones((112, 112), bool)}, "ignored", "100% of the pixels"),
    ],
)
def test_each_problem_is_found_once_and_says_where(well, fields, kind, said):
    report = check(changed(well, **fields))
    assert kinds(report)[kind] == 1
    (problem,) = (problem for problem in report.problems if problem.kind == kind)
    assert "shapes-3-" in problem.examples[0]
    assert said in problem.examples[0]
    assert problem.advice
    assert report.errors == sum(problem.level == "error" for problem in report.problems)


def test_box_that_is_not_the_masks(well):
    x1, y1, x2, y2 = well[0].target.box
    assert kinds(check(changed(well, box=(x1, y1, x2, (y1 + y2) / 2)))) == {"box-mask": 1}
    assert kinds(check(changed(well, box=(x1 + 1, y1, x2, y2)))) == {}  # a pixel is nothing


@pytest.mark.parametrize(
    ("factor", "order", "said"),
    [
        (7.5, "xyxy", "840x840 xyxy"),
        (1000 / 112, "xyxy", "0-1000 xyxy"),
        (1, "xywh", "original xywh"),
        (1 / 112, "cxcywh", "0-1 cxcywh"),
    ],
)
def test_coordinates_come_first(well, factor, order, said):
    mixed = []
    for sample in well:
        x1, y1, x2, y2 = np.array(sample.target.box) * factor
        box = {"xyxy": (x1, y1, x2, y2), "xywh": (x1, y1, x2 - x1, y2 - y1)}
        box["cxcywh"] = ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)
        mixed += changed([sample], box=box[order])
    report = check(mixed)
    assert report.problems[0].kind == "coordinates"
    assert report.problems[0].examples[0].startswith(f"they are {said} (")
    assert report.errors >= 1


def test_a_size_of_the_users_is_tried(well):
    mixed = [s for sample in well for s in changed([sample], box=tuple(np.array(sample.target.box) * 3))]
    found = check(mixed, resized=(336, 336)).coordinates
    assert (found.space, found.sure) == ("336x336", "sure")
    assert check(mixed).coordinates.space is None


def test_pictures_shared_with_another_set_count_once_and_repeated_rows_are_found(well):
    assert kinds(check(well, against=picture_digests(well[:3]))) == {"shared": 3}
    twin = dataclasses.replace(well[0], id="another", query="another")
    assert kinds(check([*well, twin], against=picture_digests(well[:1]))) == {"shared": 1}
    assert kinds(check([*well, dataclasses.replace(well[0], id="another")])) == {"row-twice": 1}
    assert picture_digests([dataclasses.replace(well[0], image="gone.png")]) == set()


def test_unread_rows_are_counted_while_the_samples_are_read(well):
    unread = []

    def stream():
        yield from well
        unread.append("row 31 is torn")

    report = check(stream(), unread=unread)
    assert (report.rows, kinds(report)) == (31, {"unread": 1})
    assert report.problems[0].examples == ("row 31 is torn",)


def test_the_list_is_worst_first_and_says_how_many_more(well):
    samples = [dataclasses.replace(sample, query="", id="same") for sample in well]
    samples = changed(samples, 4, points=((0, 0), (1, 1)))
    report = check(samples)
    assert [problem.kind for problem in report.problems] == ["query-empty", "id-twice", "point-mask"]
    assert "... and 25 more" in report.text()
    assert "    -> give each row its own: predictions are matched by it" in report.text()
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [problem["count"] for problem in plain["problems"]] == [30, 29, 1]
    assert plain["coordinates"]["space"] == "original"


def test_rows_of_any_picture_and_target():
    image = np.zeros((20, 30, 3), np.uint8)
    objects = (((1, 1, 5, 5), (2, 2)), ((10, 10, 90, 15), (12, 12)))
    rows = [Sample("a", image, "x", Target(objects=objects)), Sample("b", image, "y", Target())]
    report = check(rows)
    assert kinds(report) == {"box-off": 1, "no-target": 1, "unknown-space": 1}
    assert check([]).rows == 0
