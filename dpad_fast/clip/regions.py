"""Regions of pictures: boxes in whole pixels. None stands for the whole picture, here and in every cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from dpad_fast.types import Size

Region: TypeAlias = tuple[int, int, int, int] | None
"""(x1, y1, x2, y2) in pixels, which may lie partly off the picture; None: the whole picture."""


class EmptyRegion(ValueError):
    """A box has no area in whole pixels."""


def region_of(box: Sequence[float], size: Size, space: Size | None = None, *, clip: bool = False) -> Region:
    """A box in whole pixels of a picture, rounded as `Image.crop` does.

    Args:
        box: (x1, y1, x2, y2) in pixels of an image of size `space`.
        size: (width, height) of the picture at hand.
        space: (width, height) of the image that the box belongs to; None: the picture at hand.
        clip: cut the box to the picture.

    Returns:
        The region; None where it is the whole picture, so that both are embedded once and compare equal.

    Raises:
        EmptyRegion: nothing is left of the box.
    """
    across, down = (1.0, 1.0) if space is None or space == size else (size[0] / space[0], size[1] / space[1])
    left, top, right, bottom = box
    try:
        x1, y1, x2, y2 = round(left * across), round(top * down), round(right * across), round(bottom * down)
    except OverflowError:  # digits of a released ground truth beyond float's range, which no crop takes either
        raise EmptyRegion("a coordinate is beyond float's range") from None
    if clip:
        x1, x2 = (min(max(x, 0), size[0]) for x in (x1, x2))
        y1, y2 = (min(max(y, 0), size[1]) for y in (y1, y2))
    if x1 >= x2 or y1 >= y2:
        raise EmptyRegion(f"{(x1, y1, x2, y2)} has no area")
    return None if (x1, y1, x2, y2) == (0, 0, *size) else (x1, y1, x2, y2)
