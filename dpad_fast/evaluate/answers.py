"""Answers brought to the pixels of the ground truth's picture, which masks are drawn in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from dpad_fast.evaluate.segment import BoolMask, Segmenter, box_mask, from_background, from_rings
from dpad_fast.model_size import model_size_for
from dpad_fast.types import Completion, Point, Size

_UNITS = {"norm1000": 1000.0, "norm1": 1.0}
ModelSize = Callable[[Size], "Size | None"]


def scale_to(size: Size, coordinates: str, model_size: ModelSize | None) -> Point:
    """Factors (x, y) from an answer's coordinates to the pixels of a picture.

    Args:
        size: (width, height) of the picture.
        coordinates: "pixel", "norm1000" or "norm1".
        model_size: for "pixel": the size at which the model saw it; the picture's own when None, or where it says None.

    Returns:
        The factors.
    """
    if coordinates != "pixel":
        return size[0] / _UNITS[coordinates], size[1] / _UNITS[coordinates]
    seen = (model_size(size) if model_size is not None else None) or size
    return size[0] / seen[0], size[1] / seen[1]


def scaled(answer: Completion, scale: Point) -> Completion:
    """An answer in other coordinates.

    Args:
        answer: the parsed completion.
        scale: factors (x, y).

    Returns:
        A copy with box, points, rings and objects multiplied.
    """
    if scale == (1.0, 1.0):
        return answer

    def moved(numbers: Any) -> Any:
        return None if numbers is None else tuple(float(n) * scale[i % 2] for i, n in enumerate(numbers))

    objects, rings, points = answer.objects, answer.rings, answer.points
    return replace(
        answer,
        box=moved(answer.box),
        points=None if points is None else (moved(points[0]), moved(points[1])),
        rings=None if rings is None else tuple(np.asarray(ring) * np.asarray(scale) for ring in rings),
        objects=None if objects is None else tuple((moved(box), moved(point)) for box, point in objects),
    )


def from_boxes(answer: Completion, image: Any, size: Size) -> BoolMask | None:
    """The answer's box, or all boxes of an answer with several objects, as one mask.

    Args:
        answer: the parsed completion, in pixels.
        image: not looked at.
        size: (width, height).

    Returns:
        bool [H, W], or None where the answer has no usable box.
    """
    boxes = [answer.box] if answer.box is not None else [box for box, _ in answer.objects or () if box is not None]
    masks = [box_mask(box, size) for box in boxes]
    return None if not masks else np.asarray(np.any(masks, axis=0), dtype=np.bool_)


def make_segmenter(name: str, coordinates: str = "pixel", processor: Any = None) -> Segmenter:
    """A segmenter that takes answers as the policy writes them.

    Args:
        name: "box", "polygon" (the box where there is none) or "background" (shapes only).
        coordinates: of the answers.
        processor: the policy's, which says at which size it saw a picture; None where it saw the picture's own.

    Returns:
        The segmenter.
    """
    model_size = None if processor is None else partial(model_size_for, processor=processor)
    draw = {"box": from_boxes, "polygon": _polygon_or_boxes, "background": from_background}[name]

    def segment(answer: Completion, image: Any, size: Size) -> BoolMask | None:
        return draw(scaled(answer, scale_to(size, coordinates, model_size)), image, size)

    return segment


def _polygon_or_boxes(answer: Completion, image: Any, size: Size) -> BoolMask | None:
    return from_rings(answer, image, size) if answer.rings else from_boxes(answer, image, size)
