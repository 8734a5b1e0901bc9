"""Answers brought to the pixels of the ground truth's picture, which masks are drawn in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dpad_fast.model_size import model_size_for
from dpad_fast.rewards.spaces import in_pixels
from dpad_fast.segmenters import Segmenter
from dpad_fast.types import BoolMask, Completion, Point, Size

_UNITS = {"norm1000": 1000.0, "norm1": 1.0}
ModelSize = Callable[[Size], "Size | None"]


def scale_to(size: Size, coordinates: str, model_size: ModelSize | None) -> Point:
    """Factors (x, y) from an answer's coordinates to the pixels of a picture.

    Args:
        size: (width, height) of the picture.
        coordinates: "pixel", "norm1000" or "norm1".
        model_size: for "pixel": gives the size at which the model saw a picture of this size; the picture's own when
            None, or where it returns None.

    Returns:
        The factors.
    """
    if coordinates != "pixel":
        return size[0] / _UNITS[coordinates], size[1] / _UNITS[coordinates]
    seen = (model_size(size) if model_size is not None else None) or size
    return size[0] / seen[0], size[1] / seen[1]


class InPictures:
    """A segmenter for answers as the policy writes them.

    Args:
        segmenter: takes answers in pixels of the picture.
        coordinates: of the answers.
        processor: the policy's, which says at which size it saw a picture; None where it saw the picture's own.
    """

    def __init__(self, segmenter: Segmenter, coordinates: str = "pixel", processor: Any = None) -> None:
        self._segmenter, self._coordinates = segmenter, coordinates
        self._model_size = None if processor is None else partial(model_size_for, processor=processor)

    def segment(
        self, answers: Sequence[Completion], images: Sequence[Any], sizes: Sequence[Size]
    ) -> list[BoolMask | None]:
        """See `Segmenter.segment`; the answers are in the policy's space."""
        factors = [scale_to(size, self._coordinates, self._model_size) for size in sizes]
        moved = [in_pixels(answer, factor) for answer, factor in zip(answers, factors, strict=True)]
        return self._segmenter.segment(moved, images, sizes)
