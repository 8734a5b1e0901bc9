"""COCO run-length encoding, the slow plain way: column-major runs and their string form, one symbol at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def counts_from_mask(mask: NDArray[np.bool_]) -> list[int]:
    """Runs of 0s and 1s in turn (0s first, maybe none), down the columns of `mask` [H, W]."""
    counts = []
    value, length = False, 0
    for pixel in mask.ravel(order="F"):
        if bool(pixel) != value:
            counts.append(length)
            value, length = not value, 0
        length += 1
    return [*counts, length]


def mask_from_counts(counts: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """The bool mask [height, width] of run lengths; ValueError where they do not add up to its pixels."""
    if any(count < 0 for count in counts) or sum(counts) != height * width:
        raise ValueError(f"counts must add up to {height} x {width} = {height * width}, got {sum(counts)}")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, np.asarray(counts, np.int64)).reshape((height, width), order="F")


def string_from_counts(counts: Sequence[int]) -> bytes:
    """Compressed form: from the fourth run on, the difference to the run two before; 5 bits a character, low first."""
    out = bytearray()
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            out.append(48 + bits + (32 if more else 0))
    return bytes(out)


def counts_from_string(text: bytes) -> list[int]:
    """Inverse of `string_from_counts`; ValueError on a character outside its alphabet or an unfinished number."""
    counts: list[int] = []
    value = shift = 0
    for position, symbol in enumerate(text):
        bits = symbol - 48
        if not 0 <= bits < 64:
            raise ValueError(f"counts[{position}] is {symbol!r}, expected a character from '0' to 'o'")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError("counts ends in the middle of a number")
    return counts
