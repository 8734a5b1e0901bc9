"""Run lengths that the extension refuses and pycocotools takes: short of the picture, beyond it, or of very long sides.

The extension reads run lengths into masks, so they must fill one of at most 65,535 a side. pycocotools measures and
joins the runs themselves; this module does the same in NumPy, as the fallback of `coco_mask`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_TOTAL_LIMIT = 1 << 32  # pycocotools counts in 32 bits
_Ints = npt.NDArray[np.int64]


class Runs(NamedTuple):
    """A mask's size and its runs down the columns, background first; they may end before or after the picture."""

    height: int
    width: int
    counts: _Ints

    @property
    def ends(self) -> _Ints:
        """Where each run ends, [R]."""
        return np.cumsum(self.counts)

    @property
    def total(self) -> int:
        """Pixels in all runs."""
        return int(self.counts.sum())

    @property
    def area(self) -> int:
        """Pixels in the runs of the mask."""
        return int(self.counts[1::2].sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x1, y1, x2, y2), x2 and y2 one past the last pixel; zeros for an empty mask."""
        ends = self.ends[1::2]
        seen = self.counts[1::2] > 0
        first, last = (ends - self.counts[1::2])[seen], ends[seen] - 1
        if not len(first) or self.height == 0:
            return 0, 0, 0, 0
        (x1, y1), (x2, y2) = ((at // self.height, at % self.height) for at in (first, last))
        tall = bool((x1 < x2).any())  # a run over a column's end has pixels in the last row and in the first
        top, bottom = (0, self.height - 1) if tall else (int(y1.min()), int(y2.max()))
        return min(int(x1.min()), self.width), top, int(x2.max()) + 1, bottom + 1  # runs beyond the picture, as theirs

    def to_dict(self) -> dict[str, Any]:
        """In COCO's compressed form."""
        out = bytearray()
        counts = self.counts.tolist()
        for i, count in enumerate(counts):
            value, more = count - counts[i - 2] if i > 2 else count, True
            while more:
                bits, value = value & 31, value >> 5
                more = value != (-1 if bits & 16 else 0)
                out.append(48 + bits + (32 if more else 0))
        return {"size": [self.height, self.width], "counts": bytes(out)}

    def pixels(self) -> npt.NDArray[np.uint8]:
        """The mask's pixels down its columns; all runs together must fill it."""
        return np.repeat((np.arange(len(self.counts)) % 2).astype(np.uint8), self.counts)


def read(rle: object) -> Runs | None:
    """The runs of a dictionary, compressed or not; None where pycocotools would not read them, or read noise."""
    if not isinstance(rle, dict) or not {"size", "counts"} <= rle.keys():
        return None
    size, counts = rle["size"], rle["counts"]
    try:
        height, width = (int(side) if isinstance(side, float | np.floating) else side.__index__() for side in size)
        if isinstance(counts, str):
            counts = counts.encode("ascii")
        if not isinstance(counts, bytes | list | tuple | np.ndarray):
            return None
        numbers = _numbers(counts) if isinstance(counts, bytes) else np.array(counts, np.uint32).astype(np.int64)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None
    if min(height, width) < 0 or numbers.ndim != 1 or (numbers < 0).any() or (numbers >= _TOTAL_LIMIT).any():
        return None
    return Runs(height, width, numbers) if numbers.sum() < _TOTAL_LIMIT else None


def read_all(rles: Any) -> list[Runs] | None:
    """The runs of each dictionary; None where one cannot be read."""
    runs = [read(rle) for rle in rles]
    return None if any(one is None for one in runs) else [one for one in runs if one is not None]


def encode(columns: npt.NDArray[Any]) -> dict[str, Any]:
    """Run lengths of a mask [H, W] in Fortran order."""
    flat = np.concatenate([[False], columns.ravel(order="F") != 0])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], changes, [columns.size]])).astype(np.int64)
    return Runs(columns.shape[0], columns.shape[1], counts).to_dict()


def merge(runs: Sequence[Runs], intersect: bool) -> Runs:
    """Union or intersection of masks of one size, whose runs must reach equally far.

    Raises:
        ValueError: they do not (pycocotools never returns then); names both.
    """
    merged = runs[0]
    for i, other in enumerate(runs[1:], 1):
        if merged.total != other.total:
            raise ValueError(
                f"rleObjs[{i}]: counts add up to {other.total}, but those of rleObjs[0] to {merged.total}: masks that "
                "end at different pixels cannot be joined"
            )
        starts, a, b = _stretches(merged, other)
        joined = a & b if intersect else a | b
        changes = starts[np.flatnonzero(joined != np.concatenate([[False], joined[:-1]]))]
        counts = np.diff(np.concatenate([[0], changes, [merged.total]])).astype(np.int64)
        merged = Runs(merged.height, merged.width, counts)
    return merged


def iou(dt: Sequence[Runs], gt: Sequence[Runs], crowd: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """IoU of all pairs, [M, N] in Fortran order, as `coco_mask.iou`.

    Raises:
        ValueError: the boxes of a pair meet, and their runs do not reach equally far; names both.
    """
    out = np.zeros((len(dt), len(gt)), np.float64, order="F")
    for d, a in enumerate(dt):
        for g, b in enumerate(gt):
            if _boxes_apart(a.box, b.box):
                continue
            if (a.height, a.width) != (b.height, b.width):
                out[d, g] = -1
                continue
            if a.total != b.total:
                raise ValueError(
                    f"dt[{d}]: counts add up to {a.total}, but those of gt[{g}] to {b.total}: masks that end at "
                    "different pixels cannot be compared"
                )
            starts, in_a, in_b = _stretches(a, b)
            both = int(np.diff(np.append(starts, a.total))[in_a & in_b].sum())
            if both:
                out[d, g] = both / (a.area if crowd[g] else a.area + b.area - both)
    return out


def _stretches(a: Runs, b: Runs) -> tuple[_Ints, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Starts of the stretches in which neither mask changes, and whether each is in `a` and in `b`."""
    starts = np.unique(np.concatenate([[0], a.ends, b.ends])).astype(np.int64)
    starts = starts[starts < a.total]
    in_a, in_b = (np.searchsorted(runs.ends, starts, side="right") % 2 == 1 for runs in (a, b))
    return starts, in_a, in_b


def _boxes_apart(a: Sequence[int], b: Sequence[int]) -> bool:
    return min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def _numbers(text: bytes) -> _Ints:
    counts: list[int] = []
    value = shift = 0
    for symbol in text:
        bits = symbol - 48
        if not 0 <= bits < 64 or shift > 35:
            raise ValueError
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError
    return np.array(counts, np.int64)
