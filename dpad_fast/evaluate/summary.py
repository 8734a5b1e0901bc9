"""From records to numbers: every metric by every protocol, with bootstrap intervals, alone or against another run."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpad_fast.evaluate.average_precision import average_precision
from dpad_fast.evaluate.boxes import LEAST
from dpad_fast.evaluate.protocols import PROTOCOLS, THRESHOLDS
from dpad_fast.evaluate.records import MISSING

DRAWS = 1000
_AT_ONCE = 1 << 22  # numbers drawn at a time
Record = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A metric: the sum of `top` over the sum of `bottom`; None leaves a record out."""

    key: str
    label: str
    pair: Callable[[Record], tuple[float, float] | None]
    percent: bool = False


def _mean(value: Callable[[Record], float | None]) -> Callable[[Record], tuple[float, float] | None]:
    def pair(record: Record) -> tuple[float, float] | None:
        found = value(record)
        return None if found is None else (float(found), 1.0)

    return pair


def _format(key: str) -> Callable[[Record], float | None]:
    return lambda record: None if record[key] is None else float(record[key])


def _wins(record: Record) -> float | None:
    if record["s1"] is None or record["s2"] is None:
        return None if record["format_ok"] is None else 0.0
    return float(record["s1"] > record["s2"])


def _box_areas(record: Record) -> tuple[float, float] | None:
    found = record.get("box_areas")  # not there in files of older releases
    return None if found is None else (found[0], found[1])


def _box_iou(record: Record) -> float | None:
    found = _box_areas(record)
    return None if found is None else found[0] / found[1]


def _box_hit(record: Record) -> float | None:
    found = _box_iou(record)
    return None if found is None else float(found >= LEAST)


def _detected(record: Record, empty: bool) -> float | None:
    """Whether an answer covers nothing where nothing is, or something where something is; None for the other kind."""
    if record["truth_empty"] is not empty:  # None where the truth has no mask
        return None
    return float(record["predicted_empty"] is empty)


GENERAL = (
    Column("box_giou", "box gIoU", _mean(_box_iou)),
    Column("box_ciou", "box cIoU", _box_areas),
    Column("box_p50", f"box P@{LEAST} (REC Acc@{LEAST})", _mean(_box_hit), True),
    Column("n_acc", "N-acc", _mean(lambda r: _detected(r, True)), True),
    Column("t_acc", "T-acc", _mean(lambda r: _detected(r, False)), True),
    Column("chain_tokens", "chain length", _mean(lambda r: r["chain_tokens"])),
    Column("s1", "S1", _mean(lambda r: r["s1"])),
    Column("s2", "S2", _mean(lambda r: r["s2"])),
    Column("s1_wins", "S1 > S2", _mean(_wins), True),
    Column("format", "format, strict", _mean(_format("format_ok")), True),
    Column("format_tolerant", "format, tolerant", _mean(_format("lenient_ok")), True),
)


def of_protocol(name: str) -> tuple[Column, ...]:
    """The metrics under one protocol: gIoU, cIoU, P@0.5, P@0.7, P@0.9.

    Args:
        name: of `PROTOCOLS`.
    """
    protocol = PROTOCOLS[name]

    def overlap(record: Record) -> tuple[float, float] | None:
        verdict = record["protocols"][name]
        return None if verdict is None else (verdict[0], verdict[1])

    def iou(record: Record) -> float | None:
        verdict = record["protocols"][name]
        return None if verdict is None else verdict[2]

    def above(least: float) -> Callable[[Record], float | None]:
        def hit(record: Record) -> float | None:
            value = iou(record)
            left_out = protocol.targeted and record["truth_empty"]
            return None if value is None or left_out else float(value >= least)

        return hit

    precisions = [Column(f"P@{least}", f"P@{least}", _mean(above(least)), True) for least in THRESHOLDS]
    return (Column("gIoU", "gIoU", _mean(iou)), Column("cIoU", "cIoU", overlap), *precisions)


