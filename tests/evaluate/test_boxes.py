"""Box IoU as referring expression comprehension counts it: by hand, against torchvision, and which box counts."""

import numpy as np
import pytest
import torch

from dpad_fast.evaluate.boxes import answered_box, overlap, true_box
from dpad_fast.types import Completion, Target


@pytest.mark.parametrize(
    ("predicted", "shared", "union"),
    [
        ((0, 0, 10, 10), 100, 100),
        ((0, 0, 10, 20), 100, 200),  # exactly 0.5, which counts
        ((5, 5, 15, 15), 25, 175),
        ((10, 0, 20, 10), 0, 200),  # they touch
        ((9, 9, 2, 2), 0, 100),  # corners the wrong way round cover nothing
        ((3, 3, 3, 9), 0, 100),
        (None, 0, 100),
        ((-5, -5, 5, 5), 25, 175),  # not cut to the picture
    ],
)
def test_by_hand(predicted, shared, union):
    assert overlap(predicted, (0, 0, 10, 10)) == (shared, union)


def test_agrees_with_torchvision():
    torchvision = pytest.importorskip("torchvision")
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (200, 2, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 60, low.shape)], axis=2)
    theirs = torchvision.ops.box_iou(torch.tensor(boxes[:, 0]), torch.tensor(boxes[:, 1])).diagonal()
    mine = [np.divide(*overlap(tuple(a), tuple(b))) for a, b in boxes]
    assert mine == pytest.approx(theirs.tolist(), abs=1e-12)


def test_which_box_of_an_answer_counts():
    two = Completion("", objects=(((0, 0, 1, 1), None), ((2, 2, 3, 3), None)))
    assert answered_box(two) == (0, 0, 1, 1)
    assert answered_box(two, (0.1, 0.9)) == (2, 2, 3, 3)
    assert answered_box(two, (None, 0.9)) == (2, 2, 3, 3)
    assert answered_box(Completion("", box=(5, 5, 6, 6))) == (5, 5, 6, 6)
    assert answered_box(Completion("", rings=(np.array([[1.0, 2], [7, 3], [4, 9]]),))) == (1, 2, 7, 9)
    assert answered_box(Completion("")) is None
    assert answered_box(None) is None


def test_which_truth_has_one_box():
    assert true_box(Target(box=(1, 2, 3, 4))) == (1, 2, 3, 4)
    assert true_box(Target(box=(3, 2, 3, 4))) is None
    assert true_box(Target()) is None
    several = (((1, 1, 2, 2), (1, 1)), ((3, 3, 4, 4), (3, 3)))
    assert true_box(Target(box=(1, 1, 4, 4), objects=several)) is None
