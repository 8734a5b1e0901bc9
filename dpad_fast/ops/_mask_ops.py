"""Registered ops behind `masks`, `packed_masks` and `polygons`: they call the extension with checked arguments.

Packed words are int64 because torch has few operations on uint64; only their bits count. CUDA tensors go to
`_mask_cuda`. `iou_of_counts` makes every IoU from intersections and unions. On the CPU each op that reads dense masks
reports whether every byte was 0 or 1; if not, `check_bytes` finds the first such byte for the message.
"""

from __future__ import annotations

import numbers

import torch

from dpad_fast._native import extension
from dpad_fast._native.address import address
from dpad_fast._native.memory import new_output, new_output_or_zeros
from dpad_fast.ops import _mask_cuda
from dpad_fast.ops._library import register
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
    words_for,
)
from dpad_fast.ops._mask_values import check_bytes

_MaybeTensor = torch.Tensor | None


def _host(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.int64, device="cpu")


def _check_size(height: int, width: int) -> None:
    """Compiled graphs skip the public functions' check, and the loops' memory on the stack depends on it."""
    extension.C.check_mask_size("height and width of masks", height, width)


def new_parts(n: int, height: int, width: int) -> MaskParts:
    """Words, area and box on the CPU, not set yet."""
    return _new_parts_or_zeros(n, height, width)[0]


def _new_parts_or_zeros(n: int, height: int, width: int) -> tuple[MaskParts, bool]:
    _check_size(height, width)
    area, box = _host(n), _host(n, 4)
    if type(area) is not torch.Tensor:
        raise RuntimeError(f"masks are made in memory, which a {type(area).__name__} has not")
    words, zeros = new_output_or_zeros((n, height, words_for(width)), torch.int64)
    return (words, area, box), zeros


# Dense pairs: a, b bool or bytes [N, H, W]; ignore [H, W], [1, H, W] or [N, H, W].


def _dense_counts_cpu(a: torch.Tensor, b: torch.Tensor, ignore: _MaybeTensor) -> Counts:
    op = "mask_dense_counts"
    a, b = byte_masks(op, "a", a), byte_masks(op, "b", b)
    skip = None if ignore is None else byte_masks(op, "ignore", ignore)
    intersection, union = empty_counts(a, (a.shape[0],))
    pixels = a.shape[1] * a.shape[2]
    step = 0 if skip is None or skip.dim() == 2 or skip.shape[0] == 1 else pixels
    if not extension.C.dense_pair_counts(
        a.data_ptr(), b.data_ptr(), address(skip), step, a.shape[0], pixels, torch.get_num_threads(),
        intersection.data_ptr(), union.data_ptr(),
    ):  # fmt: skip
        check_bytes(("a", a), ("b", b), ("ignore", skip))
    return intersection, union


def _dense_counts_fake(a: torch.Tensor, b: torch.Tensor, ignore: _MaybeTensor) -> Counts:
    return empty_counts(a, (a.shape[0],))


dense_counts = register(
    "mask_dense_counts",
    "(Tensor a, Tensor b, Tensor? ignore) -> (Tensor, Tensor)",
    cpu=_dense_counts_cpu,
    cuda=_mask_cuda.dense_counts,
    fake=_dense_counts_fake,
)


# Packing: masks bool or bytes [N, H, W], or one [H, W], to words [N, H, words], area [N], box [N, 4], and back. `name`
# names the masks in messages.


def _pack_cpu(masks: torch.Tensor, name: str) -> MaskParts:
    masks = byte_masks("mask_pack", name, masks)
    n, height, width = mask_shape(masks)
    words, area, box = new_parts(n, height, width)
    if not extension.C.pack_masks(
        masks.data_ptr(), n, height, width, torch.get_num_threads(), words.data_ptr(), area.data_ptr(), box.data_ptr()
    ):  # fmt: skip
        check_bytes((name, masks))
    return words, area, box


def _pack_fake(masks: torch.Tensor, name: str) -> MaskParts:
    return empty_parts(masks, *mask_shape(masks))


pack = register(
    "mask_pack",
    "(Tensor masks, str name) -> (Tensor, Tensor, Tensor)",
    cpu=_pack_cpu,
    cuda=_mask_cuda.pack,
    fake=_pack_fake,
)


def _unpack_cpu(words: torch.Tensor, width: int) -> torch.Tensor:
    words = words.contiguous()
    n, height = words.shape[:2]
    masks = new_output((n, height, width), torch.bool)
    extension.C.unpack_masks(words.data_ptr(), n, height, width, torch.get_num_threads(), masks.data_ptr())
    return masks


def _unpack_fake(words: torch.Tensor, width: int) -> torch.Tensor:
    return torch.empty((*words.shape[:2], width), dtype=torch.bool, device=words.device)


unpack = register(
    "mask_unpack", "(Tensor words, int width) -> Tensor", cpu=_unpack_cpu, cuda=_mask_cuda.unpack, fake=_unpack_fake
)