@dataclass
class Sums:
    """Sums per sample of a run, and counts. Memory grows by some hundred bytes a record.

    Attributes:
        protocols: their names.
        columns: (protocol or None, column), in order.
        ids: place of each sample.
        tables: per column, tops and bottoms per sample.
        unmasked: records whose truth has no mask.
        boxed: some answer has a box to compare; where only masks were predicted there is none.
    """

    protocols: tuple[str, ...]
    columns: list[tuple[str | None, Column]] = field(init=False)
    ids: dict[str, int] = field(default_factory=dict)
    tables: list[tuple[array[float], array[float]]] = field(init=False)
    reasons: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    differing: Counter[str] = field(default_factory=Counter)
    records: int = 0
    unmasked: int = 0
    boxed: bool = False
    boxes: list[Any] = field(default_factory=list)
    true_boxes: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.columns = [(name, column) for name in self.protocols for column in of_protocol(name)]
        self.columns += [(None, column) for column in GENERAL]
        self.tables = [(array("d"), array("d")) for _ in self.columns]

    def add(self, record: Record) -> None:
        """Count one record.

        Args:
            record: as `Ruler.measure` makes it.
        """
        place = self.ids.setdefault(record["id"], len(self.ids))
        for (_, column), (tops, bottoms) in zip(self.columns, self.tables, strict=True):
            if place == len(tops):
                tops.append(0.0)
                bottoms.append(0.0)
            pair = column.pair(record)
            if pair is not None:
                tops[place] += pair[0]
                bottoms[place] += pair[1]
        self.records += 1
        if record["reason"] is not None:
            self.reasons[record["reason"]] += 1
        own = record["protocols"]
        self.unmasked += record["truth_empty"] is None
        self.boxed |= record["reason"] != MISSING and record.get("box_areas") is not None
        for name in self.protocols:
            self.dropped[name] += own[name] is None and record["truth_empty"] is not None
            if "strict" in own:
                self.differing[name] += _differs(own["strict"], own[name])
        if "truth_boxes" in record:
            self.boxes.append(record.get("boxes", []))
            self.true_boxes.append(record["truth_boxes"])

    def matrix(self, ids: Sequence[str] | None = None) -> NDArray[np.float64]:
        """Sums per sample.

        Args:
            ids: which samples, in order; None: all.

        Returns:
            float64 [samples, columns, 2], tops and bottoms.
        """
        whole = np.array([[tops, bottoms] for tops, bottoms in self.tables]).transpose(2, 0, 1)
        return whole if ids is None else whole[[self.ids[name] for name in ids]]


def _differs(strict: Sequence[float] | None, own: Sequence[float] | None) -> bool:
    """Whether a protocol treats a sample otherwise than strict; the tiny number under a fraction is no difference."""
    if strict is None or own is None:
        return strict is not own
    return strict[:2] != own[:2] or (own[1] == 0 and strict[2] != own[2])


@dataclass(frozen=True)
class Interval:
    """A number with its bootstrap: standard error, 95 % interval, and the independent samples that it rests on."""

    value: float
    error: float
    low: float
    high: float
    units: int
    p: float = math.nan

    def plain(self) -> dict[str, Any]:
        """As JSON takes it: NaN is None, `p` only where it was asked for."""
        found = {name: None if number != number else number for name, number in vars(self).items()}
        if found["p"] is None:
            del found["p"]
        return found


def count(records: Iterable[Record], protocols: tuple[str, ...]) -> Sums:
    """Sums of records.

    Args:
        records: one at a time.
        protocols: names that every record was judged by.

    Returns:
        The sums.
    """
    sums = Sums(protocols)
    for record in records:
        sums.add(record)
    return sums


def _ratios(sums: Sums, totals: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., columns, 2] -> [..., columns]; NaN where nothing is to be divided by."""
    extra = np.array(
        [PROTOCOLS[name].total_epsilon if name and column.key == "cIoU" else 0.0 for name, column in sums.columns]
    )
    tops, bottoms = totals[..., 0], totals[..., 1] + extra
    out: NDArray[np.float64] = np.divide(tops, bottoms, out=np.full(tops.shape, np.nan), where=bottoms > 0)
    return out


def _values(sums: Sums, table: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64 [columns] of all samples; where no pixel was in any union cIoU is gIoU: the samples' IoUs are 1 or 0."""
    found = _ratios(sums, table.sum(axis=0))
    for i, (_, column) in enumerate(sums.columns):
        if column.key == "cIoU" and math.isnan(found[i]):
            found[i] = found[i - 1]
    return found


