"""Training targets from a mask: its box, and two points well inside it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dpad_fast._native import extension
from dpad_fast.types import Box, Point


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
    ys, xs = np.nonzero(mask)
    if not len(xs):
        return None
    # Beyond its box nothing is the mask's, as beyond the picture, so the box's pixels say it all.
    top, left = int(ys[0]), int(xs.min())
    pixels = np.ascontiguousarray(mask[top : ys[-1] + 1, left : xs.max() + 1], np.bool_)
    squared = np.empty(pixels.shape, np.int64)
    extension.C.distance_squared(pixels.ctypes.data, *pixels.shape, squared.ctypes.data)
    depth = squared[ys - top, xs - left]
    first = int(np.argmax(depth))
    away = (xs - xs[first]) ** 2 + (ys - ys[first]) ** 2
    far = np.sqrt(away) > np.median(np.sqrt(away))
    second = int(np.argmax(np.where(far, depth, -1))) if far.any() else first
    return (float(xs[first]), float(ys[first])), (float(xs[second]), float(ys[second]))
