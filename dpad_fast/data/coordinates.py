"""Which coordinates boxes are written in: pixels of the picture or of a resized one, 0-1000 or 0-1, and in which order.

A reading is a space and an order of the four numbers. Under each reading every box becomes a box in pixels of its
picture, and the rules are:

* Against the truth (masks, polygons, boxes). A reading is sure when (1) half of the boxes or more overlap their truth
  with an IoU of at least 0.5; (2) its median error 1 - IoU is at most half of every other reading's, or 95 % of its
  boxes are right to 1.5 pixels and less than half of the other's; and (3) it is the closer one so often that a coin
  would be with a probability of at most 0.001, split over the readings (sign test; rows on which the two agree to an
  IoU of 0.98 do not count). Two spaces that differ by at most 5 % of the picture on half of the rows are told apart by
  boxes that are right to the pixel alone, for a model that draws all boxes a little to one side would look like the
  other one; otherwise the verdict names both.
* Without truth nothing is sure. A reading is ruled out where boxes would have no area or lie off their picture, in 3
  rows and a tenth of all rows at least. One is "likely" when at most 2 % of its own boxes are off and either every
  other reading is ruled out and its boxes reach 0.7 of the picture's width and height, or the others stand but stay
  within 0.75 of the picture while it reaches 0.9.

Less than 8 boxes, or 20 without truth, tell nothing. In all other cases the answer is that it cannot be told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpad_fast.types import Box, Size

ORDERS = ("xyxy", "xywh", "cxcywh")
UNITS = {"0-1000": 1000.0, "0-1": 1.0}
ORIGINAL = "original"
"""The space of the picture's own pixels."""

LEAST_ROWS = 8
_CHANCE = 1e-3  # of a sure verdict for a reading that is no better than the other
_SAME = 0.98  # IoU at which two readings say the same of a row
_NEAR = 0.05  # of the picture: readings of one order that a model's habit can turn into one another
_EXACT = 1.5  # pixels
_LEAST_ALONE = 20  # rows for a verdict without truth
_Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class CoordinateReading:
    """One way to read the numbers.

    Attributes:
        space: "original", "resized", the name of a size that was tried, "0-1000" or "0-1".
        order: "xyxy", "xywh" or "cxcywh".
        fit: median IoU with the truth, or None where there is none.
        off: share of boxes that would have no area or lie off their picture.
        reach: how far along the picture they reach: the 95th percentile of x2 / width or y2 / height, the smaller one.
    """

    space: str
    order: str
    fit: float | None
    off: float
    reach: float

    def __str__(self) -> str:
        return f"{self.space} {self.order}"


