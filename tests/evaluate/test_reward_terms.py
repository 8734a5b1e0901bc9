"""Reward terms of records: those of evaluate equal the scorer's, those of runs are as measured; others say why."""

import json

import numpy as np
import pytest

from dpad_fast.data import shapes
from dpad_fast.evaluate.lookup import Lookup
from dpad_fast.evaluate.report import Options, render
from dpad_fast.evaluate.results import Series
from dpad_fast.evaluate.reward_terms import TermReader
from dpad_fast.evaluate.ruler import Item, Line, Ruler, Settings
from dpad_fast.rewards import RewardConfig, RewardScorer
from dpad_fast.types import Sample, Target

GEOMETRY = ("think_format", "answer_format", "iou", "box_l1", "point_l1")
ASK_FOR_ENCODER = (None, "S1 and S2 were not measured: evaluate --encoder NAME")


def completion(box, points, think="hm", **fields):
    answer = {"bbox": [int(v) for v in box], "points_1": points[0], "points_2": points[1], **fields}
    return f"<think>{think}</think><answer>{json.dumps(answer)}</answer><caption>c</caption>"


def texts_of(item, rng):
    """Answers that are right, near, far, and broken in several ways."""
    near = np.array(item.target.box) + rng.integers(-14, 15, size=4)
    points = [[int(v) + int(d) for v, d in zip(p, rng.integers(-60, 61, 2), strict=True)] for p in item.target.points]
    whole = completion(near, points)
    yield from (whole, completion(item.target.box, item.target.points), completion((0, 0, 3, 3), [[1, 1], [2, 2]]))
    yield from (whole.replace("</think>", ""), whole.replace("bbox", "x"), "", "<think>a</think>{}")


def test_terms_of_evaluates_records_are_the_scorers():
    rng = np.random.default_rng(0)
    items = [shapes.sample(9000, i) for i in range(20)]
    config = RewardConfig.preset("dpad", terms=GEOMETRY)
    scorer, reader = RewardScorer(config), TermReader(RewardConfig.preset("dpad"))
    ruler = Ruler(Settings(format="dpad", model_size=(shapes.SIDE, shapes.SIDE)))
    zeros = set()
    for item in items:
        texts = list(texts_of(item, rng))
        records = ruler.measure([Item(item, tuple(Line("p", text=text) for text in texts))])
        batch = scorer.score(texts, [item.target] * len(texts), model_sizes=[item.target.image_size] * len(texts))
        for record, scored in zip(records, batch.rows(), strict=True):
            found = reader.of(record, item, item.target.image_size)
            assert {name: found[name][0] for name in GEOMETRY} == scored["terms"]
            assert found["mask_iou"][0] == round(record["iou"], 4)
            assert found["discriminative"] == ASK_FOR_ENCODER
            for name, (value, why) in found.items():
                assert (value in (0, None)) == (why is not None), (name, value, why)
                zeros |= {(name, why)} if value == 0 else set()
    assert {("iou", "wrong-place"), ("point_l1", "wrong-place"), ("iou", "no-tags")} <= zeros


def test_several_objects_have_the_presets_accuracy():
    boxes = [(10.0, 10.0, 20.0, 20.0), (20.0, 10.0, 30.0, 20.0), (40.0, 2.0, 50.0, 12.0)]
    objects = tuple((box, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)) for box in boxes)
    mask = np.zeros((40, 60), bool)
    mask[10:20, 10:30] = True
    item = Sample("a", "none.png", "q", Target(mask=mask, image_size=(60, 40), objects=objects))
    rng = np.random.default_rng(1)
    config = RewardConfig.preset("vision-reasoner")
    ruler = Ruler(Settings(format="vision-reasoner", model_size=(60, 40)))
    seen = set()
    for count in (1, 2, 3, 5):
        said = [boxes[i % 3] + rng.integers(-8, 9, 4) for i in range(count)]
        parts = [{"bbox_2d": [int(v) for v in box], "point_2d": [int(box[0]) + 4, int(box[1]) + 3]} for box in said]
        text = f"<think>hm</think><answer>{json.dumps(parts)}</answer>"
        (record,) = ruler.measure([Item(item, (Line("p", text=text),))])
        lookup = Lookup()
        (again,) = lookup.find([Series("s", [record], "s")], ["a"])  # the truth that the record itself holds
        found = TermReader(RewardConfig.preset("dpad")).of(record, again, None)
        scored = next(RewardScorer(config).score([text], [item.target], model_sizes=[(60, 40)]).rows())["terms"]
        assert found["accuracy"][0] == pytest.approx(scored["accuracy"])
        assert found["non_repeat"][0] == scored["non_repeat"]
        assert "iou" not in found
        seen.add(found["accuracy"][0])
    assert len(seen) > 1
    del record["box_points"]  # as earlier versions wrote it
    found = TermReader(RewardConfig.preset("dpad")).of(record, again, None)
    assert found["accuracy"] == (None, "the points of the boxes are not in the record")


