"""Crop, antialiased resize, centre crop and normalise on a GPU, bit for bit as Pillow does them.

Two launches serve a batch of any image sizes: a small one computes the resize weights of every box and axis in float64,
as Pillow does (and without fused multiply-adds, which would round once where Pillow rounds twice), and one computes all
pixels. No cropped or resized picture is ever in memory. All sums are of integers, so their order does not matter.

A program owns LANES outputs along the axis of Pillow's first pass, one per thread, and BAND outputs along the other
axis, in registers. It walks over the source lines that the band needs, makes each one's first-pass pixel (rounded to 8
bits, as Pillow does between its passes) and adds it, weighted, to all outputs of the band. So a first-pass pixel is
made (BAND + 4) / BAND times over, and never leaves its thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from dpad_fast._native.launches import Launched
from dpad_fast._native.upload import on_device

LANES = 32  # one warp, so that a first-pass pixel is computed by one thread only
BAND = 16  # 3 x 16 sums per thread; a quarter of the first pass is done twice, and 32 would double the registers
WEIGHTS_BLOCK = 64

# Columns of the table of boxes, int64 [K, COLUMNS]; of a pair the second is the y of the first.
(
    POINTER, STRIDE_X, STRIDE_Y, STRIDE_C, EXTENT_X, EXTENT_Y, CORNER_X, CORNER_Y, SOURCE_X, SOURCE_Y, TARGET_X,
    TARGET_Y, OFFSET_X, OFFSET_Y, SCALE_X, SCALE_Y, TAPS_X, TAPS_Y, WEIGHTS_X, WEIGHTS_Y, VERTICAL_FIRST,
) = (tl.constexpr(column) for column in range(21))  # fmt: skip
COLUMNS = tl.constexpr(21)
WIDTH_HEIGHT = slice(4, 6)  # EXTENT_X and EXTENT_Y, for the host


@triton.jit
def _bicubic(x):
    """Keys' cubic with a = -0.5, in the order of operations of Pillow."""
    x = tl.abs(x)
    near = ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return tl.where(x < 1.0, near, tl.where(x < 2.0, far, 0.0))


@triton.jit
def _raw_weight(source, centre, per_scale, BICUBIC: tl.constexpr):
    x = (source.to(tl.float64) - centre + 0.5) * per_scale
    if BICUBIC:  # noqa: SIM108  (Triton compiles both sides of a conditional expression)
        weight = _bicubic(x)
    else:
        weight = tl.maximum(1.0 - tl.abs(x), 0.0)
    return weight


@Launched
@triton.jit
def weights_kernel(table, windows, weights, size, BICUBIC: tl.constexpr, BLOCK: tl.constexpr):
    """First source pixel and number of taps (windows [K, 2, 2, size]) and 22-bit weights [taps, size] of each axis.

    Outputs that lie outside of the resized picture (padding) have no tap.
    """
    box = tl.program_id(0).to(tl.int64)
    axis = tl.program_id(1)
    row = table + box * COLUMNS + axis
    source = tl.load(row + SOURCE_X).to(tl.int32)
    target = tl.load(row + TARGET_X).to(tl.int32)
    scale = tl.load(row + SCALE_X).to(tl.float64, bitcast=True)
    taps = tl.load(row + TAPS_X).to(tl.int32)
    filter_scale = tl.maximum(scale, 1.0)
    support = filter_scale * (2.0 if BICUBIC else 1.0)
    per_scale = 1.0 / filter_scale

    output = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    valid = output < size
    position = output + tl.load(row + OFFSET_X).to(tl.int32)
    inside = (position >= 0) & (position < target)
    centre = (position.to(tl.float64) + 0.5) * scale
    first = tl.maximum((centre - support + 0.5).to(tl.int32), 0)
    last = tl.minimum((centre + support + 0.5).to(tl.int32), source)
    count = tl.where(inside, last - first, 0)
    window = windows + (box * 2 + axis) * 2 * size + output
    tl.store(window, first, mask=valid)
    tl.store(window + size, count, mask=valid)
    total = tl.zeros([BLOCK], dtype=tl.float64)
    for k in range(taps):
        total += tl.where(k < count, _raw_weight(first + k, centre, per_scale, BICUBIC), 0.0)
    into = weights + tl.load(row + WEIGHTS_X) + output
    for k in range(taps):
        weight = _raw_weight(first + k, centre, per_scale, BICUBIC)
        weight = tl.where(total != 0.0, weight / tl.where(total != 0.0, total, 1.0), weight) * 4194304.0
        rounded = (weight + tl.where(weight < 0, -0.5, 0.5)).to(tl.int32)
        tl.store(into, tl.where(k < count, rounded, 0), mask=valid)
        into += size


