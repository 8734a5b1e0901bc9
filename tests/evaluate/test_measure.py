"""Answers of a model against the scene: which shape was meant, boxes and masks, differences between runs."""

import json

import numpy as np
import pytest

from dpad_fast.data import shapes
from dpad_fast.data.shapes_text import GENERIC_CAPTIONS, MIXTURES, answer_of, completion_of
from dpad_fast.evaluate.lookup import decode_mask
from dpad_fast.evaluate.measure import (
    chain_of,
    difference,
    from_rows,
    measure,
    shape_concerned,
    summarise,
    to_rows,
)
from dpad_fast.evaluate.small_masks import RECORD_COUNTS, RECORD_SIDE, small_mask
from dpad_fast.rewards import RewardConfig, RewardScorer, parse_completion
from dpad_fast.segmenters.drawn import Drawn, box_mask, from_background, from_box, from_polygon, from_rings
from dpad_fast.types import Completion, Sample, Target

CONFIG = RewardConfig.from_dict({"preset": "dpad", "terms": ["think_format", "answer_format"]})


def words(text):
    return len(text.split())


def written(item, index, caption=None, chain="a b c"):
    shape = item.scene.objects[index]
    answer = answer_of(shape.box, shape.points)
    return f"<think>{chain}</think>\n<answer>{answer}</answer>\n<caption>{caption or shape.name}</caption>"


def records_of(texts, items):
    return measure(texts, items, RewardScorer(CONFIG), words, Drawn(from_background))


def test_right_wrong_and_unreadable_answers():
    item = shapes.sample(1, 0)
    target = item.question.target
    other = (target + 1) % len(item.scene.objects)
    generic = GENERIC_CAPTIONS[0]
    texts = [written(item, target), written(item, other, generic, "i see a thing"), "<think> never closed d"]
    right, wrong, broken = records_of(texts, [item] * 3)
    (neighbour,) = records_of([written(item, target, item.scene.objects[other].name)], [item])
    assert (broken.names, neighbour.names, neighbour.right) == ("absent", "other", True)
    assert (right.iou, right.right, right.names, right.focused, right.chain_tokens) == (1.0, True, "target", True, 3)
    assert (wrong.right, wrong.names, wrong.focused, wrong.chain_tokens) == (False, "generic", False, 4)
    assert wrong.intersection == 0
    assert (broken.intersection, broken.union) == (0, int(item.target.mask.sum()))
    assert (broken.format_ok, broken.right, broken.chain_tokens) == (False, False, 3)
    assert broken.reason == "no-tags"
    found = summarise([right, wrong, broken])
    assert found["giou"].value == pytest.approx(1 / 3)
    assert found["format"].value == pytest.approx(2 / 3)
    assert found["right"].value == pytest.approx(1 / 3)


def test_the_shape_concerned_is_the_one_that_was_meant():
    rng = np.random.default_rng(0)
    items = [shapes.sample(2, index) for index in range(60)]
    agreed = []
    for item in items:
        text = completion_of(item, MIXTURES["j"], rng)
        concluded = text.split("so the ")[1].split(" .")[0]
        meant = next(i for i, shape in enumerate(item.scene.objects) if shape.name == concluded)
        agreed.append(shape_concerned(parse_completion(text, CONFIG), item) == meant)
    assert np.mean(agreed) > 0.93  # a box jittered by 21 pixels may fall on a neighbour
    item = items[0]
    nowhere = Completion("", box=(0.0, 0.0, 0.5, 0.5), caption=f"a {item.scene.objects[1].name}")
    free = all(s.box[0] > 0 or s.box[1] > 0 for s in item.scene.objects)
    assert not free or shape_concerned(nowhere, item) == 1
    assert shape_concerned(Completion(""), item) is None


def test_background_masks_are_exact_for_right_boxes():
    for index in range(50):
        item = shapes.sample(9, index)
        found = from_background(Completion("", box=item.target.box), item.image, (112, 112))
        assert np.array_equal(found, item.target.mask)
    assert from_background(Completion(""), item.image, (112, 112)) is None


def test_box_and_polygon_masks():
    assert box_mask((1, 0, 3, 2), (4, 3)).tolist() == [[False, True, True, False]] * 2 + [[False] * 4]
    assert box_mask((-9, -9, 99, 99), (4, 3)).all()
    assert not box_mask((50, 50, 60, 60), (4, 3)).any()
    ring = np.array([[1.0, 0.0], [3.0, 0.0], [3.0, 2.0], [1.0, 2.0]])
    drawn = from_polygon(Completion("", rings=(ring,)), None, (8, 8))
    assert drawn.shape == (8, 8)
    assert drawn[:2, 1:3].all()
    fallback = from_polygon(Completion("", box=(0.0, 0.0, 2.0, 2.0)), None, (4, 4))
    assert fallback.sum() == 4
    assert all(
        segmenter(Completion(""), None, (4, 4)) is None for segmenter in (from_box, from_polygon, from_background)
    )


