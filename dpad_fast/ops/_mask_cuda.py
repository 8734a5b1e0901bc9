"""Calls of the launchers of csrc/cuda with CUDA tensors: addresses, sizes, and torch's current stream.

Nothing here waits for the GPU or falls back to another device. An error that only the GPU can find (an index out
of range, a vertex that is no number) cannot be raised without waiting; each op documents what such an item gives.
"""

from __future__ import annotations

from typing import Any

import torch

from dpad_fast._native import extension
from dpad_fast._native.address import address
from dpad_fast.ops._mask_parts import (
    Counts,
    MaskParts,
    PolygonArgs,
    byte_masks,
    empty_counts,
    empty_parts,
    mask_shape,
    polygon_args,
    polygon_parts,
)

_MaybeTensor = torch.Tensor | None


def _launchers(op: str, device: torch.device) -> Any:
    """The extension, which must have been built with CUDA."""
    module = extension.C
    if not hasattr(module, "cuda_pack"):
        raise RuntimeError(
            f"{op}: tensors on {device} need CUDA kernels, and dpad_fast's extension was built without them (no nvcc, "
            "or DPAD_FAST_CUDA=off): build it again with DPAD_FAST_CUDA=on, or move the tensors to the CPU"
        )
    return module


def _stream(device: torch.device) -> tuple[int, int]:
    """Device number and handle of the current stream, as Triton asks for it: a `Stream` takes ten times as long."""
    return device.index, torch._C._cuda_getCurrentRawStream(device.index)


def _check_one_device(op: str, first: torch.Tensor, *others: _MaybeTensor) -> None:
    """Every op checks this, because CUDA code with an address of another device would crash the process."""
    for other in others:
        if other is not None and other.device != first.device:
            raise ValueError(f"{op}: all tensors must be on one device, got {first.device} and {other.device}")


def dense_counts(a: torch.Tensor, b: torch.Tensor, ignore: _MaybeTensor) -> Counts:
    """Intersections and unions [N] of dense masks [N, H, W]; `ignore` [H, W], [1, H, W] or [N, H, W]."""
    op = "mask_dense_counts"
    _check_one_device(op, a, b, ignore)
    a, b = byte_masks(op, "a", a), byte_masks(op, "b", b)
    skip = None if ignore is None else byte_masks(op, "ignore", ignore)
    intersection, union = empty_counts(a, (a.shape[0],))
    pixels = a.shape[1] * a.shape[2]
    step = 0 if skip is None or skip.dim() == 2 or skip.shape[0] == 1 else pixels
    _launchers(op, a.device).cuda_dense_counts(
        a.data_ptr(), b.data_ptr(), address(skip), step, a.shape[0], pixels, intersection.data_ptr(),
        union.data_ptr(), _stream(a.device),
    )  # fmt: skip
    return intersection, union


def pack(masks: torch.Tensor, name: str) -> MaskParts:
    """Words, areas and boxes of dense masks [N, H, W], or of one [H, W]."""
    masks = byte_masks("mask_pack", name, masks)
    n, height, width = mask_shape(masks)
    words, area, box = empty_parts(masks, n, height, width)
    _launchers("mask_pack", masks.device).cuda_pack(
        masks.data_ptr(), n, height, width, words.data_ptr(), area.data_ptr(), box.data_ptr(), _stream(masks.device)
    )
    return words, area, box


def unpack(words: torch.Tensor, width: int) -> torch.Tensor:
    """Bool [N, H, width]."""
    words = words.contiguous()
    n, height = words.shape[:2]
    masks = torch.empty((n, height, width), dtype=torch.bool, device=words.device)
    _launchers("mask_unpack", words.device).cuda_unpack(
        words.data_ptr(), n, height, width, masks.data_ptr(), _stream(words.device)
    )
    return masks


