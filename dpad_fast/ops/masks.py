"""Masks as bits, and IoU of masks: exact integer intersections and unions.

Formulas: intersection = |a and b and not ignore|, union = |(a or b) and not ignore|. Agrees with NumPy on dense masks
and, for masks from RLE, with `pycocotools.mask.iou`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import torch

from dpad_fast._native.gpu_errors import is_gpu_failure
from dpad_fast.ops import _mask_ops as ops
from dpad_fast.ops._mask_values import Dense, as_bools, as_bytes, as_dense, check_one_device, check_one_size
from dpad_fast.ops.packed_masks import PackedMasks as PackedMasks
from dpad_fast.ops.packed_masks import as_packed, packed_counts


def mask_iou(
    a: Dense | PackedMasks,
    b: Dense | PackedMasks,
    *,
    ignore: Dense | PackedMasks | None = None,
    empty: float = 0.0,
    threshold: float | None = None,
) -> torch.Tensor:
    """IoU of a[i] with b[i].

    Args:
        a: masks [N, H, W], tensor or array: bool (the fastest, for there is nothing to look at), 0 and 1 of any dtype,
            or any numbers with a `threshold`; or `PackedMasks`. On a GPU, where looking at values would stall the
            stream, floats need a threshold and integers are set where they are not 0.
        b: as `a`, of the same size.
        ignore: [H, W] or [N, H, W], bool or 0 and 1, pixels that count for neither side, as ReasonSeg's label 255.
        empty: the IoU where the union is empty.
        threshold: dense masks that are not bool are set where they are above it, such as 0.5 for probabilities and 0
            for logits.

    Returns:
        float64 [N]; no gradient.

    Raises:
        ValueError: an argument is not as described, such as a mask with a value other than 0 and 1, or NaN.
    """
    if isinstance(a, PackedMasks) or isinstance(b, PackedMasks):
        counts = packed_counts(as_packed("a", a, threshold), as_packed("b", b, threshold), ignore, matrix=False)
        return ops.iou_of_counts(counts, empty)
    dense_a, dense_b = as_dense("a", a, threshold), as_dense("b", b, threshold)
    if dense_a.shape != dense_b.shape:
        raise ValueError(f"a and b must have one shape, got {list(dense_a.shape)} and {list(dense_b.shape)}")
    check_one_device("a and b", dense_a, dense_b)
    skip = None
    if ignore is not None:
        skip = ignore.to_dense() if isinstance(ignore, PackedMasks) else as_bytes("ignore", ignore)
        size = dense_a.shape[1:]
        if skip.shape not in (size, (1, *size), dense_a.shape):
            raise ValueError(f"ignore must be [H, W] or [N, H, W] of a {list(dense_a.shape)}, got {list(skip.shape)}")
        check_one_device("masks and ignore", dense_a, skip)
    return ops.iou_of_counts(ops.dense_counts(dense_a, dense_b, skip), empty)


def mask_iou_matrix(
    a: Dense | PackedMasks,
    b: Dense | PackedMasks,
    *,
    ignore: Dense | PackedMasks | None = None,
    empty: float = 0.0,
    crowd: torch.Tensor | npt.NDArray[Any] | Sequence[bool] | None = None,
    threshold: float | None = None,
) -> torch.Tensor:
    """IoU of every mask of `a` with every mask of `b`.

    Args:
        a: masks [N, H, W], bool, 0 and 1, or any numbers with a `threshold`, or `PackedMasks`; see `mask_iou`.
        b: masks [M, H, W] of the same size.
        ignore: [H, W], or [M, H, W] (it belongs to the ground truth, `b`), pixels that count for neither side.
        empty: the IoU where the union is empty.
        crowd: [M] booleans; where true the union is a's area alone, as in COCO's evaluation of crowd regions.
        threshold: dense masks that are not bool are set where they are above it.

    Returns:
        float64 [N, M]; no gradient.

    Raises:
        ValueError: an argument is not as described.
    """
    if ignore is None and crowd is None and not isinstance(a, PackedMasks) and not isinstance(b, PackedMasks):
        dense_a, dense_b = as_dense("a", a, threshold), as_dense("b", b, threshold)
        check_one_size(dense_a.shape[1:], dense_b.shape[1:])
        check_one_device("a and b", dense_a, dense_b)
        return ops.iou_of_counts(ops.dense_matrix_counts(dense_a, dense_b), empty)
    packed_a, packed_b = as_packed("a", a, threshold), as_packed("b", b, threshold)
    intersection, union = packed_counts(packed_a, packed_b, ignore, matrix=True)
    if crowd is not None:
        flags = _as_crowd(crowd, len(packed_b)).to(union.device)
        if ignore is not None:
            raise ValueError("crowd and ignore cannot be given together: COCO's crowd union knows no ignored pixels")
        union = torch.where(flags, packed_a.area.unsqueeze(1), union)
    return ops.iou_of_counts((intersection, union), empty)


def _as_crowd(crowd: Any, n: int) -> torch.Tensor:
    try:
        flags = crowd if isinstance(crowd, torch.Tensor) else torch.as_tensor(crowd, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        if is_gpu_failure(error):
            raise
        raise ValueError(f"crowd must be [M] booleans, got {crowd!r:.80}") from None
    if flags.shape != (n,):
        raise ValueError(f"crowd must be [M] with M = {n}, got {list(flags.shape)}")
    return as_bools("crowd", flags)