def _drawn(sums: Sums, tables: Sequence[NDArray[np.float64]], draws: int, seed: int) -> list[NDArray[np.float64]]:
    """Metrics of resampled samples, the same draw for every table: float64 [draws, columns] each."""
    units = len(tables[0])
    random = np.random.default_rng(seed)
    found: list[list[NDArray[np.float64]]] = [[] for _ in tables]
    at_once = max(1, _AT_ONCE // units)
    for first in range(0, draws, at_once):
        number = min(at_once, draws - first)
        drawn = random.integers(units, size=(number, units)) + units * np.arange(number)[:, None]
        times = np.bincount(drawn.ravel(), minlength=number * units).reshape(number, units).astype(np.float64)
        for table, out in zip(tables, found, strict=True):
            flat = times @ table.reshape(units, -1)
            out.append(_ratios(sums, flat.reshape(number, *table.shape[1:])))
    return [np.concatenate(out) for out in found]


def estimates(sums: Sums, draws: int = DRAWS, seed: int = 0) -> dict[str | None, dict[str, Interval]]:
    """Every metric with its interval, by protocol; under None those that no protocol changes.

    Args:
        sums: of a run.
        draws: resamples of whole samples.
        seed: of the resampling.

    Returns:
        Intervals by protocol and key; metrics without a record are left out.
    """
    table = sums.matrix()
    return _intervals(sums, table, [table], _values(sums, table), draws, seed)


def compare(mine: Sums, other: Sums, draws: int = DRAWS, seed: int = 0) -> dict[str | None, dict[str, Interval]]:
    """Mine minus other on the samples that both have, by a paired bootstrap: both see the same draw.

    Args:
        mine: sums of a run.
        other: of another, by the same protocols.
        draws: resamples.
        seed: of the resampling.

    Returns:
        Differences; `p` is two-sided, the share of resamples on the far side of zero, doubled.

    Raises:
        ValueError: they have no sample in common.
    """
    ids = [name for name in mine.ids if name in other.ids]
    if not ids:
        raise ValueError("--compare has no sample in common with the predictions")
    tables = [mine.matrix(ids), other.matrix(ids)]
    values = [_values(mine, table) for table in tables]
    found = _intervals(mine, tables[0], tables, values[0] - values[1], draws, seed)
    for key in _not_of_both(mine, tables, boxed=mine.boxed and other.boxed):
        found.get(None, {}).pop(key, None)
    return found


def _not_of_both(sums: Sums, tables: Sequence[NDArray[np.float64]], *, boxed: bool) -> tuple[str, ...]:
    """Keys that count an answer as 0 where nobody looked: boxes of masks, similarities without an encoder."""
    place = sums.columns.index((None, next(column for column in GENERAL if column.key == "s1")))
    compared = all(table[:, place, 1].any() for table in tables)
    return (() if boxed else ("box_giou", "box_ciou", "box_p50")) + (() if compared else ("s1_wins",))


def _intervals(
    sums: Sums,
    shape: NDArray[np.float64],
    tables: list[NDArray[np.float64]],
    values: NDArray[np.float64],
    draws: int,
    seed: int,
) -> dict[str | None, dict[str, Interval]]:
    units = len(shape)
    resampled = _drawn(sums, tables, draws, seed) if units > 1 else [np.full((1, len(values)), np.nan)] * len(tables)
    numbers = resampled[0] if len(tables) == 1 else resampled[0] - resampled[1]
    found: dict[str | None, dict[str, Interval]] = {}
    for i, (name, column) in enumerate(sums.columns):
        if math.isnan(values[i]):
            continue
        kept = numbers[:, i][~np.isnan(numbers[:, i])]
        enough = len(kept) > 1
        low, high = np.percentile(kept, [2.5, 97.5]) if enough else (math.nan, math.nan)
        error = float(np.std(kept, ddof=1)) if enough else math.nan
        p = math.nan
        if len(tables) > 1 and enough:
            p = min(1.0, 2 * float(min((kept <= 0).mean(), (kept >= 0).mean())))
        used = int(np.count_nonzero(shape[:, i, 1])) or units  # a cIoU without a union is of all
        found.setdefault(name, {})[column.key] = Interval(float(values[i]), error, float(low), float(high), used, p)
    return found


def box_ap(sums: Sums) -> dict[str, float]:
    """Box AP over the samples that have several objects; empty where there is none.

    Args:
        sums: of a run.

    Returns:
        "AP50" and "AP" in 0..1.
    """
    if not sums.true_boxes:
        return {}
    at_half, mean = average_precision(sums.boxes, sums.true_boxes)
    return {} if math.isnan(mean) else {"AP50": at_half, "AP": mean}


def answered(sums: Sums) -> int:
    """Records that somebody answered."""
    return sums.records - sums.reasons[MISSING]
