"""Boxes and inner points of masks against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpad_fast._mask_geometry import box_of, inscribed_points
from dpad_fast.reference.distance import distance_squared
from dpad_fast.testing.inputs import cases

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def plain_points(mask, depth_of=distance_squared):
    """As the docstring of `inscribed_points` says, in float64."""
    ys, xs = np.nonzero(mask)
    if not len(xs):
        return None
    depth = depth_of(mask)[ys, xs]
    first = int(np.argmax(depth))
    away = np.hypot(xs - xs[first], ys - ys[first])
    far = away > np.median(away)
    second = int(np.argmax(np.where(far, depth, -1))) if far.any() else first
    return tuple((float(xs[i]), float(ys[i])) for i in (first, second))


def plain_depth(mask):
    """Every pixel against every other."""
    outside = np.argwhere(~np.pad(mask, 1)) - 1
    nearest = [((outside - place) ** 2).sum(axis=1).min() for place in np.ndindex(mask.shape)]
    return np.reshape(nearest, mask.shape)


def blot(seed):
    """Circles, bands, bars, holes and specks, up to 90 pixels a side."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: rng.integers(1, 90), : rng.integers(1, 90)]
    mask = np.zeros(x.shape, bool)
    for _ in range(rng.integers(1, 5)):
        cx, cy, radius = rng.uniform(0, 90, 3)
        part = (
            (x - cx) ** 2 + (y - cy) ** 2 * rng.uniform(0.2, 3) < radius**2,
            abs(x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1) - cx) < radius / 6,
            x % rng.integers(2, 9) > 0,
            (x > cx) & (x < cx + radius) & (y > cy),
            rng.random(x.shape) < 0.02,
        )[rng.integers(0, 5)]
        mask = mask ^ part if rng.random() < 0.3 else mask | part
    return mask


@given(MASKS)
@settings(deadline=None)
def test_points_are_the_two_deepest_as_defined(mask):
    assert inscribed_points(mask) == plain_points(mask, plain_depth)
    assert inscribed_points(mask[::-1]) == plain_points(mask[::-1], plain_depth)


@given(st.integers(0, 1 << 30))
@settings(max_examples=cases(60), deadline=None)
def test_points_of_larger_shapes_are_the_two_deepest(seed):
    mask = blot(seed)
    assert inscribed_points(mask) == plain_points(mask)
    assert inscribed_points(np.asfortranarray(mask)) == plain_points(mask)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (3, 4)])
def test_a_mask_without_pixels_has_no_points(shape):
    assert inscribed_points(np.zeros(shape, bool)) is None


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
