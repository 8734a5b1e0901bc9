"""The types and output tensors that the CPU and the CUDA side of the mask ops share."""

from __future__ import annotations

import torch

MaskParts = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""N packed masks as tensors: words int64 [N, H, ceil(W / 64)], area int64 [N], box int64 [N, 4]."""
Counts = tuple[torch.Tensor, torch.Tensor]
"""Intersections and unions in pixels, int64 of one shape; `_mask_ops.iou_of_counts` makes every IoU from them."""

PolygonArgs = tuple[int, int, int, int, int, int]
"""Addresses and lengths of vertices, rings and objects, as `dpad_fast._C.Polygons` gives them too."""


def words_for(width: int) -> int:
    """64-bit words in a packed row of `width` pixels."""
    return (width + 63) // 64


def mask_shape(masks: torch.Tensor) -> tuple[int, int, int]:
    """Number, height and width of dense masks [N, H, W] or of one [H, W]."""
    height, width = masks.shape[-2:]
    return masks.shape[0] if masks.dim() == 3 else 1, height, width


def byte_masks(op: str, name: str, masks: torch.Tensor) -> torch.Tensor:
    """Dense masks, contiguous. C++ reads their address as bytes, whatever a caller of the registered op gives."""
    if masks.element_size() != 1:
        raise ValueError(f"{op}: {name} must be bool or of 8-bit integers, got {masks.dtype}")
    return masks.contiguous()


def polygon_parts(
    op: str, vertices: torch.Tensor, rings: torch.Tensor, objects: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vertices, ring starts and object starts, contiguous and of the types as which C++ reads their addresses."""
    for name, tensor, dtype in (
        ("vertices", vertices, torch.float64),
        ("rings", rings, torch.int64),
        ("objects", objects, torch.int64),
    ):
        if tensor.dtype != dtype:
            raise ValueError(f"{op}: {name} must be {dtype}, got {tensor.dtype}")
    return vertices.contiguous(), rings.contiguous(), objects.contiguous()


def polygon_args(vertices: torch.Tensor, rings: torch.Tensor, objects: torch.Tensor) -> PolygonArgs:
    """What the extension takes; the tensors must outlive its use."""
    return (
        vertices.data_ptr(), vertices.shape[0], rings.data_ptr(), rings.shape[0] - 1,
        objects.data_ptr(), objects.shape[0] - 1,
    )  # fmt: skip


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
