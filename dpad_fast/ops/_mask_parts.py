"""The types and output tensors that the CPU and the CUDA side of the mask ops share."""

from __future__ import annotations

import torch

MaskParts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""N packed masks as tensors: words int64 [N, H, ceil(W / 64)], area int64 [N], box int64 [N, 4]."""
Counts = tuple[torch.Tensor, torch.Tensor]
"""Intersections and unions in pixels, int64 of one shape; `_mask_ops.iou_of_counts` makes every IoU from them."""


def words_for(width: int) -> int:
    """64-bit words in a packed row of `width` pixels."""
    return (width + 63) // 64


def mask_shape(masks: torch.Tensor) -> tuple[int, int, int]:
    """Number, height and width of dense masks [N, H, W] or of one [H, W]."""
    height, width = masks.shape[-2:]
    return masks.shape[0] if masks.dim() == 3 else 1, height, width


def empty_parts(like: torch.Tensor, n: int, height: int, width: int) -> MaskParts:
    """Memory for N packed masks, on the device of `like`."""
    shapes = ((n, height, words_for(width)), (n,), (n, 4))
    words, area, box = (torch.empty(shape, dtype=torch.int64, device=like.device) for shape in shapes)
    return words, area, box


def empty_counts(like: torch.Tensor, shape: tuple[int, ...]) -> Counts:
    """Memory for intersections and unions, on the device of `like`."""
    return (
        torch.empty(shape, dtype=torch.int64, device=like.device),
        torch.empty(shape, dtype=torch.int64, device=like.device),
    )
