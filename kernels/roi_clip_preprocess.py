"""Crop, antialiased resize, centre crop and normalise on a GPU, bit for bit as Pillow does them.

Three launches serve a batch of any image sizes. A small one computes the resize weights of every box and axis in
float64, as Pillow does (and without fused multiply-adds, which would round once where Pillow rounds twice). Then each
of Pillow's two passes is one: the first reads pictures and leaves bytes, rounded as Pillow does between its passes,
which stay in the level 2 cache for the second; that one also normalises. What the centre crop drops is not computed.
All sums are of integers, so their order does not matter.

Both passes are the same tile of ROWS x COLUMNS outputs with a window of source pixels along one axis. Threads lie along
a row whatever the axis is, so that neighbours read neighbouring bytes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from dpad_fast._native.launches import Launched
from dpad_fast._native.upload import on_device
from dpad_fast.kernels import _crop_plan
from dpad_fast.kernels._crop_plan import Plan as Plan
from dpad_fast.kernels._crop_plan import prepare as prepare

TILE_1 = (2, 32)  # rows and columns of the first pass's tiles: one warp, whose threads have 2 outputs each
TILE_2 = (8, 128)  # of the second's: 8 neighbours for each thread, loaded and stored together
MOST_TILES = 1024  # programs of a box; they take further tiles in turn
WEIGHTS_BLOCK = 64

# Where a box's numbers are in its row of the table, which csrc/core/crops/gpu_plan.h describes. Of a pair, y's number
# is the one after x's.
(
    POINTER, STRIDE_X, STRIDE_Y, STRIDE_C, EXTENT_X, CORNER_X, SOURCE_X, TARGET_X, OFFSET_X, SCALE_X, TAPS_X, WEIGHTS_X,
    VERTICAL_FIRST, LINES, BETWEEN, PIXEL_BYTES,
) = (
    tl.constexpr(_crop_plan.COLUMN[name]) for name in (
        "pointer", "stride_x", "stride_y", "stride_c", "extent_x", "corner_x", "source_x", "target_x", "offset_x",
        "scale_x", "taps_x", "weights_x", "vertical_first", "lines", "between", "pixel_bytes",
    )
)  # fmt: skip
COLUMNS = tl.constexpr(_crop_plan.COLUMNS)


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
    for k in tl.range(taps, loop_unroll_factor=4):  # several at once, for each waits long for its float64 results
        total += tl.where(k < count, _raw_weight(first + k, centre, per_scale, BICUBIC), 0.0)
    into = weights + tl.load(row + WEIGHTS_X) + output
    for k in tl.range(taps, loop_unroll_factor=4):
        weight = _raw_weight(first + k, centre, per_scale, BICUBIC)
        weight = tl.where(total != 0.0, weight / tl.where(total != 0.0, total, 1.0), weight) * 4194304.0
        rounded = (weight + tl.where(weight < 0, -0.5, 0.5)).to(tl.int32)
        tl.store(into, tl.where(k < count, rounded, 0), mask=valid)
        into += size


@triton.jit
def _window(windows, weights, row, box, output, size, corner, extent, AXIS: tl.constexpr):
    """First tap of some outputs, from `corner` on, how many lie in 0..extent, and where their weights are.

    What lies outside of the image is black and adds nothing.
    """
    at = windows + (box * 2 + AXIS) * 2 * size + output
    valid = output < size
    first = tl.load(at, mask=valid, other=0)
    last = corner + first + tl.load(at + size, mask=valid, other=0)
    start = tl.maximum(corner + first, 0)
    weight = weights + tl.load(row + WEIGHTS_X + AXIS) + (start - corner - first).to(tl.int64) * size + output
    return start, tl.where(valid, tl.minimum(last, extent) - start, 0), weight


@triton.jit
def _eight_bits(total):
    return tl.minimum(tl.maximum(total >> 22, 0), 255)


@triton.jit
def _sums(at, step, stride_c, weight, count, valid, size):
    """Three colours of a tile: sums over windows that start at the bytes `at`, rounded to 8 bits."""
    red = tl.full(valid.shape, 1 << 21, dtype=tl.int32)
    green = tl.full(valid.shape, 1 << 21, dtype=tl.int32)
    blue = tl.full(valid.shape, 1 << 21, dtype=tl.int32)
    for k in range(tl.max(count, axis=0)):
        tapped = k < count
        seen = valid & tapped
        by = tl.load(weight, mask=tapped, other=0)
        red += by * tl.load(at, mask=seen, other=0).to(tl.int32)
        green += by * tl.load(at + stride_c, mask=seen, other=0).to(tl.int32)
        blue += by * tl.load(at + 2 * stride_c, mask=seen, other=0).to(tl.int32)
        at += step
        weight += size
    return _eight_bits(red), _eight_bits(green), _eight_bits(blue)


@triton.jit
def _joined(low, high, bits):
    """The 32 bits from bit number `bits` on of two words; `bits` is below 32."""
    return ((low.to(tl.uint64) | (high.to(tl.uint64) << 32)) >> bits.to(tl.uint64)).to(tl.uint32)


@triton.jit
def _sums_of_words(at, weight, count, valid, size, PIXEL: tl.constexpr):
    """`_sums` along a row of pixels of PIXEL bytes, 3 or 4, red first: four pixels are read as four aligned words.

    With 4 bytes, `at` is aligned. A word is read where a byte of it is of a pixel in the window.
    """
    red = tl.full(valid.shape, 1 << 21, dtype=tl.int32)
    green = tl.full(valid.shape, 1 << 21, dtype=tl.int32)
    blue = tl.full(valid.shape, 1 << 21, dtype=tl.int32)
    address = at.to(tl.int64)
    past = (address & 3).to(tl.int32)  # bytes from the first word to the first pixel
    shift = past * 8
    word = (address & ~3).to(tl.pointer_type(tl.uint32))
    left = tl.where(valid, past + count * PIXEL, 0)  # bytes from `word` to the end of the window
    for first in range(0, tl.max(count, axis=0), 4):
        p0 = tl.load(word, mask=left > 0, other=0)
        p1 = tl.load(word + 1, mask=left > 4, other=0)
        p2 = tl.load(word + 2, mask=left > 8, other=0)
        p3 = tl.load(word + 3, mask=left > 12, other=0)
        if PIXEL == 3:
            a = _joined(p0, p1, shift)  # r0 g0 b0 r1
            b = _joined(p1, p2, shift)  # g1 b1 r2 g2
            c = _joined(p2, p3, shift)  # b2 r3 g3 b3
            p0 = a
            p1 = (a >> 24) | (b << 8)
            p2 = (b >> 16) | (c << 16)
            p3 = c >> 8
        for k in tl.static_range(4):
            pixel = p0 if k == 0 else p1 if k == 1 else p2 if k == 2 else p3
            by = tl.load(weight, mask=first + k < count, other=0)
            red += by * (pixel & 255).to(tl.int32)
            green += by * ((pixel >> 8) & 255).to(tl.int32)
            blue += by * ((pixel >> 16) & 255).to(tl.int32)
            weight += size
        word += PIXEL
        left -= 4 * PIXEL
    return _eight_bits(red), _eight_bits(green), _eight_bits(blue)


@triton.jit
def _between(between, row, size, AXIS: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """Where a box's bytes between the passes are, how far it is to the next row, column and colour, and its lines.

    They are laid out as the result is, three planes or three colours a pixel, of as many rows or columns as the first
    pass, along AXIS, makes lines. Rows begin at multiples of 16 bytes.
    """
    lines = tl.load(row + LINES).to(tl.int32)
    width = size if AXIS == 0 else lines
    height = lines if AXIS == 0 else size
    if CHANNELS_LAST:
        step = 3
        pitch = tl.cdiv(3 * width, 16) * 16
        plane = tl.full([], 1, dtype=tl.int64)
    else:
        step = 1
        pitch = tl.cdiv(width, 16) * 16
        plane = height.to(tl.int64) * pitch
    return between + tl.load(row + BETWEEN) * 16, pitch, step, plane, lines


@triton.jit
def _first_pass(
    table, windows, weights, between, size, AXIS: tl.constexpr, PIXEL: tl.constexpr, TILE_ROWS: tl.constexpr,
    TILE_COLUMNS: tl.constexpr, CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """The lines of a box that its second pass needs, resampled along AXIS: 0 for x, 1 for y; PIXEL is PIXEL_BYTES."""
    ACROSS: tl.constexpr = 1 - AXIS
    box = tl.program_id(0).to(tl.int64)
    row = table + box * COLUMNS
    image = tl.load(row + POINTER).to(tl.pointer_type(tl.uint8))
    stride_x = tl.load(row + STRIDE_X)
    stride_y = tl.load(row + STRIDE_Y)
    stride_c = tl.load(row + STRIDE_C)
    corner = tl.load(row + CORNER_X + AXIS).to(tl.int32)
    extent = tl.load(row + EXTENT_X + AXIS).to(tl.int32)
    corner_across = tl.load(row + CORNER_X + ACROSS).to(tl.int32)
    first_line = tl.maximum(-corner_across, 0)  # of the crop that lies in the image
    into, pitch, step, plane, lines = _between(between, row, size, AXIS, CHANNELS_LAST)
    # What the second pass reads: from the first to the last output that is not padding.
    offset = tl.load(row + OFFSET_X + ACROSS).to(tl.int32)
    target = tl.load(row + TARGET_X + ACROSS).to(tl.int32)
    window = windows + (box * 2 + ACROSS) * 2 * size
    last = window + tl.minimum(target - offset, size) - 1
    begin = tl.maximum(tl.load(window + tl.maximum(-offset, 0)) - first_line, 0)
    end = tl.minimum(tl.load(last) + tl.load(last + size) - first_line, lines)

    down = (end - begin) if AXIS == 0 else size
    across = size if AXIS == 0 else (end - begin)
    columns = tl.cdiv(across, TILE_COLUMNS)
    # In one dimension, for of two Triton 3.6 lays a warp along the rows, so that it reads as many lines of the cache.
    spot = tl.arange(0, TILE_ROWS * TILE_COLUMNS)
    for tile in range(tl.program_id(1), tl.cdiv(down, TILE_ROWS) * columns, tl.num_programs(1)):
        y = (tile // columns) * TILE_ROWS + spot // TILE_COLUMNS
        # As if neighbours did not lie together: no thread shall store several at once, for then it would also load so.
        x = tl.max_contiguous((tile % columns) * TILE_COLUMNS + spot % TILE_COLUMNS, 1)
        valid = (y < down) & (x < across)
        if AXIS == 0:
            y += begin
            start, count, weight = _window(windows, weights, row, box, x, size, corner, extent, AXIS)
            source_y = (y + corner_across + first_line).to(tl.int64)
            at = image + source_y * stride_y + start.to(tl.int64) * stride_x
            if PIXEL == 0:
                red, green, blue = _sums(at, stride_x, stride_c, weight, count, valid, size)
            else:
                red, green, blue = _sums_of_words(at, weight, count, valid, size, PIXEL)
        else:
            x += begin
            start, count, weight = _window(windows, weights, row, box, y, size, corner, extent, AXIS)
            source_x = (x + corner_across + first_line).to(tl.int64)
            at = image + start.to(tl.int64) * stride_y + source_x * stride_x
            red, green, blue = _sums(at, stride_y, stride_c, weight, count, valid, size)
        to = into + y.to(tl.int64) * pitch + x * step
        tl.store(to, red.to(tl.uint8), mask=valid)
        tl.store(to + plane, green.to(tl.uint8), mask=valid)
        tl.store(to + 2 * plane, blue.to(tl.uint8), mask=valid)


@Launched
@triton.jit
def first_pass_kernel(
    table, windows, weights, between, size, TILE_ROWS: tl.constexpr, TILE_COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Bytes between the passes of every box."""
    row = table + tl.program_id(0).to(tl.int64) * COLUMNS
    pixel = tl.load(row + PIXEL_BYTES)
    if tl.load(row + VERTICAL_FIRST) != 0:
        _first_pass(table, windows, weights, between, size, 1, 0, TILE_ROWS, TILE_COLUMNS, CHANNELS_LAST)
    elif pixel == 3:
        _first_pass(table, windows, weights, between, size, 0, 3, TILE_ROWS, TILE_COLUMNS, CHANNELS_LAST)
    elif pixel == 4:
        _first_pass(table, windows, weights, between, size, 0, 4, TILE_ROWS, TILE_COLUMNS, CHANNELS_LAST)
    else:
        _first_pass(table, windows, weights, between, size, 0, 0, TILE_ROWS, TILE_COLUMNS, CHANNELS_LAST)