def test_chain_of():
    assert chain_of("<think>a</think>b") == "a"
    assert chain_of("x<think>a b") == "a b"
    assert chain_of("nothing") == "nothing"


def test_differences_are_paired_by_scene():
    items = [shapes.sample(4, index) for index in range(40)]
    long = records_of([written(i, i.question.target, chain="w " * (5 + n)) for n, i in enumerate(items)], items)
    short = records_of([written(i, i.question.target, chain="w " * (3 + n)) for n, i in enumerate(items)], items)
    gap = difference(short, long, "chain_tokens")
    assert gap.value == pytest.approx(-2.0)
    assert gap.error == pytest.approx(0.0, abs=1e-9)  # every scene differs by the same
    assert summarise(long)["chain_tokens"].error > 1.0


def test_rows_round_trip():
    item = shapes.sample(1, 0)
    made = records_of([written(item, 0)], [item])
    assert from_rows(to_rows(made)) == made
    with pytest.raises(ValueError, match=r"rows\[0\] has unknown fields \['x'\]"):
        from_rows([{**to_rows(made)[0], "x": 1}])


def test_mistakes_are_named():
    item = shapes.sample(1, 0)
    with pytest.raises(ValueError, match="texts has 1 entries, items has 2"):
        records_of(["a"], [item, item])
    bare = Sample("no-mask", item.image, "?", Target(box=(0, 0, 9, 9), image_size=(112, 112)))
    with pytest.raises(ValueError, match=r"items\[1\] \(no-mask\) has no ground-truth mask"):
        records_of(["a", "b"], [item, bare])
    assert records_of([], []) == []


def test_rings_are_drawn_as_opencv_draws_the_data_set(monkeypatch):
    """Each ring is drawn by `cv2.fillPoly` with vertices cut to integers; their union has no hole where two overlap."""
    cv2 = pytest.importorskip("cv2")
    monkeypatch.setattr("dpad_fast.segmenters.drawn._DRAWN_AT_ONCE", 3 * 50 * 60)  # several goes
    rng = np.random.default_rng(0)
    for count in (1, 2, 7):
        rings = tuple(rng.uniform(-10, 65, (int(rng.integers(3, 9)), 2)) for _ in range(count))
        expected = np.zeros((50, 60), np.uint8)
        for ring in rings:
            cv2.fillPoly(expected, [ring.astype(np.int32)], 1)
        for segmenter in (from_rings, from_polygon):
            drawn = segmenter(Completion("", rings=rings, box=(0.0, 0.0, 1.0, 1.0)), None, (60, 50))
            assert np.array_equal(drawn, expected.astype(bool))
    assert from_rings(Completion("", box=(0.0, 0.0, 1.0, 1.0)), None, (60, 50)) is None


def test_masks_are_kept_where_a_segmenter_or_polygons_made_them():
    item = shapes.sample(1, 0)
    text = written(item, item.question.target)
    scorer = RewardScorer(CONFIG)
    (made,) = measure([text], [item], scorer, words, Drawn(from_background), keep_masks=True)
    assert np.array_equal(decode_mask(made.prediction), item.target.mask)
    (row,) = to_rows([made])
    assert from_rows(json.loads(json.dumps([row]))) == [made]
    assert len(json.dumps(row["prediction"])) < 400  # bytes of a row, of a picture of 112 x 112
    (boxed,) = to_rows(records_of([text], [item]))
    assert "prediction" not in boxed
    assert "model_size" not in boxed
    polygon = RewardConfig.from_dict({"preset": "dpad", "geometry": "mask", "terms": ["think_format", "answer_format"]})
    answer = '{"polygon": [[10, 10], [60, 10], [60, 60], [10, 60]]}'
    said = f"<think>a</think><answer>{answer}</answer><caption>c</caption>"
    (record,) = measure([said], [item], RewardScorer(polygon), words, Drawn(from_polygon))
    assert decode_mask(record.prediction)[10:60, 10:60].all()


def test_the_size_that_the_policy_saw_is_kept():
    item = shapes.sample(1, 0)
    seen = [(56, 28), (112, 112), None]
    records = measure(["a"] * 3, [item] * 3, RewardScorer(CONFIG), words, Drawn(from_box), model_sizes=seen)
    assert [record.model_size for record in records] == [[56, 28], None, None]
    assert from_rows(json.loads(json.dumps(to_rows(records)))) == records


@pytest.mark.parametrize("shape", [(2000, 3), (1, 5000), (3000, 4000), (840, 840)])
def test_kept_masks_are_bounded_whatever_a_segmenter_makes(shape):
    ragged = np.random.default_rng(0).random(shape) < 0.5
    for mask in (ragged, np.ones(shape, bool), np.zeros(shape, bool)):
        found = small_mask(mask, RECORD_SIDE, RECORD_COUNTS)
        assert len(found["counts"]) <= RECORD_COUNTS
        assert max(found["size"]) <= RECORD_SIDE
        again = decode_mask(found)
        assert again.shape == tuple(found["size"])
        assert mask is ragged or (again == mask.flat[0]).all()
