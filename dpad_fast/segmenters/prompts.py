"""The protocol of segmenters, and the prompts that an answer gives them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol

from dpad_fast.types import BoolMask, Box, Completion, Point, Size

# Far beyond every picture, and small enough that a model's float32 makes neither infinity nor NaN of it.
_FAR = 1e6


class Segmenter(Protocol):
    """Turns N answers into N masks."""

    def segment(
        self, answers: Sequence[Completion], images: Sequence[Any], sizes: Sequence[Size]
    ) -> list[BoolMask | None]:
        """The masks of a batch.

        Args:
            answers: N parsed completions, in pixels of a picture of the size beside them.
            images: N pictures, each anything that `RewardScorer.score` takes as an image.
            sizes: N (width, height) of the masks.

        Returns:
            N masks, bool [height, width]; None for an answer that says nothing about where the object is.

        Raises:
            ValueError: a picture is needed and cannot be read; names its index.
        """
        ...


@dataclass(frozen=True)
class Prompt:
    """What an answer says about one object.

    Attributes:
        box: (x1, y1, x2, y2) in pixels, or None.
        points: (x, y) in pixels; may be empty where there is a box.
        labels: one per point: 1 lies on the object, 0 does not.
    """

    box: Box | None
    points: tuple[Point, ...] = ()
    labels: tuple[int, ...] = ()


def prompts_of(answer: Completion) -> list[Prompt]:
    """The prompts of an answer: one per object of a list, else the box and the points together.

    Args:
        answer: the parsed completion. A value that is no finite number counts as missing. A coordinate beyond a million
            pixels is clamped to that.

    Returns:
        The prompts; empty where there is neither a box nor a point on the object.
    """
    if answer.objects is not None:
        found = [Prompt(_numbers(box, 4), _points((point,)), (1,)) for box, point in answer.objects]
        pairs = [Prompt(prompt.box, prompt.points, prompt.labels[: len(prompt.points)]) for prompt in found]
    else:
        points = _points(answer.points or ())
        labels = (1,) * len(points) if answer.labels is None else answer.labels
        # Points and labels of different numbers cannot be paired, so that none of them counts.
        pairs = [Prompt(_numbers(answer.box, 4), points if len(points) == len(labels) else (), labels)]
    pairs = [prompt if prompt.points else Prompt(prompt.box) for prompt in pairs]
    return [prompt for prompt in pairs if prompt.box is not None or 1 in prompt.labels]


def _points(given: Sequence[Any]) -> tuple[Point, ...]:
    """The points; none where one of them cannot be read."""
    read = [_numbers(point, 2) for point in given]
    return () if any(point is None for point in read) else tuple(read)  # type: ignore[arg-type]


def _numbers(values: Any, count: int) -> Any:
    if not isinstance(values, list | tuple) or len(values) != count:
        return None
    if not all(_is_number(value) for value in values):
        return None
    return tuple(-_FAR if value < -_FAR else _FAR if value > _FAR else float(value) for value in values)


def _is_number(value: Any) -> bool:
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    number: Any = value
    return bool(-math.inf < number < math.inf)
