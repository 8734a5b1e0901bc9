"""Mask IoU and bit packing in plain NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
Counts = tuple[NDArray[np.int64], NDArray[np.int64]]


def counts(a: BoolArray, b: BoolArray, ignore: BoolArray | None = None) -> Counts:
    """Intersections and unions of paired masks [N, H, W]; `ignore` ([H, W] or [N, H, W]) counts for neither."""
    keep = np.True_ if ignore is None else ~ignore
    return np.sum(a & b & keep, axis=(1, 2)), np.sum((a | b) & keep, axis=(1, 2))


def counts_matrix(a: BoolArray, b: BoolArray, ignore: BoolArray | None = None) -> Counts:
    """Intersections and unions [N, M] of every mask of `a` [N, H, W] with every one of `b` [M, H, W].

    `ignore` is [H, W], or [M, H, W]: it belongs to the ground truth, which is `b`.
    """
    rows = [counts(np.broadcast_to(mask, b.shape), b, ignore) for mask in a]
    inter = np.array([row[0] for row in rows], np.int64).reshape(len(a), len(b))
    return inter, np.array([row[1] for row in rows], np.int64).reshape(len(a), len(b))


def iou(intersection: NDArray[np.int64], union: NDArray[np.int64], empty: float = 0.0) -> NDArray[np.float64]:
    """Intersection over union in float64, `empty` where the union is empty."""
    return np.where(union == 0, empty, intersection / np.maximum(union, 1))


def mask_iou(a: BoolArray, b: BoolArray, ignore: BoolArray | None = None, empty: float = 0.0) -> NDArray[np.float64]:
    """Paired IoU [N] of masks [N, H, W]."""
    return iou(*counts(a, b, ignore), empty)


def mask_iou_matrix(
    a: BoolArray, b: BoolArray, ignore: BoolArray | None = None, empty: float = 0.0
) -> NDArray[np.float64]:
    """All-pairs IoU [N, M]."""
    return iou(*counts_matrix(a, b, ignore), empty)


def pack(masks: BoolArray) -> NDArray[np.int64]:
    """Bits [N, H, ceil(W / 64)]: pixel x of a row is bit x % 64 of word x // 64; the rest of the last word is 0."""
    n, height, width = masks.shape
    padded = np.zeros((n, height, -(-width // 64) * 64), np.bool_)
    padded[:, :, :width] = masks
    raw = np.packbits(padded, axis=2, bitorder="little")
    return raw.view("<i8").reshape(n, height, padded.shape[2] // 64).astype(np.int64)


def unpack(words: NDArray[np.int64], width: int) -> BoolArray:
    """Inverse of `pack`."""
    n, height, columns = words.shape
    raw = np.ascontiguousarray(words).astype("<i8").view(np.uint8).reshape(n, height, columns * 8)
    return np.unpackbits(raw, axis=2, bitorder="little")[:, :, :width].astype(np.bool_)


def area(masks: BoolArray) -> NDArray[np.int64]:
    """Pixels per mask, [N]."""
    return np.asarray(np.sum(masks, axis=(1, 2)), dtype=np.int64)


def boxes(masks: BoolArray) -> NDArray[np.int64]:
    """(x1, y1, x2, y2) per mask, [N, 4], x2 and y2 one past the last pixel; zeros for an empty mask."""
    out = np.zeros((len(masks), 4), np.int64)
    for i, mask in enumerate(masks):
        ys, xs = np.nonzero(mask)
        if len(xs):
            out[i] = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    return out
