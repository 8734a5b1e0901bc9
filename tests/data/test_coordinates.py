"""The doctor of coordinates: thousands of generated sets, of which none may be told wrongly for sure."""

from collections import Counter

import numpy as np
import pytest

from dpad_fast.data.coordinates import ORDERS, coordinate_space
from dpad_fast.model_size import WholePatches
from dpad_fast.testing import cases

CASES = cases(1)
SPACES = ("original", "resized", "0-1000", "0-1")
POOLS = {
    "coco": ((640, 480), (480, 640), (500, 375), (640, 427)),
    "large": ((3000, 2000), (4000, 3000)),
    "thousand": ((1000, 1000),),
    "released": ((840, 840),),
    "mixed": ((640, 480), (1920, 1080), (300, 1000), (800, 600)),
    "small": ((112, 112),),
}
SIDES = {
    "any": lambda rng: rng.beta(1.2, 2.5, 2) * 0.9 + 0.03,
    "small": lambda rng: rng.random(2) * 0.05 + 0.02,
    "large": lambda rng: rng.random(2) * 0.3 + 0.6,
}


def in_order(box, order):
    x1, y1, x2, y2 = box
    if order == "xyxy":
        return x1, y1, x2, y2
    return (x1, y1, x2 - x1, y2 - y1) if order == "xywh" else ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)


def generate(rng, n, pool, space, order, *, jitter=0.0, grown=0.0, shift=0.0, garbage=0.0, sides="any"):
    """Boxes as they are written, sizes, truths, and the sizes of a Qwen2.5-VL: answers may be off in several ways."""
    sizes = [POOLS[pool][i] for i in rng.integers(len(POOLS[pool]), size=n)]
    seen = [WholePatches().resized(size) for size in sizes]
    boxes, truths = [], []
    for size, other in zip(sizes, seen, strict=True):
        side = SIDES[sides](rng)
        corner = rng.random(2) * (1 - side)
        truth = np.round(np.concatenate([corner, corner + side]) * np.tile(size, 2))
        truths.append(tuple(truth))
        lengths = np.tile(truth[2:] - truth[:2], 2)
        answer = truth + lengths * (np.array([-1, -1, 1, 1]) * grown + rng.normal(0, 1, 4) * jitter) + shift * size[0]
        unit = {"original": size, "resized": other, "0-1000": (1000, 1000), "0-1": (1, 1)}[space]
        written = answer / np.tile(size, 2) * np.tile(unit, 2)
        if rng.random() < garbage:
            written = rng.random(4) * np.tile(unit, 2)
        boxes.append(tuple(np.round(in_order(written, order), 4 if space == "0-1" else 0)))
    return boxes, sizes, truths, seen


def test_no_set_with_truth_is_told_wrongly_for_sure_and_most_good_ones_are_told():
    rng = np.random.default_rng(7)
    all_told, good_told = Counter(), Counter()
    for _ in range(400 * CASES):
        space, order, pool = SPACES[rng.integers(4)], ORDERS[rng.integers(3)], list(POOLS)[rng.integers(len(POOLS))]
        off = {
            "jitter": float(rng.choice([0, 0.02, 0.1, 0.3])),
            "grown": float(rng.choice([0, 0, 0.01, 0.1, -0.05])),
            "shift": float(rng.choice([0, 0, 0.01, -0.01])),
            "garbage": float(rng.choice([0, 0, 0.1, 0.4])),
            "sides": list(SIDES)[rng.integers(3)],
        }
        n = int(rng.choice([8, 20, 50, 100]))
        boxes, sizes, truths, seen = generate(rng, n, pool, space, order, **off)
        found = coordinate_space(boxes, sizes, truths, resized=seen)
        right = found.order == order and space in found.same
        told = "cannot tell" if found.sure != "sure" else "right" if right else "wrong"
        all_told[told] += 1
        small = off["sides"] == "small"  # of which whole pixels and 0-1000 leave little in a small picture
        if n >= 50 and off["jitter"] <= 0.02 and not (off["grown"] or off["shift"] or off["garbage"] or small):
            good_told[told] += 1
    print(f"with truth, sets of any quality: {dict(all_told)}; good answers, 50 rows or more: {dict(good_told)}")
    assert all_told["wrong"] == 0
    assert all_told["right"] > 80 * CASES
    assert good_told["right"] > 0.95 * good_told.total()


