"""The drawn segmenters, one answer at a time, for `evaluate.measure`; they live in `dpad_fast.segmenters`."""

from __future__ import annotations

from dpad_fast.segmenters.drawn import Draw as Segmenter
from dpad_fast.segmenters.drawn import box_mask, from_background, from_box, from_polygon, from_rings
from dpad_fast.types import BoolMask

__all__ = [
    "SEGMENTERS",
    "BoolMask",
    "Segmenter",
    "box_mask",
    "from_background",
    "from_box",
    "from_polygon",
    "from_rings",
]

SEGMENTERS: dict[str, Segmenter] = {"box": from_box, "polygon": from_polygon, "background": from_background}
