"""Boxes and inner points of masks against their definitions."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpad_fast._mask_geometry import box_of, inscribed_points

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def plain_points(mask):
    """Every pixel against every other, in float64, as the docstring of `inscribed_points` says."""
    ys, xs = np.nonzero(mask)
    if not len(xs):
        return None
    outside = np.argwhere(~np.pad(mask, 1)) - 1
    depth = [((outside - (y, x)) ** 2).sum(axis=1).min() for y, x in zip(ys, xs, strict=True)]
    first = int(np.argmax(depth))
    away = np.hypot(xs - xs[first], ys - ys[first])
    far = away > np.median(away)
    second = int(np.argmax(np.where(far, depth, -1))) if far.any() else first
    return tuple((float(xs[i]), float(ys[i])) for i in (first, second))


@given(MASKS)
@settings(deadline=None)
def test_points_are_the_two_deepest_as_defined(mask):
    assert inscribed_points(mask) == plain_points(mask)


def test_points_of_a_mask_in_the_middle_of_a_picture():
    mask = np.zeros((40, 60), bool)
    mask[10:21, 30:51] = True
    assert inscribed_points(mask) == plain_points(mask) == ((35.0, 15.0), (42.0, 15.0))


@given(MASKS)
def test_box_is_the_smallest_around_the_mask(mask):
    box = box_of(mask)
    if box is None:
        assert not mask.any()
        return
    x1, y1, x2, y2 = map(int, box)
    inner = mask[y1:y2, x1:x2]
    assert inner.sum() == mask.sum()
    assert all(side.any() for side in (inner[0], inner[-1], inner[:, 0], inner[:, -1]))
