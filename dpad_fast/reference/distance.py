"""Exact Euclidean distance transform in plain NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def distance_squared(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Squared distance of each pixel of `mask` [H, W] to the nearest pixel outside, where beyond the image is outside.

    Distances are between pixel centres, so a pixel at the edge of the mask has 1.
    """
    padded = np.pad(mask, 1)
    height, width = padded.shape
    far = height + width
    column = np.where(padded, far, 0)
    for y in range(1, height):
        column[y] = np.minimum(column[y], column[y - 1] + 1)
    for y in range(height - 2, -1, -1):
        column[y] = np.minimum(column[y], column[y + 1] + 1)
    offsets = (np.arange(width)[:, None] - np.arange(width)[None, :]) ** 2
    out = np.stack([np.min(offsets + row[None, :] ** 2, axis=1) for row in column])
    return out[1:-1, 1:-1].astype(np.int64)
