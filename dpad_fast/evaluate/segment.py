"""From an answer to a mask: what a box, two points or a polygon select in the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpad_fast.types import Completion, Size

BoolMask = NDArray[np.bool_]
Segmenter = Callable[[Completion, Any, Size], "BoolMask | None"]
"""Takes the parsed completion, the image, and its (width, height); returns bool [H, W], or None for no answer."""


def box_mask(box: tuple[float, ...], size: Size) -> BoolMask:
    """The pixels whose centre lies in a box.

    Args:
        box: (x1, y1, x2, y2) in pixels; parts outside the image are cut.
        size: (width, height).

    Returns:
        bool [height, width].
    """
    width, height = size
    x1, y1, x2, y2 = box
    xs, ys = np.arange(width) + 0.5, np.arange(height) + 0.5
    rows, columns = (ys >= y1) & (ys < y2), (xs >= x1) & (xs < x2)
    return np.asarray(rows[:, None] & columns[None, :], dtype=np.bool_)


def from_box(answer: Completion, image: Any, size: Size) -> BoolMask | None:
    """The answer's box as a mask.

    Args:
        answer: the parsed completion.
        image: not looked at.
        size: (width, height).

    Returns:
        bool [H, W], or None where the answer has no usable box.
    """
    return None if answer.box is None else box_mask(answer.box, size)


def from_polygon(answer: Completion, image: Any, size: Size) -> BoolMask | None:
    """The answer's polygon rings, rasterised; its box where it has no polygon.

    Args:
        answer: the parsed completion.
        image: not looked at.
        size: (width, height).

    Returns:
        bool [H, W], or None where the answer has neither.
    """
    if not answer.rings:
        return from_box(answer, image, size)
    from dpad_fast.ops.polygons import rasterize_polygons

    drawn = rasterize_polygons([list(answer.rings)], size[1], size[0], out="dense")
    return np.asarray(drawn[0], dtype=np.bool_)


def from_background(answer: Completion, image: Any, size: Size) -> BoolMask | None:
    """The shapes world's stand-in for a promptable segmenter: what is not background inside the box.

    The background of that world is a known ramp of colours, so no model is needed. Like a real segmenter it sees the
    image and the answer only, and like one it is led astray by a box over the wrong place.

    Args:
        answer: the parsed completion.
        image: a PIL image of the shapes world.
        size: (width, height).

    Returns:
        bool [H, W], or None where the answer has no usable box.
    """
    if answer.box is None:
        return None
    pixels = np.asarray(image.convert("RGB"), dtype=np.float64)
    height, width = pixels.shape[:2]
    expected = np.full_like(pixels, 40.0)
    expected[:, :, 0] += np.arange(width) * (100.0 / (width - 1))
    expected[:, :, 2] += (np.arange(height) * (100.0 / (height - 1)))[:, None]
    differs = np.abs(pixels - expected).max(axis=2) > 12.0  # three times the noise
    return np.asarray(differs & box_mask(answer.box, size), dtype=np.bool_)


SEGMENTERS: dict[str, Segmenter] = {"box": from_box, "polygon": from_polygon, "background": from_background}
