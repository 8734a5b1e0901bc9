"""Answers in the policy's own space become masks in the pixels of the ground truth's picture."""

import numpy as np
import pytest

from dpad_fast.evaluate.answers import InPictures
from dpad_fast.segmenters import box_mask, make_segmenter
from dpad_fast.types import Completion

QWEN = {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 1003520}


def drawn(name, answer, size, *space):
    """The mask of one answer."""
    (mask,) = InPictures(make_segmenter(name), *space).segment([answer], [None], [size])
    return mask


@pytest.mark.parametrize(
    ("coordinates", "processor", "box"),
    [
        ("norm1000", None, (250, 500, 500, 1000)),
        ("norm1", None, (0.25, 0.5, 0.5, 1.0)),
        ("pixel", None, (160, 240, 320, 480)),
        ("pixel", QWEN, (161, 238, 322, 476)),  # 640 x 480 is seen as 644 x 476
    ],
)
def test_a_box_in_every_space_is_the_same_mask(coordinates, processor, box):
    wanted = box_mask((160, 240, 320, 480), (640, 480))
    assert wanted.sum() == 160 * 240
    for name in ("box", "polygon"):
        found = drawn(name, Completion("", box=box), (640, 480), coordinates, processor)
        assert np.array_equal(found, wanted)


def test_rings_points_and_several_objects_are_scaled_too():
    ring = np.array([[250.0, 500], [500, 500], [500, 1000], [250, 1000]])
    whole = drawn("polygon", Completion("", rings=(ring,)), (640, 480), "norm1000")
    assert whole[240:480, 160:320].all()
    objects = (((0, 0, 100, 100), (50, 50)), (None, None), ((900, 900, 1000, 1000), None))
    both = drawn("box", Completion("", objects=objects), (100, 100), "norm1000")
    assert both.sum() == 200
    assert both[:10, :10].all()
    assert both[90:, 90:].all()
    assert drawn("box", Completion(""), (100, 100), "norm1000") is None