@triton.jit
def _eight_bits(total):
    return tl.minimum(tl.maximum(total >> 22, 0), 255)


@triton.jit
def _tile(
    table, windows, weights, normal, out, size, LANE: tl.constexpr, LANES: tl.constexpr, BAND: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """LANES x BAND pixels. LANE is the axis of Pillow's first pass, 0 for x, 1 for y; the band is along the other."""
    OTHER: tl.constexpr = 1 - LANE
    box = tl.program_id(0).to(tl.int64)
    row = table + box * COLUMNS
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    band = tl.program_id(2) * BAND + tl.arange(0, BAND)
    lane_valid = lane < size
    band_valid = band < size
    lane_window = windows + (box * 2 + LANE) * 2 * size + lane
    band_window = windows + (box * 2 + OTHER) * 2 * size + band
    lane_first = tl.load(lane_window, mask=lane_valid, other=0)
    lane_count = tl.load(lane_window + size, mask=lane_valid, other=0)
    band_first = tl.load(band_window, mask=band_valid, other=0)
    band_count = tl.load(band_window + size, mask=band_valid, other=0)
    lane_weights = weights + tl.load(row + WEIGHTS_X + LANE) + lane
    band_weights = weights + tl.load(row + WEIGHTS_X + OTHER) + band
    lane_stride = tl.load(row + STRIDE_X + LANE)
    band_stride = tl.load(row + STRIDE_X + OTHER)
    stride_c = tl.load(row + STRIDE_C)
    lane_corner = tl.load(row + CORNER_X + LANE)
    band_corner = tl.load(row + CORNER_X + OTHER)
    lane_extent = tl.load(row + EXTENT_X + LANE)
    band_extent = tl.load(row + EXTENT_X + OTHER)
    image = tl.load(row + POINTER).to(tl.pointer_type(tl.uint8))

    red = tl.full([BAND, LANES], 1 << 21, dtype=tl.int32)
    green = tl.full([BAND, LANES], 1 << 21, dtype=tl.int32)
    blue = tl.full([BAND, LANES], 1 << 21, dtype=tl.int32)
    taps = tl.max(lane_count, axis=0)
    # What lies outside of the image is black: such lines add nothing and are skipped.
    first_line = tl.min(tl.where(band_count > 0, band_first, 2147483647), axis=0)
    last_line = tl.max(tl.where(band_count > 0, band_first + band_count, 0), axis=0)
    first_line = tl.maximum(first_line, -band_corner).to(tl.int32)
    last_line = tl.minimum(last_line, band_extent - band_corner).to(tl.int32)
    for line in range(first_line, last_line):
        line_red = tl.full([LANES], 1 << 21, dtype=tl.int32)
        line_green = tl.full([LANES], 1 << 21, dtype=tl.int32)
        line_blue = tl.full([LANES], 1 << 21, dtype=tl.int32)
        pixel = lane_corner + lane_first
        at = image + (band_corner + line) * band_stride + pixel * lane_stride
        weight_at = lane_weights
        for k in range(taps):
            tapped = k < lane_count
            seen = tapped & (pixel >= 0) & (pixel < lane_extent)
            weight = tl.load(weight_at, mask=tapped, other=0)
            line_red += weight * tl.load(at, mask=seen, other=0).to(tl.int32)
            line_green += weight * tl.load(at + stride_c, mask=seen, other=0).to(tl.int32)
            line_blue += weight * tl.load(at + 2 * stride_c, mask=seen, other=0).to(tl.int32)
            pixel += 1
            at += lane_stride
            weight_at += size
        tap = line - band_first
        used = (tap >= 0) & (tap < band_count)
        weight = tl.load(band_weights + tap.to(tl.int64) * size, mask=used, other=0)[:, None]
        red += weight * _eight_bits(line_red)[None, :]
        green += weight * _eight_bits(line_green)[None, :]
        blue += weight * _eight_bits(line_blue)[None, :]

    valid = band_valid[:, None] & lane_valid[None, :]
    if LANE == 0:
        pixel_at = band.to(tl.int64)[:, None] * size + lane[None, :]
    else:
        pixel_at = lane.to(tl.int64)[None, :] * size + band[:, None]
    into = out + box * 3 * size * size
    if CHANNELS_LAST:
        into += pixel_at * 3
        plane = 1
    else:
        into += pixel_at
        plane = size * size
    tl.store(into, tl.load(normal + _eight_bits(red)), mask=valid)
    tl.store(into + plane, tl.load(normal + 256 + _eight_bits(green)), mask=valid)
    tl.store(into + 2 * plane, tl.load(normal + 512 + _eight_bits(blue)), mask=valid)


@Launched
@triton.jit
def pixels_kernel(
    table, windows, weights, normal, out, size, LANES: tl.constexpr, BAND: tl.constexpr, CHANNELS_LAST: tl.constexpr
):  # fmt: skip
    """Every pixel of every box: [K, 3, size, size]. normal [3, 256] maps a byte to its value in the type of out."""
    if tl.load(table + tl.program_id(0).to(tl.int64) * COLUMNS + VERTICAL_FIRST) != 0:
        _tile(table, windows, weights, normal, out, size, 1, LANES, BAND, CHANNELS_LAST)
    else:
        _tile(table, windows, weights, normal, out, size, 0, LANES, BAND, CHANNELS_LAST)


@dataclass(frozen=True)
class Plan:
    """The kernels' inputs besides pixels, on the device; it is valid as long as the images stay at their addresses."""

    table: torch.Tensor
    normal: torch.Tensor
    weights: int
    size: int
    bicubic: bool


def facts_of(images: Sequence[torch.Tensor]) -> np.ndarray[Any, Any]:
    """The first columns of the table for M uint8 tensors [H, W, 3 or more] on one device, with any strides: [M, 6]."""
    flat: list[int] = []
    for image in images:
        flat += (image.data_ptr(), *image.stride(), *image.shape)
    return np.array(flat, dtype=np.int64).reshape(-1, 7)[:, (0, 2, 1, 3, 5, 4)]


def prepare(
    images: Sequence[torch.Tensor],
    boxes: np.ndarray[Any, Any],
    image_index: np.ndarray[Any, Any],
    *,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
    resize: str,
    interpolation: str,
    center: str,
    order: str,
    mean: Sequence[float],
    std: Sequence[float],
    facts: np.ndarray[Any, Any] | None = None,
) -> Plan:
    """Do the host's part and copy it to the device; a CUDA graph captures `run` alone.

    Args:
        images: M uint8 tensors [H, W, 3 or more] on one device, with any strides.
        boxes: int64 [K, 4], on the host, x1 < x2 and y1 < y2; K at least 1.
        image_index: int64 [K], on the host, each in [0, M).
        size: side of the result.
        dtype: of the result.
        device: of the images and the result.
        resize: `shortest`, `squash` or `longest`.
        interpolation: `bicubic` or `bilinear`.
        center: `floor` or `round`.
        order: `horizontal`, `pillow-12.3` or `pillow-13`: which pass is first.
        mean: 3 numbers.
        std: 3 numbers.
        facts: `facts_of(images)`, where they are known already.
    """
    shape = (len(boxes), COLUMNS.value)
    staged = torch.empty(shape, dtype=torch.int64, device="cpu", pin_memory=device.type == "cuda")
    facts = facts_of(images) if facts is None else facts
    total = _fill(staged.numpy(), facts[image_index], boxes, size, resize, interpolation, center, order)
    return Plan(
        staged.to(device, non_blocking=True),
        _normal(tuple(mean), tuple(std), dtype, device),
        total,
        size,
        interpolation == "bicubic",
    )


def run(plan: Plan, out: torch.Tensor, *, lanes: int = LANES, band: int = BAND) -> None:
    """Fill `out` [K, 3, size, size], contiguous or channels-last, without waiting or copying from the host.

    Args:
        plan: from `prepare`.
        out: the result.
        lanes: outputs of a program along the first pass.
        band: outputs of a program along the second.
    """
    count, size = out.shape[0], plan.size
    channels_last = not out.is_contiguous()
    if channels_last and not out.is_contiguous(memory_format=torch.channels_last):
        raise ValueError(f"out must be contiguous or channels-last, got strides {list(out.stride())}")
    windows = torch.empty(count * 4 * size, dtype=torch.int32, device=out.device)
    weights = torch.empty(plan.weights, dtype=torch.int32, device=out.device)
    with on_device(out.device):
        weights_kernel[(count, 2, -(-size // WEIGHTS_BLOCK))](
            plan.table, windows, weights, size, BICUBIC=plan.bicubic, BLOCK=WEIGHTS_BLOCK, num_warps=2,
            enable_fp_fusion=False,
        )  # fmt: skip
        pixels_kernel[(count, -(-size // lanes), -(-size // band))](
            plan.table, windows, weights, plan.normal, out, size, LANES=lanes, BAND=band, CHANNELS_LAST=channels_last,
            num_warps=1,
        )  # fmt: skip


def launch(
    images: Sequence[torch.Tensor],
    boxes: np.ndarray[Any, Any],
    image_index: np.ndarray[Any, Any],
    out: torch.Tensor,
    *,
    lanes: int = LANES,
    band: int = BAND,
    **options: Any,
) -> None:
    """Fill `out`: `prepare` (which takes `options`, and says what the others are), then `run`."""
    if len(boxes) == 0:
        return
    plan = prepare(
        images, boxes, image_index, size=out.shape[-1], dtype=out.dtype, device=out.device, **options
    )  # fmt: skip
    run(plan, out, lanes=lanes, band=band)


@lru_cache(maxsize=16)
def _normal(mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What each byte becomes in each channel, [3, 256], uploaded once."""
    scaled = (np.arange(256) * (1 / 255)).astype(np.float32)
    rows = [(scaled - np.float32(m)) / np.float32(s) for m, s in zip(mean, std, strict=True)]
    return torch.from_numpy(np.stack(rows)).to(dtype).to(device)


def _fill(
    table: np.ndarray[Any, Any],
    facts: np.ndarray[Any, Any],
    boxes: np.ndarray[Any, Any],
    size: int,
    resize: str,
    interpolation: str,
    center: str,
    order: str,
) -> int:
    """Fills the table of boxes, int64 [K, COLUMNS], and says how many weights they need in all."""
    source = boxes[:, 2:] - boxes[:, :2]  # [K, 2]: width and height of the crop
    target = _target_sizes(source, size, resize)
    margin = target - size
    offset = margin // 2 if center == "floor" else np.rint(margin / 2.0).astype(np.int64)
    if resize == "longest":  # nothing else leaves a side shorter than `size`
        offset = np.where(margin < 0, -(-margin // 2), offset)
    scale = source / target
    reach = np.maximum(scale, 1.0)
    taps = np.ceil(2.0 * reach if interpolation == "bicubic" else reach).astype(np.int64) * 2 + 1
    weights = taps.ravel() * size
    ends = weights.cumsum()
    pairs = ((CORNER_X, boxes[:, :2]), (SOURCE_X, source), (TARGET_X, target), (OFFSET_X, offset),
             (SCALE_X, scale.view(np.int64)), (TAPS_X, taps), (WEIGHTS_X, (ends - weights).reshape(-1, 2)))  # fmt: skip
    table[:, : CORNER_X.value] = facts
    for column, values in pairs:
        table[:, column.value : column.value + 2] = values
    table[:, VERTICAL_FIRST.value] = _vertical_first(source, target, order)
    return int(ends[-1])


def _vertical_first(source: np.ndarray[Any, Any], target: np.ndarray[Any, Any], order: str) -> Any:
    """Whether Pillow's first pass is the vertical one: bool [K], or one for all."""
    if order == "horizontal":
        return False
    lost = source - target
    if order == "pillow-13":
        return (lost[:, 1] > 0) & (lost[:, 1] > 2 * lost[:, 0])
    return (lost[:, 1] > 0) & (source[:, 1] > 100 * source[:, 0])


def _target_sizes(source: np.ndarray[Any, Any], size: int, resize: str) -> np.ndarray[Any, Any]:
    """Width and height [K, 2] after the resize, rounded as the processors round them."""
    if resize == "squash":
        return np.full_like(source, size)
    if resize == "shortest":
        shorter = source.min(axis=1, keepdims=True)
        return np.where(source == shorter, size, (size * source / shorter).astype(np.int64))
    ratio = (source / size).max(axis=1, keepdims=True)
    return np.maximum(np.rint(source / ratio).astype(np.int64), 1)