def test_what_is_not_known_says_why():
    item = shapes.sample(9000, 0)
    (record,) = Ruler(Settings(format="dpad", model_size=(112, 112))).measure(
        [Item(item, (Line("p", text=completion(item.target.box, item.target.points)),))]
    )
    reader = TermReader(RewardConfig.preset("dpad"))
    bare = Sample(item.id, None, "", Target(box=item.target.box))
    assert reader.of(record, bare, None)["point_l1"] == (None, "the ground truth has no points")
    assert reader.of(record | {"points": [[1, 1]]}, item, None)["point_l1"] == (
        0.0, "two points are needed, the answer has 1",
    )  # fmt: skip
    assert reader.of(record | {"box": None}, item, None)["iou"] == (0.0, "no box in the answer")
    polygon = reader.of(record | {"box": None, "polygons": [[0, 0], [9, 0], [9, 9]]}, item, None)
    assert polygon["iou"] == polygon["point_l1"] == (None, "the answer is a polygon, without a box")
    measured = reader.of(record | {"terms": record["terms"] | {"discriminative": 0.0}}, item, None)
    assert measured["discriminative"] == (0.0, "not-discriminative")
    (missing,) = Ruler(Settings()).measure([Item(item, ())])
    assert reader.of(missing, item, None) == {}
    (mask,) = Ruler(Settings()).measure([Item(item, (Line("p", mask=record["prediction"]),))])
    assert reader.of(mask, item, None) == {"mask_iou": (1.0, None)}
    theirs = {"id": "x", "text": "y", "terms": {"mine": 0.0}}
    assert reader.of(theirs, item, None) == {"mine": (0.0, None)}
    found = reader.of(
        {"id": "x", "text": completion((0, 0, 9, 9), [[1, 1], [2, 2]])}, Sample("x", None, "", Target()), None
    )
    assert found["think_format"] == (1.0, None)
    assert found["iou"] == (None, "the ground truth is not known: give --data")
    assert found["discriminative"][0] is None


def run_of(rows, rewards, path="gone.jsonl"):
    from dpad_fast.train.config import EvaluationConfig, HeldOutConfig, TrainConfig

    evaluation = EvaluationConfig(data=HeldOutConfig(path=path))
    config = TrainConfig(name="r", rewards=rewards, evaluation=evaluation).as_dict()
    parts = {"before": {}, "after": {}, "history": [], "versions": {}}
    return {"kind": "run", "config": config, "records": {"before": [], "after": rows}, **parts}


def answers_of(content):
    page = render([("r", content)], Options(Lookup()))
    text = page.partition("<script type='application/json' id='data'>")[2].partition("</script>")[0]
    return [row for rows in json.loads(text)["answers"][0] for row in rows]


def test_a_run_with_a_segmenter_shows_its_mask_iou_and_loads_no_model():
    """Its folder is on another machine; the areas were measured through it."""
    rewards = {
        "preset": "seg-zero", "terms": ["think_format", "answer_format", "mask_iou"], "segmenter": "sam2:/not/here",
        "weights": {"mask_iou": 2.0},
    }  # fmt: skip
    item = shapes.sample(9000, 0)
    text = completion(item.target.box, item.target.points).partition("<caption>")[0]
    mask = {"size": [2, 2], "counts": "04"}
    truth = {
        "box": list(item.target.box),
        "points": [list(p) for p in item.target.points],
        "mask": {"size": [112, 112], "counts": [12000, 544]},
    }
    common = {"id": "a", "text": text, "truth": truth, "s1": None, "prediction": mask}
    rows = [common | {"intersection": 3, "union": 4}, common | {"intersection": 0, "union": 4, "reason": "no-mask"}]
    first, second = answers_of(run_of(rows, rewards))
    assert first["terms"] == {"think_format": [1, None], "answer_format": [1, None], "mask_iou": [0.75, None]}
    assert second["terms"]["mask_iou"] == [0, "no-mask"]
    assert first["mask"] == mask
    assert first["iou"] == 0.75


def test_a_segmenter_beside_a_description_is_shown_too():
    """The judge of such a run knows no `mask_iou`; the run's rewards do, and its masks were measured."""
    terms = ["think_format", "answer_format", "iou", "mask_iou", "discriminative"]
    rewards = {"preset": "dpad", "terms": terms, "segmenter": "sam2:/not/here", "mask_threshold": 0.5}
    item = shapes.sample(9000, 0)
    text = completion(item.target.box, item.target.points)
    truth = {"box": list(item.target.box), "points": [list(p) for p in item.target.points]}
    row = {"id": "a", "text": text, "truth": truth, "s1": 0.5, "s2": 0.25, "intersection": 3, "union": 4}
    (shown,) = answers_of(run_of([row], rewards))
    assert shown["terms"]["mask_iou"] == [1, None]
    (shown,) = answers_of(run_of([row | {"intersection": 1, "reason": "wrong-place"}], rewards))
    assert shown["terms"]["mask_iou"] == [0, "wrong-place"]


def test_pixels_are_those_of_the_picture_that_the_policy_saw():
    """The policy saw the picture at half its size: boxes, points and terms are in the ground truth's pixels."""
    item = shapes.sample(9000, 0)
    half = completion([v / 2 for v in item.target.box], [[int(v) // 2 for v in p] for p in item.target.points])
    truth = {
        "box": list(item.target.box),
        "points": [list(p) for p in item.target.points],
        "mask": {"size": [112, 112], "counts": [12000, 544]},
    }
    row = {"id": "a", "text": half, "truth": truth, "model_size": [56, 56], "s1": 0.5, "s2": 0.25}
    (shown,) = answers_of(run_of([row], {"preset": "dpad"}))
    assert shown["boxes"] == [[int(v / 2) * 2 for v in item.target.box]]
    assert [shown["terms"][name][0] for name in (*GEOMETRY, "discriminative")] == [1] * 6
    del row["model_size"]
    (wrong,) = answers_of(run_of([row], {"preset": "dpad"}))
    assert wrong["terms"]["iou"][0] == 0
    with pytest.raises(ValueError, match=r"records.after\[0\].model_size: 'big' is no \(width, height\)"):
        answers_of(run_of([row | {"model_size": "big"}], {"preset": "dpad"}))
