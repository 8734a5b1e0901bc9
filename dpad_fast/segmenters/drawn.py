"""Segmenters without a model: boxes, polygons, and the shapes world's stand-in for a promptable model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dpad_fast.clip.images import find_pictures
from dpad_fast.segmenters.prompts import prompts_of
from dpad_fast.types import BoolMask, Completion, Size

Draw = Callable[[Completion, Any, Size], "BoolMask | None"]
"""Takes the parsed completion, the image, and its (width, height); returns bool [H, W], or None for no answer."""

_DRAWN_AT_ONCE = 1 << 26  # pixels; bounds memory where an answer has thousands of rings on a large picture


class Drawn:
    """A segmenter that draws answers one by one.

    Args:
        draw: makes the mask of one answer.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def segment(
        self, answers: Sequence[Completion], images: Sequence[Any], sizes: Sequence[Size]
    ) -> list[BoolMask | None]:
        """See `Segmenter.segment`."""
        found = []
        for i, (answer, image, size) in enumerate(zip(answers, images, sizes, strict=True)):
            try:
                found.append(self._draw(answer, image, size))
            except ValueError as error:
                raise ValueError(str(error).replace("images[0]", f"images[{i}]", 1)) from None
        return found


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
    """The answer's box as a mask; the union of the boxes where it has several objects.

    Args:
        answer: the parsed completion.
        image: not used.
        size: (width, height).

    Returns:
        bool [H, W], or None where the answer has no usable box.
    """
    boxes = [prompt.box for prompt in prompts_of(answer) if prompt.box is not None]
    if not boxes:
        return None
    whole = box_mask(boxes[0], size)
    for box in boxes[1:]:
        whole |= box_mask(box, size)
    return whole


def from_rings(answer: Completion, image: Any, size: Size) -> BoolMask | None:
    """The answer's polygon rings, drawn as ReasonSeg's masks are.

    `cv2.fillPoly` draws each ring by itself, and the mask is their union. So the data set's own polygons give the data
    set's own mask to the pixel. The reward `mask_iou` draws by COCO's rule, which treats borders otherwise.

    Args:
        answer: the parsed completion.
        image: not used.
        size: (width, height).

    Returns:
        bool [H, W], or None where the answer has no usable polygon.
    """
    if not answer.rings:
        return None
    from dpad_fast.ops.polygons import rasterize_polygons

    # Every ring is an object of its own: as rings of one object, two that overlap would cut a hole.
    whole = np.zeros((size[1], size[0]), dtype=np.bool_)
    at_once = max(1, _DRAWN_AT_ONCE // whole.size)
    for first in range(0, len(answer.rings), at_once):
        rings = list(answer.rings[first : first + at_once])
        whole |= rasterize_polygons(rings, size[1], size[0], rule="opencv", out="dense").numpy().any(axis=0)
    return whole


def from_polygon(answer: Completion, image: Any, size: Size) -> BoolMask | None:
    """`from_rings`; the answer's box where it has no polygon.

    Args:
        answer: the parsed completion.
        image: not used.
        size: (width, height).

    Returns:
        bool [H, W], or None where the answer has neither.
    """
    return from_rings(answer, image, size) if answer.rings else from_box(answer, image, size)


def from_background(answer: Completion, image: Any, size: Size) -> BoolMask | None:
    """The shapes world's stand-in for a promptable segmenter: the pixels inside the box that are not background.

    The background of that world is a known ramp of colours, so no model is needed. Like a real segmenter it sees the
    image and the answer only, and like one it is led astray by a box over the wrong place.

    Args:
        answer: the parsed completion.
        image: a picture of the shapes world.
        size: (width, height) of it.

    Returns:
        bool [H, W], or None where the answer has no usable box.

    Raises:
        ValueError: the picture cannot be read, or has another size.
    """
    inside = from_box(answer, image, size)
    if inside is None:
        return None
    pixels = find_pictures([image], None)[0][0].pixels().numpy().astype(np.float64)
    height, width = pixels.shape[:2]
    if (width, height) != tuple(size):
        raise ValueError(f"images[0] is {width}x{height}; the segmenter background draws at its own size, not {size}")
    expected = np.full_like(pixels, 40.0)
    expected[:, :, 0] += np.arange(width) * (100.0 / max(1, width - 1))
    expected[:, :, 2] += (np.arange(height) * (100.0 / max(1, height - 1)))[:, None]
    differs = np.abs(pixels - expected).max(axis=2) > 12.0  # three times the noise
    return np.asarray(differs & inside, dtype=np.bool_)
