"""Masks made small enough to be kept by the thousand: thinned, as COCO run lengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from dpad_fast import coco_mask
from dpad_fast.types import BoolMask

MASK_SIDE = 512
"""The longest side of a mask in a report; longer ones are thinned to every second, third, ... pixel."""

RECORD_SIDE, RECORD_COUNTS = 256, 2000
"""The same of a mask in a run's records, and the most characters of its run lengths: ragged ones are thinned on."""


def small_mask(mask: BoolMask | None, side: int = MASK_SIDE, counts: int | None = None) -> dict[str, Any] | None:
    """A mask as COCO run lengths, thinned to at most `side` pixels a side.

    Args:
        mask: bool [H, W], or None.
        side: the longest side in pixels.
        counts: the most characters of the run lengths, or None for any number.

    Returns:
        {"size": [h, w], "counts": text}, or None.
    """
    if mask is None or mask.size == 0:
        return None
    step = -(-max(mask.shape) // side)
    found = _thinned(mask, step)
    while counts is not None and len(found["counts"]) > counts:
        step *= 2
        found = _thinned(mask, step)
    return found


def _thinned(mask: BoolMask, step: int) -> dict[str, Any]:
    """Every `step`th pixel, from the middle of the first few; a side that is shorter than that keeps its middle."""
    first = [min(step, side) // 2 for side in mask.shape]
    found = coco_mask.encode(np.asfortranarray(mask[first[0] :: step, first[1] :: step], dtype=np.uint8))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode()}
