"""Training targets from a mask: its box, and two points well inside it (`Target.from_row` derives them)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpad_fast._native import extension

Box = tuple[float, float, float, float]
Point = tuple[float, float]


def box_of(mask: NDArray[np.bool_]) -> Box | None:
    """(x1, y1, x2, y2) of the mask [H, W], x2 and y2 one past the last pixel; None for an empty mask."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(xs):
        return None
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def inscribed_points(mask: NDArray[np.bool_]) -> tuple[Point, Point] | None:
    """Centres of two large inscribed circles of the mask [H, W], as (x, y) of pixels; None for an empty mask.

    The first is the maximum of the exact Euclidean distance transform (beyond the picture counts as outside), the
    second its maximum among the mask's pixels farther from the first than their median distance; ties go to the upper,
    then the left pixel. A mask without such pixels (one pixel) has the same point twice.
    """
    pixels, points = np.ascontiguousarray(mask, np.bool_), np.empty(4, np.int64)
    if not extension.C.inscribed_points(pixels.ctypes.data, *pixels.shape, points.ctypes.data):
        return None
    x1, y1, x2, y2 = map(float, points)
    return (x1, y1), (x2, y2)
