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
    box = box_of(mask)
    if box is None:
        return None
    left, top, right, bottom = map(int, box)
    # No pixel of the mask lies outside its box, and beyond the picture counts as outside: the box's pixels suffice.
    pixels = np.ascontiguousarray(mask[top:bottom, left:right], np.bool_)
    depth = np.empty(pixels.shape, np.int64)  # squared; 0 outside of the mask
    extension.C.distance_squared(pixels.ctypes.data, *pixels.shape, depth.ctypes.data)
    y, x = divmod(int(np.argmax(depth)), pixels.shape[1])
    away = (np.arange(pixels.shape[0])[:, None] - y) ** 2 + (np.arange(pixels.shape[1]) - x) ** 2
    inside = away[pixels]
    # No distance lies between the two middle ones of an even number, so the lower one serves as the median.
    middle = (len(inside) - 1) // 2
    beyond = np.where(away > np.partition(inside, middle)[middle], depth, 0)
    second = int(np.argmax(beyond))
    y2, x2 = divmod(second, pixels.shape[1]) if beyond.flat[second] else (y, x)
    return (float(left + x), float(top + y)), (float(left + x2), float(top + y2))
