"""What the CPU and the CUDA side of the mask ops share: the shapes of packed masks and of counts."""

from __future__ import annotations

import torch

Packed = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Words int64 [N, H, ceil(W / 64)], area int64 [N], box int64 [N, 4]."""
Pair = tuple[torch.Tensor, torch.Tensor]


def words_for(width: int) -> int:
    """64-bit words in a packed row of `width` pixels."""
    return (width + 63) // 64


def empty_packed(like: torch.Tensor, n: int, height: int, width: int) -> Packed:
    """Memory for N packed masks, on the device of `like`."""
    shapes = ((n, height, words_for(width)), (n,), (n, 4))
    words, area, box = (torch.empty(shape, dtype=torch.int64, device=like.device) for shape in shapes)
    return words, area, box


def empty_counts(like: torch.Tensor, shape: tuple[int, ...]) -> Pair:
    """Memory for intersections and unions, on the device of `like`."""
    return (
        torch.empty(shape, dtype=torch.int64, device=like.device),
        torch.empty(shape, dtype=torch.int64, device=like.device),
    )