def measure(words: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Areas [N] and boxes [N, 4]."""
    words = words.contiguous()
    n, height = words.shape[:2]
    _, area, box = empty_parts(words, n, 0, 0)
    _launchers("mask_measure", words.device).cuda_measure(
        words.data_ptr(), n, height, width, area.data_ptr(), box.data_ptr(), _stream(words.device)
    )
    return area, box


def packed_counts(
    a: list[torch.Tensor], b: list[torch.Tensor], ignore: list[torch.Tensor], width: int, matrix: bool
) -> Counts:
    """Counts [N] of pairs, or [N, M] of all pairs, of packed masks (words, area, box)."""
    op = "mask_packed_counts"
    _check_one_device(op, *a, *b, *ignore)
    a, b, ignore = ([part.contiguous() for part in masks] for masks in (a, b, ignore))
    n, m, size = a[0].shape[0], b[0].shape[0], a[0].shape[1] * a[0].shape[2]
    skip = ignore[0] if ignore else None
    step = 0 if skip is None or skip.shape[0] == 1 else size
    intersection, union = empty_counts(a[0], (n, m) if matrix else (n,))
    launchers, stream = _launchers(op, a[0].device), _stream(a[0].device)
    if not matrix:
        launchers.cuda_packed_counts(
            a[0].data_ptr(), b[0].data_ptr(), address(skip), step, n, size, intersection.data_ptr(),
            union.data_ptr(), stream,
        )  # fmt: skip
        return intersection, union
    launchers.cuda_matrix_counts(
        a[0].data_ptr(), a[1].data_ptr(), n, b[0].data_ptr(), b[1].data_ptr(), m, address(skip), step, size,
        intersection.data_ptr(), union.data_ptr(), stream,
    )  # fmt: skip
    return intersection, union


def dense_matrix_counts(a: torch.Tensor, b: torch.Tensor) -> Counts:
    """Counts [N, M] of all pairs of dense masks: packed first, which costs one read of them."""
    _check_one_device("mask_dense_matrix_counts", a, b)
    return packed_counts(list(pack(a, "a")), list(pack(b, "b")), [], a.shape[2], True)


def ratio(intersection: torch.Tensor, union: torch.Tensor, empty: float) -> torch.Tensor:
    """IoU float64 of counts of any shape; `empty` where the union is empty."""
    op = "mask_ratio"
    _check_one_device(op, intersection, union)
    intersection, union = intersection.contiguous(), union.contiguous()
    out = torch.empty(union.shape, dtype=torch.float64, device=union.device)
    _launchers(op, union.device).cuda_ratio(
        intersection.data_ptr(), union.data_ptr(), union.numel(), empty, out.data_ptr(), _stream(union.device)
    )
    return out


# Polygons: vertices float64 [V, 2], ring_starts int64 [R + 1], object_starts int64 [N + 1]. An object with a vertex
# that is not finite or beyond 1e7 is drawn as empty.


def _polygons(
    op: str, vertices: torch.Tensor, rings: torch.Tensor, objects: torch.Tensor
) -> tuple[tuple[torch.Tensor, ...], PolygonArgs]:
    """Contiguous tensors, which the caller keeps until the launch, and the extension's arguments for them."""
    _check_one_device(op, vertices, rings, objects)
    parts = polygon_parts(op, vertices, rings, objects)
    return parts, polygon_args(*parts)


def draw(
    vertices: torch.Tensor, rings: torch.Tensor, objects: torch.Tensor, height: int, width: int, rule: str
) -> MaskParts:
    """Words, areas and boxes of N objects."""
    launchers = _launchers("polygon_draw", vertices.device)
    parts, polygons = _polygons("polygon_draw", vertices, rings, objects)
    n = parts[2].shape[0] - 1
    words, area, box = empty_parts(vertices, n, height, width)
    scratch = torch.empty(5 * n * launchers.cuda_bands(height, width), dtype=torch.int32, device=vertices.device)
    launchers.cuda_draw(
        polygons, rule, height, width, words.data_ptr(), area.data_ptr(), box.data_ptr(),
        scratch.data_ptr(), _stream(vertices.device),
    )  # fmt: skip
    return words, area, box


def draw_dense(
    vertices: torch.Tensor, rings: torch.Tensor, objects: torch.Tensor, height: int, width: int, rule: str
) -> torch.Tensor:
    """Bool [N, height, width]."""
    launchers = _launchers("polygon_draw_dense", vertices.device)
    parts, polygons = _polygons("polygon_draw_dense", vertices, rings, objects)
    masks = torch.empty((parts[2].shape[0] - 1, height, width), dtype=torch.bool, device=vertices.device)
    launchers.cuda_draw_dense(
        polygons, rule, height, width, masks.data_ptr(), _stream(vertices.device)
    )  # fmt: skip
    return masks


def polygon_counts(
    vertices: torch.Tensor, rings: torch.Tensor, objects: torch.Tensor, masks: list[torch.Tensor],
    mask_index: _MaybeTensor, ignore: list[torch.Tensor], width: int, rule: str,
) -> Counts:  # fmt: skip
    """Counts [N] of each object with its mask; 0 and 0 where mask_index is out of range."""
    op = "polygon_counts"
    launchers = _launchers(op, vertices.device)
    parts, polygons = _polygons(op, vertices, rings, objects)
    _check_one_device(op, vertices, *masks, *ignore, mask_index)
    words = masks[0].contiguous()
    index = None if mask_index is None else mask_index.contiguous()
    skip = ignore[0].contiguous() if ignore else None
    m, height, columns = words.shape
    step = 0 if skip is None or skip.shape[0] == 1 else height * columns
    intersection, union = empty_counts(vertices, (parts[2].shape[0] - 1,))
    launchers.cuda_draw_counts(
        polygons, rule, height, width, words.data_ptr(), m, address(index), address(skip), step,
        intersection.data_ptr(), union.data_ptr(), _stream(vertices.device),
    )  # fmt: skip
    return intersection, union