@triton.jit
def _second_pass(
    table, windows, weights, between, size, y, column, valid, AXIS: tl.constexpr, CHANNELS_LAST: tl.constexpr
):  # fmt: skip
    """Bytes of a tile of rows y, resampled along AXIS: 0 for x, 1 for y. Columns are pixels, or colours of pixels."""
    box = tl.program_id(0).to(tl.int64)
    row = table + box * COLUMNS
    source, pitch, step, plane, lines = _between(between, row, size, 1 - AXIS, CHANNELS_LAST)
    if not CHANNELS_LAST:
        source += tl.program_id(2) * plane
    corner = -tl.maximum(-tl.load(row + CORNER_X + AXIS).to(tl.int32), 0)
    total = tl.full(valid.shape, 1 << 21, dtype=tl.int32)
    if AXIS == 0:
        x = column // step
        start, count, weight = _window(windows, weights, row, box, x, size, corner, lines, AXIS)
        at = (source + start * step + (column - x * step))[None, :] + y.to(tl.int64)[:, None] * pitch
        count = count[None, :]
        weight = weight[None, :]
        further = step
    else:
        start, count, weight = _window(windows, weights, row, box, y, size, corner, lines, AXIS)
        at = (source + column)[None, :] + start.to(tl.int64)[:, None] * pitch
        count = count[:, None]
        weight = weight[:, None]
        further = pitch
    for k in range(tl.max(tl.max(count, axis=0), axis=0)):
        tapped = k < count
        total += tl.load(weight, mask=tapped, other=0) * tl.load(at, mask=valid & tapped, other=0).to(tl.int32)
        at += further
        weight += size
    return _eight_bits(total)