@dataclass(frozen=True)
class Verdict:
    """The coordinates that boxes are in, as far as they can be told.

    Attributes:
        space: of the best reading; None where it cannot be told.
        order: likewise.
        sure: "sure", "likely" or "no".
        chance: an upper bound on the probability of so clear a result from readings that are equally good; None where
            the verdict does not rest on a count of rows against the truth.
        same: the best reading's space, and those that nearly give the same boxes, so that this set cannot tell
            them apart.
        rows: how many boxes were looked at.
        why: in words.
        readings: every reading that was tried, the best first.
    """

    space: str | None
    order: str | None
    sure: str
    chance: float | None
    same: tuple[str, ...]
    rows: int
    why: str
    readings: tuple[CoordinateReading, ...] = field(repr=False, default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with the five best readings."""
        rows = [
            {"space": r.space, "order": r.order, "fit": r.fit, "off": r.off, "reach": r.reach}
            for r in self.readings[:5]
        ]
        plain = {name: getattr(self, name) for name in ("space", "order", "sure", "chance", "rows", "why")}
        return {**plain, "same": list(self.same), "readings": rows}


def coordinate_space(
    boxes: Sequence[Sequence[float]],
    sizes: Sequence[Size],
    truths: Sequence[Box | None] | None = None,
    *,
    resized: Sequence[Size | None] | None = None,
    tried: Mapping[str, Sequence[Size | None]] | None = None,
) -> Verdict:
    """Tells in which coordinates boxes are written; see this module for the rules.

    Args:
        boxes: N times four numbers, as they stand in the data or in answers.
        sizes: N (width, height) of the pictures.
        truths: N boxes (x1, y1, x2, y2) in pixels of these pictures, such as a mask's; None where there is none.
        resized: N sizes at which a model saw the pictures, None where it is not known; the space "resized".
        tried: more sizes to try, by the name that the verdict shall call them.

    Returns:
        The verdict.

    Raises:
        ValueError: lengths differ, or a box is not four finite numbers (names its index).
    """
    numbers = _read(boxes, sizes, truths)
    spaces = _spaces(len(boxes), sizes, resized, tried or {})
    known = np.array([truths is not None and truths[i] is not None for i in range(len(boxes))])
    least = LEAST_ROWS if known.sum() >= min(LEAST_ROWS, max(len(boxes), 1)) else _LEAST_ALONE
    if len(boxes) < least:
        why = f"{len(boxes)} boxes are too few to tell; {least} or more can"
        return Verdict(None, None, "no", None, (), len(boxes), why)
    units = np.array(sizes, np.float64).reshape(-1, 2)
    views = {
        (space, order): _corners(numbers, order) * np.tile(units / scale, 2)
        for space, scale in spaces.items()
        for order in ORDERS
    }
    if known.sum() >= LEAST_ROWS:
        assert truths is not None
        truth = np.array([box for box in truths if box is not None], np.float64)
        views = {name: view[known] for name, view in views.items()}
        return _against_truth(views, truth, units[known])
    return _without_truth(views, units)


def _read(boxes: Any, sizes: Any, truths: Any) -> _Boxes:
    for name, values in (("sizes", sizes), ("truths", truths)):
        if values is not None and len(values) != len(boxes):
            raise ValueError(f"{name} has {len(values)} entries for {len(boxes)} boxes")
    out = np.zeros((len(boxes), 4))
    for i, box in enumerate(boxes):
        try:
            out[i] = [float(value) for value in box]
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"boxes[{i}] must be four numbers, got {box!r:.80}") from None
        if not np.isfinite(out[i]).all():
            raise ValueError(f"boxes[{i}] must be four finite numbers, got {box!r:.80}")
    return np.clip(out, -1e9, 1e9)  # products of these are numbers still


def _spaces(
    count: int, sizes: Sequence[Size], resized: Sequence[Size | None] | None, tried: Mapping[str, Any]
) -> dict[str, _Boxes]:
    """The (x, y) span of the whole picture in each space, [N, 2]."""
    named = {"resized": resized, **tried} if resized is not None else dict(tried)
    spaces = {ORIGINAL: np.array(sizes, np.float64).reshape(-1, 2)}
    for name, found in named.items():
        if len(found) != count:
            raise ValueError(f"sizes of {name} has {len(found)} entries for {count} boxes")
        spaces[name] = np.array([own or size for own, size in zip(found, sizes, strict=True)], np.float64)
    return spaces | {name: np.full((count, 2), unit) for name, unit in UNITS.items()}


def _corners(boxes: _Boxes, order: str) -> _Boxes:
    if order == "xyxy":
        return boxes
    first, second = boxes[:, :2], boxes[:, 2:]
    low = first if order == "xywh" else first - second / 2
    return np.concatenate([low, low + second], axis=1)


def _iou(a: _Boxes, b: _Boxes) -> NDArray[np.float64]:
    """[N], 0 where a box has no area."""
    side = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    both = side[:, 0] * side[:, 1]
    areas = [np.prod(np.clip(box[:, 2:] - box[:, :2], 0, None), axis=1) for box in (a, b)]
    shares: NDArray[np.float64] = np.zeros(len(a))
    np.divide(both, areas[0] + areas[1] - both, out=shares, where=both > 0)
    return shares


def _off_picture(view: _Boxes, units: _Boxes) -> NDArray[np.bool_]:
    """Boxes without area, or off the picture by more than 2 % of it and 2 pixels."""
    slack = np.maximum(units * 0.02, 2)
    empty = (view[:, :2] >= view[:, 2:]).any(axis=1)
    beyond = np.concatenate([view[:, :2] < -slack, view[:, 2:] > units + slack], axis=1)
    return np.asarray(empty | beyond.any(axis=1))


def _readings(
    views: Mapping[tuple[str, str], _Boxes], units: _Boxes, fits: Mapping[Any, Any]
) -> list[CoordinateReading]:
    found = []
    for (space, order), view in views.items():
        reach = float(np.percentile(view[:, 2:] / units, 95, axis=0).min())
        fit = fits.get((space, order))
        off = float(_off_picture(view, units).mean())
        found.append(CoordinateReading(space, order, None if fit is None else float(np.median(fit)), off, reach))
    return found


def _against_truth(views: dict[tuple[str, str], _Boxes], truth: _Boxes, units: _Boxes) -> Verdict:
    fits = {name: _iou(view, truth) for name, view in views.items()}
    near = {name: (np.abs(view - truth).max(axis=1) <= _EXACT).mean() for name, view in views.items()}
    order = sorted(
        views, key=lambda name: (-float(np.median(fits[name])), -float(near[name]), -float(fits[name].mean()))
    )
    best, n = order[0], len(truth)
    readings = tuple(sorted(_readings(views, units, fits), key=lambda r: order.index((r.space, r.order))))
    alike = {
        name for name in order if name[1] == best[1] and _corner_distance(views[best], views[name], units) <= _NEAR
    }
    chances = {name: _chance(fits[best], fits[name], views[best], views[name]) * len(views) for name in order}
    exact = {name for name in order if near[best] >= 0.95 and near[name] < 0.5}
    halved = {name for name in order if 1 - np.median(fits[best]) <= 0.5 * (1 - np.median(fits[name]))}
    told_apart = {name for name in exact | (halved - alike) if chances[name] <= _CHANCE}
    same = [name for name in order if name in alike - told_apart]
    others = [name for name in order if name not in same]
    share = float((fits[best] >= 0.5).mean())
    spaces = tuple(dict.fromkeys(space for space, _ in same))
    if share < 0.5:
        why = f"no reading fits: the best, {readings[0]}, overlaps {share:.0%} of {n} truths with an IoU of 0.5 or more"
        return Verdict(None, None, "no", None, (), n, why, readings)
    chance = min(1.0, max((chances[name] for name in others), default=1.0))
    told = f"{readings[0]}: median IoU with {n} truths {readings[0].fit:.2f}"
    if others:
        told += f", next best {others[0][0]} {others[0][1]} {float(np.median(fits[others[0]])):.2f}"
    if not told_apart.issuperset(others):
        return Verdict(None, None, "no", chance, spaces, n, f"two readings fit nearly as well; {told}", readings)
    if len(spaces) > 1:
        told += f"; {', '.join(spaces)} give much the same boxes here, so this set cannot tell them apart"
    return Verdict(best[0], best[1], "sure", chance, spaces, n, told, readings)


def _corner_distance(a: _Boxes, b: _Boxes, units: _Boxes) -> float:
    """How far two readings' corners lie apart, as a share of the picture: the median of the rows."""
    return float(np.median((np.abs(a - b) / np.tile(units, 2)).max(axis=1)))


def _chance(best: _Boxes, other: _Boxes, view: _Boxes, other_view: _Boxes) -> float:
    """The probability that a fair coin prefers `best` in as many rows, ties left out."""
    differ = (_iou(view, other_view) < _SAME) & (best != other)
    wins, count = int((best > other)[differ].sum()), int(differ.sum())
    # Exact, with Python's integers in place of logarithms: 2^-n times a sum of binomials.
    return float(sum(math.comb(count, k) for k in range(wins, count + 1)) / 2**count)


def _without_truth(views: dict[tuple[str, str], _Boxes], units: _Boxes) -> Verdict:
    n = len(units)
    readings = sorted(_readings(views, units, {}), key=lambda r: (r.off, -min(r.reach, 1.0)))
    standing = [r for r in readings if r.off * n < 3 or r.off < 0.1]
    if not standing:
        why = (
            f"no reading fits: under the best, {readings[0]}, {readings[0].off:.0%} of {n} boxes are off their picture"
        )
        return Verdict(None, None, "no", None, (), n, why, tuple(readings))
    best = standing[0]
    view = views[best.space, best.order]
    same = [r for r in standing if float((_iou(view, views[r.space, r.order]) >= _SAME).mean()) > 0.5]
    spaces = tuple(dict.fromkeys(r.space for r in same))
    others = [r for r in standing if r not in same]
    told = f"{best}: {best.off:.0%} of {n} boxes off their picture, they reach to {best.reach:.2f} of it"
    if len(spaces) > 1:
        told += f"; {', '.join(spaces)} give much the same boxes here"
    if best.off <= 0.02 and best.reach >= 0.7 and not others:
        why = f"{told}; every other reading has boxes off their picture or without area"
        return Verdict(best.space, best.order, "likely", None, spaces, n, why, tuple(readings))
    if best.off <= 0.02 and best.reach >= 0.9 and all(r.reach <= 0.75 for r in others):
        why = f"{told}; {others[0]} would be possible, but its boxes end at {max(r.reach for r in others):.2f}"
        return Verdict(best.space, best.order, "likely", None, spaces, n, why, tuple(readings))
    names = ", ".join(map(str, standing[:4]))
    why = f"several readings are possible without a truth to compare with: {names}"
    return Verdict(None, None, "no", None, (), n, why, tuple(readings))