def test_without_truth_nothing_is_sure_and_what_is_likely_is_mostly_right():
    rng = np.random.default_rng(8)
    told = Counter()
    for _ in range(300 * CASES):
        space, order, pool = SPACES[rng.integers(4)], ORDERS[rng.integers(3)], list(POOLS)[rng.integers(len(POOLS))]
        boxes, sizes, _, seen = generate(rng, 50, pool, space, order, jitter=float(rng.choice([0, 0.1, 0.2])))
        found = coordinate_space(boxes, sizes, resized=seen)
        told[found.sure, found.sure != "no" and found.order == order and space in found.same] += 1
    print(f"without truth: {dict(told)}")
    assert told["sure", True] + told["sure", False] == 0
    assert told["likely", True] > 40 * CASES
    assert told["likely", False] <= 0.05 * told["likely", True]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("space", SPACES)
def test_fifty_exact_boxes_of_photographs_tell_space_and_order(space, order):
    boxes, sizes, truths, seen = generate(np.random.default_rng(1), 50, "large", space, order)
    found = coordinate_space(boxes, sizes, truths, resized=seen)
    assert (found.sure, found.order) == ("sure", order)
    assert space in found.same
    assert found.chance <= 1e-3
    # 3000x2000 is seen as 1204x812: near in no way. A unit that is not the sizes' is told from all others.
    assert found.same == (space,)


def test_spaces_that_are_one_are_named_together():
    boxes, sizes, truths, seen = generate(np.random.default_rng(1), 50, "thousand", "0-1000", "xyxy", jitter=0.05)
    found = coordinate_space(boxes, sizes, truths, resized=seen)
    assert found.sure == "sure"
    assert set(found.same) == {"original", "0-1000", "resized"}  # the last is 980x980: 2 % may be the model's own habit
    assert "cannot tell them apart" in found.why


def test_spaces_that_are_near_are_told_apart_by_exact_boxes_alone():
    rng = np.random.default_rng(1)
    boxes, sizes, truths, seen = generate(rng, 50, "thousand", "resized", "xyxy")
    assert coordinate_space(boxes, sizes, truths, resized=seen).same == ("resized",)
    boxes, sizes, truths, seen = generate(rng, 50, "thousand", "original", "xyxy", shift=-0.01)
    assert set(coordinate_space(boxes, sizes, truths, resized=seen).same) == {"original", "0-1000", "resized"}


def test_an_unnamed_size_can_be_tried():
    rng = np.random.default_rng(1)
    _, sizes, truths, _ = generate(rng, 50, "coco", "original", "xyxy")
    boxes = [np.array(truth) * np.tile(840 / np.array(size), 2) for truth, size in zip(truths, sizes, strict=True)]
    found = coordinate_space(boxes, sizes, truths, tried={"840x840": [(840, 840)] * 50})
    assert (found.sure, found.space, found.order) == ("sure", "840x840", "xyxy")


def test_what_it_cannot_tell_it_says():
    rng = np.random.default_rng(1)
    boxes, sizes, truths, seen = generate(rng, 50, "coco", "original", "xyxy", garbage=1.0)
    found = coordinate_space(boxes, sizes, truths, resized=seen)
    assert (found.space, found.sure) == (None, "no")
    assert found.why.startswith("no reading fits")
    assert coordinate_space(boxes[:7], sizes[:7], truths[:7]).why == "7 boxes are too few to tell; 8 or more can"
    assert coordinate_space(boxes[:19], sizes[:19]).why == "19 boxes are too few to tell; 20 or more can"
    assert coordinate_space([], []).space is None


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="sizes has 1 entries for 2 boxes"):
        coordinate_space([(1, 2, 3, 4)] * 2, [(5, 5)])
    with pytest.raises(ValueError, match=r"boxes\[1\] must be four numbers"):
        coordinate_space([(1, 2, 3, 4), (1, 2)], [(5, 5)] * 2)
    with pytest.raises(ValueError, match=r"boxes\[0\] must be four finite numbers"):
        coordinate_space([(1, 2, 3, float("nan"))], [(5, 5)])
    huge = coordinate_space([(1e308, 1e308, 1e308, 1e308)] * 30, [(5, 5)] * 30)
    assert huge.space is None