@Launched
@triton.jit
def second_pass_kernel(
    table, windows, weights, between, normal, out, size, TILE_ROWS: tl.constexpr, TILE_COLUMNS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
):  # fmt: skip
    """Every pixel of every box: [K, 3, size, size]. normal [3, 256] maps a byte to its value in the type of out.

    A tile lies in a plane, or in the only one, whose rows are three times as long.
    """
    box = tl.program_id(0).to(tl.int64)
    length = size * 3 if CHANNELS_LAST else size
    columns = tl.cdiv(length, TILE_COLUMNS)
    y = (tl.program_id(1) // columns) * TILE_ROWS + tl.arange(0, TILE_ROWS)
    column = (tl.program_id(1) % columns) * TILE_COLUMNS + tl.arange(0, TILE_COLUMNS)
    valid = (y < size)[:, None] & (column < length)[None, :]
    into = out + (box * 3 + tl.program_id(2)) * size * size + y.to(tl.int64)[:, None] * length + column[None, :]
    if tl.load(table + box * COLUMNS + VERTICAL_FIRST) != 0:
        byte = _second_pass(table, windows, weights, between, size, y, column, valid, 0, CHANNELS_LAST)
    else:
        byte = _second_pass(table, windows, weights, between, size, y, column, valid, 1, CHANNELS_LAST)
    if CHANNELS_LAST:  # noqa: SIM108  (Triton compiles both sides of a conditional expression)
        known_as = normal + (column % 3)[None, :] * 256 + byte
    else:
        known_as = normal + tl.program_id(2) * 256 + byte
    tl.store(into, tl.load(known_as), mask=valid)


def run(plan: Plan, out: torch.Tensor, *, first: tuple[int, int] = TILE_1, second: tuple[int, int] = TILE_2) -> None:
    """Fill `out` [K, 3, size, size], contiguous or channels-last, without waiting or copying from the host.

    Args:
        plan: from `prepare`.
        out: the result.
        first: rows and columns of the first pass's tiles.
        second: rows and columns of the second pass's tiles.
    """
    count, size = out.shape[0], plan.size
    channels_last = not out.is_contiguous()
    if channels_last and not out.is_contiguous(memory_format=torch.channels_last):
        raise ValueError(f"out must be contiguous or channels-last, got strides {list(out.stride())}")
    windows = torch.empty(count * 4 * size, dtype=torch.int32, device=out.device)
    weights = torch.empty(plan.weights, dtype=torch.int32, device=out.device)
    between = torch.empty(plan.between, dtype=torch.uint8, device=out.device)
    tiles = max(_tiles(plan.lines, size, first), _tiles(size, plan.lines, first), 1)
    with on_device(out.device):
        weights_kernel[(count, 2, -(-size // WEIGHTS_BLOCK))](
            plan.table, windows, weights, size, BICUBIC=plan.bicubic, BLOCK=WEIGHTS_BLOCK, num_warps=2,
            enable_fp_fusion=False,
        )  # fmt: skip
        first_pass_kernel[(count, min(tiles, MOST_TILES))](
            plan.table, windows, weights, between, size, TILE_ROWS=first[0], TILE_COLUMNS=first[1],
            CHANNELS_LAST=channels_last, num_warps=1,
        )  # fmt: skip
        planes, length = (1, 3 * size) if channels_last else (3, size)
        second_pass_kernel[(count, _tiles(size, length, second), planes)](
            plan.table, windows, weights, between, plan.normal, out, size, TILE_ROWS=second[0],
            TILE_COLUMNS=second[1], CHANNELS_LAST=channels_last, num_warps=4,
        )  # fmt: skip


def _tiles(rows: int, columns: int, tile: tuple[int, int]) -> int:
    return -(-rows // tile[0]) * -(-columns // tile[1])  # triton.cdiv takes as long as a launch


def launch(
    images: Sequence[torch.Tensor],
    boxes: torch.Tensor | np.ndarray[Any, Any],
    image_index: torch.Tensor | np.ndarray[Any, Any],
    out: torch.Tensor,
    *,
    first: tuple[int, int] = TILE_1,
    second: tuple[int, int] = TILE_2,
    **options: Any,
) -> None:
    """Fill `out`: `prepare` (which takes `options`, and says what the others are), then `run`."""
    if len(boxes) == 0:
        return
    plan = prepare(
        images, boxes, image_index, size=out.shape[-1], dtype=out.dtype, device=out.device, **options
    )  # fmt: skip
    run(plan, out, first=first, second=second)