def _measure_cpu(words: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    _check_size(words.shape[1], width)
    words = words.contiguous()
    _, area, box = empty_parts(words, words.shape[0], 0, 0)
    extension.C.measure_masks(
        words.data_ptr(), words.shape[0], words.shape[1], width, area.data_ptr(), box.data_ptr()
    )  # fmt: skip
    return area, box


def _measure_fake(words: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    _, area, box = empty_parts(words, words.shape[0], 0, 0)
    return area, box


measure = register(
    "mask_measure",
    "(Tensor words, int width) -> (Tensor, Tensor)",
    cpu=_measure_cpu,
    cuda=_mask_cuda.measure,
    fake=_measure_fake,
)


# Packed pairs (matrix False) or all pairs (matrix True); ignore holds one mask, or one per mask of b.


def _mask_args(words: torch.Tensor, area: torch.Tensor, box: torch.Tensor) -> tuple[int, int, int, int]:
    return words.data_ptr(), area.data_ptr(), box.data_ptr(), words.shape[0]


def _packed_counts_cpu(
    a: list[torch.Tensor], b: list[torch.Tensor], ignore: list[torch.Tensor], width: int, matrix: bool
) -> Counts:
    a, b, ignore = ([part.contiguous() for part in masks] for masks in (a, b, ignore))
    height = a[0].shape[1]
    intersection, union = _packed_counts_fake(a, b, ignore, width, matrix)
    run = extension.C.packed_matrix_counts if matrix else extension.C.packed_pair_counts
    skip = _mask_args(*ignore) if ignore else None
    threads = torch.get_num_threads()
    run(_mask_args(*a), _mask_args(*b), skip, height, width, threads, intersection.data_ptr(), union.data_ptr())
    return intersection, union


def _packed_counts_fake(
    a: list[torch.Tensor], b: list[torch.Tensor], ignore: list[torch.Tensor], width: int, matrix: bool
) -> Counts:
    n, m = a[0].shape[0], b[0].shape[0]
    return empty_counts(a[0], (n, m) if matrix else (n,))


packed_counts = register(
    "mask_packed_counts",
    "(Tensor[] a, Tensor[] b, Tensor[] ignore, int width, bool matrix) -> (Tensor, Tensor)",
    cpu=_packed_counts_cpu,
    cuda=_mask_cuda.packed_counts,
    fake=_packed_counts_fake,
)


# All pairs of dense masks a [N, H, W] and b [M, H, W]; only a few masks of `a` are packed at a time.


def _dense_matrix_counts_cpu(a: torch.Tensor, b: torch.Tensor) -> Counts:
    a, b = byte_masks("mask_dense_matrix_counts", "a", a), byte_masks("mask_dense_matrix_counts", "b", b)
    m, height, width = b.shape
    intersection, union = _dense_matrix_counts_fake(a, b)
    packed_b = new_parts(m, height, width)
    if not extension.C.dense_matrix_counts(
        a.data_ptr(), a.shape[0], b.data_ptr(), _mask_args(*packed_b), height, width, torch.get_num_threads(),
        intersection.data_ptr(), union.data_ptr(),
    ):  # fmt: skip
        check_bytes(("a", a), ("b", b))
    return intersection, union


def _dense_matrix_counts_fake(a: torch.Tensor, b: torch.Tensor) -> Counts:
    return empty_counts(a, (a.shape[0], b.shape[0]))


dense_matrix_counts = register(
    "mask_dense_matrix_counts",
    "(Tensor a, Tensor b) -> (Tensor, Tensor)",
    cpu=_dense_matrix_counts_cpu,
    cuda=_mask_cuda.dense_matrix_counts,
    fake=_dense_matrix_counts_fake,
)


# Intersections and unions, int64 of one shape, to IoU.


def _ratio_cpu(intersection: torch.Tensor, union: torch.Tensor, empty: float) -> torch.Tensor:
    intersection, union = intersection.contiguous(), union.contiguous()
    out = torch.empty(union.shape, dtype=torch.float64, device="cpu")
    extension.C.iou_ratios(intersection.data_ptr(), union.data_ptr(), union.numel(), empty, out.data_ptr())
    return out


def _ratio_fake(intersection: torch.Tensor, union: torch.Tensor, empty: float) -> torch.Tensor:
    return torch.empty(union.shape, dtype=torch.float64, device=union.device)


ratio = register(
    "mask_ratio",
    "(Tensor intersection, Tensor union, float empty) -> Tensor",
    cpu=_ratio_cpu,
    cuda=_mask_cuda.ratio,
    fake=_ratio_fake,
)


def iou_of_counts(counts: Counts, empty: float) -> torch.Tensor:
    """Intersection / union in float64, `empty` where the union is empty."""
    return ratio(*counts, as_number("empty", empty))


def as_number(name: str, value: object) -> float:
    """A number as a float; a text, None or another object is refused by name."""
    if type(value) is float:
        return value
    if not isinstance(value, int | float) and not isinstance(value, numbers.Real):
        raise ValueError(f"{name} must be a number, got {value!r:.80}")
    return float(value)


# Polygons: vertices float64 [V, 2], ring_starts int64 [R + 1], object_starts int64 [N + 1].


def _draw_cpu(
    vertices: torch.Tensor, rings: torch.Tensor, objects: torch.Tensor, height: int, width: int, rule: str
) -> MaskParts:
    parts = polygon_parts("polygon_draw", vertices, rings, objects)
    return draw_on_cpu(polygon_args(*parts), height, width, rule)


def draw_on_cpu(polygons: PolygonArgs, height: int, width: int, rule: str) -> MaskParts:
    """The CPU implementation of `polygon_draw`, called directly for polygons from lists, which need no dispatcher."""
    (words, area, box), zeros = _new_parts_or_zeros(polygons[-1], height, width)
    extension.C.draw_polygons(
        polygons, height, width, rule, torch.get_num_threads(), zeros, words.data_ptr(), area.data_ptr(),
        box.data_ptr(),
    )  # fmt: skip
    return words, area, box


def _draw_fake(
    vertices: torch.Tensor, rings: torch.Tensor, objects: torch.Tensor, height: int, width: int, rule: str
) -> MaskParts:
    return empty_parts(vertices, objects.shape[0] - 1, height, width)


draw = register(
    "polygon_draw",
    "(Tensor vertices, Tensor rings, Tensor objects, int height, int width, str rule) -> (Tensor, Tensor, Tensor)",
    cpu=_draw_cpu,
    cuda=_mask_cuda.draw,
    fake=_draw_fake,
)


def _draw_dense_cpu(
    vertices: torch.Tensor, rings: torch.Tensor, objects: torch.Tensor, height: int, width: int, rule: str
) -> torch.Tensor:
    parts = polygon_parts("polygon_draw_dense", vertices, rings, objects)
    return draw_dense_on_cpu(polygon_args(*parts), height, width, rule)


def draw_dense_on_cpu(polygons: PolygonArgs, height: int, width: int, rule: str) -> torch.Tensor:
    """The CPU implementation of `polygon_draw_dense`: bool [N, height, width]."""
    _check_size(height, width)
    masks, zeros = new_output_or_zeros((polygons[-1], height, width), torch.bool)
    threads = torch.get_num_threads()
    extension.C.draw_polygons_dense(polygons, height, width, rule, threads, zeros, masks.data_ptr())
    return masks


def _draw_dense_fake(
    vertices: torch.Tensor, rings: torch.Tensor, objects: torch.Tensor, height: int, width: int, rule: str
) -> torch.Tensor:
    return torch.empty((objects.shape[0] - 1, height, width), dtype=torch.bool, device=vertices.device)


draw_dense = register(
    "polygon_draw_dense",
    "(Tensor vertices, Tensor rings, Tensor objects, int height, int width, str rule) -> Tensor",
    cpu=_draw_dense_cpu,
    cuda=_mask_cuda.draw_dense,
    fake=_draw_dense_fake,
)


def _polygon_counts_cpu(
    vertices: torch.Tensor, rings: torch.Tensor, objects: torch.Tensor, masks: list[torch.Tensor],
    mask_index: _MaybeTensor, ignore: list[torch.Tensor], width: int, rule: str,
) -> Counts:  # fmt: skip
    parts = polygon_parts("polygon_counts", vertices, rings, objects)
    masks, ignore = [part.contiguous() for part in masks], [part.contiguous() for part in ignore]
    index = None if mask_index is None else mask_index.contiguous()
    intersection, union = empty_counts(vertices, (objects.shape[0] - 1,))
    extension.C.polygon_counts(
        polygon_args(*parts), rule, _mask_args(*masks), masks[0].shape[1], width, address(index),
        _mask_args(*ignore) if ignore else None, torch.get_num_threads(), intersection.data_ptr(), union.data_ptr(),
    )  # fmt: skip
    return intersection, union


def _polygon_counts_fake(
    vertices: torch.Tensor, rings: torch.Tensor, objects: torch.Tensor, masks: list[torch.Tensor],
    mask_index: _MaybeTensor, ignore: list[torch.Tensor], width: int, rule: str,
) -> Counts:  # fmt: skip
    return empty_counts(vertices, (objects.shape[0] - 1,))


polygon_counts = register(
    "polygon_counts",
    "(Tensor vertices, Tensor rings, Tensor objects, Tensor[] masks, Tensor? mask_index, Tensor[] ignore, int width, "
    "str rule) -> (Tensor, Tensor)",
    cpu=_polygon_counts_cpu,
    cuda=_mask_cuda.polygon_counts,
    fake=_polygon_counts_fake,
)
