"""Polygon rasterisation, one pixel and one edge at a time, for the rules of `dpad_fast.ops.rasterize_polygons`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BoolMask = NDArray[np.bool_]
Ring = NDArray[np.float64]
_ONE = 1 << 16  # OpenCV keeps the x of an edge with 16 fractional bits


def rasterize(rings: Sequence[Ring], height: int, width: int, rule: str = "coco") -> BoolMask:
    """The bool mask [height, width] of one object: several rings [n, 2] of (x, y), combined as `rule` does."""
    draw = {"coco": _coco, "opencv": _opencv, "center": _center}[rule]
    return draw(rings, height, width)


def _coco(rings: Sequence[Ring], height: int, width: int) -> BoolMask:
    mask = np.zeros((height, width), np.bool_)
    for ring in rings:
        mask |= _coco_ring(ring, height, width)
    return mask


def _coco_ring(ring: Ring, height: int, width: int) -> BoolMask:
    """The ring's outline on a grid five times finer; each crossing of a column's middle toggles what lies below it."""
    vertices = [(int(5 * float(x) + 0.5), int(5 * float(y) + 0.5)) for x, y in ring]
    toggles = np.zeros(height * width + 1, np.int64)
    previous: tuple[int, int] | None = None
    for start, end in zip(vertices, vertices[1:] + vertices[:1], strict=True):
        for u, v in _fine_line(start, end):
            if previous is not None and u != previous[0]:
                left = min(u, previous[0])
                if left % 5 == 2 and 0 <= left // 5 < width:
                    y = (min(v, previous[1]) + 0.5) / 5 - 0.5
                    toggles[left // 5 * height + math.ceil(min(max(y, 0.0), float(height)))] += 1
            previous = (u, v)
    inside = np.cumsum(toggles)[:-1] % 2 == 1
    return np.asarray(inside.reshape((height, width), order="F"), dtype=np.bool_)


def _fine_line(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    dx, dy = abs(end[0] - start[0]), abs(end[1] - start[1])
    if dx == 0 and dy == 0:
        return [start]
    axis = 0 if dx >= dy else 1
    steps = max(dx, dy)
    low, high = (start, end) if start[axis] <= end[axis] else (end, start)
    slope = (high[1 - axis] - low[1 - axis]) / steps
    points = []
    for t in range(steps + 1):
        major, minor = low[axis] + t, int(low[1 - axis] + slope * t + 0.5)
        points.append((major, minor) if axis == 0 else (minor, major))
    return points if low == start else points[::-1]


def _center(rings: Sequence[Ring], height: int, width: int) -> BoolMask:
    """Even-odd over all rings at pixel centres; a centre on an edge belongs right of or below that edge."""
    ys, xs = np.mgrid[0:height, 0:width] + 0.5
    crossings = np.zeros((height, width), np.int64)
    for ring in rings:
        for a, b in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            (x0, y0), (x1, y1) = (a, b) if a[1] <= b[1] else (b, a)
            if y0 == y1:
                continue
            x = x0 + (ys - y0) * ((x1 - x0) / (y1 - y0))
            crossings += (y0 <= ys) & (ys < y1) & (x <= xs)
    return np.asarray(crossings % 2 == 1, dtype=np.bool_)


def _opencv(rings: Sequence[Ring], height: int, width: int) -> BoolMask:
    """Outline by Bresenham's rule, and between each two neighbouring edges of a row every pixel from ceil to floor."""
    mask = np.zeros((height, width), np.bool_)
    rows: list[list[int]] = [[] for _ in range(height)]
    for ring in rings:
        vertices = [(int(x), int(y)) for x, y in ring]
        for start, end in zip(vertices[-1:] + vertices[:-1], vertices, strict=True):
            (ax, ay), (bx, by), visible = _clip(start, end, height, width)
            if visible:
                _line(mask, (ax, ay), (bx, by))
            if start[1] == end[1]:
                continue
            if ay == by:
                ay, by = start[1], end[1]
            slope = _divide((bx - ax) * _ONE, by - ay)
            top, low = (start[1], end[1]) if start[1] < end[1] else (end[1], start[1])
            x, y = (ax, ay) if start[1] < end[1] else (bx, by)
            for row in range(max(top, 0), min(low, height)):
                rows[row].append(x * _ONE + (row - y) * slope)
    for row, edges in enumerate(rows):
        edges.sort()
        for left, right in zip(edges[::2], edges[1::2], strict=True):
            mask[row, max(-(-left // _ONE), 0) : max(right // _ONE + 1, 0)] = True
    return mask


def _divide(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)  # towards zero, as C does


Points = tuple[tuple[int, int], tuple[int, int], bool]


def _clip(start: tuple[int, int], end: tuple[int, int], height: int, width: int) -> Points:
    """Clips a segment to the image in integers, first against top and bottom, then against the sides."""
    p, right, bottom = [list(start), list(end)], width - 1, height - 1

    def side(i: int) -> int:
        return (p[i][0] < 0) + 2 * (p[i][0] > right)

    def code(i: int) -> int:
        return side(i) + 4 * (p[i][1] < 0) + 8 * (p[i][1] > bottom)

    c = [code(0), code(1)]
    for mask, axis, limit in ((12, 1, bottom), (3, 0, right)):
        if c[0] & c[1] or not c[0] | c[1]:
            break
        for i in (0, 1):
            if c[i] & mask:
                edge = 0 if p[i][axis] < 0 else limit
                run, rise = p[1][1 - axis] - p[0][1 - axis], p[1][axis] - p[0][axis]
                p[i][1 - axis] += _divide((edge - p[i][axis]) * run, rise)
                p[i][axis] = edge
                c[i] = side(i) if axis else 0
    return (p[0][0], p[0][1]), (p[1][0], p[1][1]), not c[0] | c[1]


def _line(mask: BoolMask, start: tuple[int, int], end: tuple[int, int]) -> None:
    (x0, y0), (x1, y1) = (start, end) if start[0] <= end[0] else (end, start)
    dx, dy, down = x1 - x0, abs(y1 - y0), 1 if y1 >= y0 else -1
    long, short = max(dx, dy), min(dx, dy)
    for step in range(long + 1):
        minor = (2 * step * short + long - 1) // (2 * long) if long else 0
        x, y = (minor, step) if dy > dx else (step, minor)
        mask[y0 + down * y, x0 + x] = True
