"""Token sequences packed for a text tower, the slow plain way: shared prefixes once, and tables for graphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Row = tuple[int, ...]
Part = tuple[list[int], int]
"""Numbers, and what the room behind them is filled with."""


@dataclass(frozen=True)
class Packed:
    """S sequences over R rows, as `dpad_fast.clip.tower.packing.PackedTokens` has them."""

    tokens: list[int]
    positions: list[int]
    path: list[int]
    offsets: list[int]
    first: list[int]
    last: list[int]


def cut(row: Row, read: int | str | None) -> Row:
    """A sequence up to the token that is read: that id, the first of its "largest", or its last one."""
    if read is None:
        return row
    if read == "largest":
        return row[: row.index(max(row)) + 1]
    return row[: row.index(read) + 1] if read in row else row[:1]  # type: ignore[arg-type]


def in_order(rows: Sequence[Row]) -> tuple[list[Row], list[int]]:
    """The different ones of N sequences in lexicographic order, and for each of the N where it stands among them."""
    order = sorted(set(rows))
    return order, [order.index(row) for row in rows]


def pieces(rows: Sequence[Row], tokens: int, sequences: int | None = None) -> Iterator[Sequence[Row]]:
    """Neighbouring sequences in pieces of at most `tokens` tokens and `sequences` sequences, but at least of one."""
    start = 0
    while start < len(rows):
        stop, count = start, 0
        while stop < len(rows) and (stop == start or (count + len(rows[stop]) <= tokens and stop - start != sequences)):
            count += len(rows[stop])
            stop += 1
        yield rows[start:stop]
        start = stop


def pack(rows: Sequence[Row]) -> Packed:
    """Packs different sequences in lexicographic order."""
    packed = Packed([], [], [], [0], [], [])
    before: Row = ()
    way: list[int] = []
    for row in rows:
        shared, most = 0, min(len(before), len(row) - 1)
        while shared < most and before[shared] == row[shared]:
            shared += 1
        way = way[:shared] + list(range(len(packed.tokens), len(packed.tokens) + len(row) - shared))
        packed.tokens.extend(row[shared:])
        packed.positions.extend(range(shared, len(row)))
        packed.path.extend(way)
        packed.offsets.append(len(packed.path))
        packed.first.append(shared)
        packed.last.append(len(row))
        before = row
    return packed


def variable_lengths(packed: Packed) -> list[Part]:
    """The parts of `dpad_fast.clip.tower.fixed.VariableLengths`."""
    queries = [0]
    for first, last in zip(packed.first, packed.last, strict=True):
        queries.append(queries[-1] + last - first)
    starts = (queries, packed.offsets, list(range(len(packed.first) + 1)))
    return [*_rows(packed), (packed.path, 0), *((part, part[-1]) for part in starts)]


def bins(packed: Packed, width: int) -> tuple[int, list[Part]]:
    """How many bins of `width` slots are needed, and the parts of `dpad_fast.clip.tower.fixed.Bins`."""
    bases, free = [], 0
    for length in packed.last:
        if free % width + length > width:
            free += width - free % width
        bases.append(free)
        free += length
    count = -(-free // width)
    rows, back, asks = ([0] * (count * width) for _ in range(3))
    order: list[int] = []
    ends: list[int] = []
    for i, (base, first, last) in enumerate(zip(bases, packed.first, packed.last, strict=True)):
        for place in range(last):
            rows[base + place] = packed.path[packed.offsets[i] + place]
            back[base + place] = place
        order += range(base + first, base + last)
        ends.append(base + last - 1)
        asks[ends[-1]] = i
    return count, [*_rows(packed), (rows, 0), (back, 0), (asks, 0), (order, 0), (ends, 0)]


def padded(parts: Sequence[Part], rooms: Sequence[int]) -> list[int]:
    """The parts one behind the other, each filled up to its room."""
    found: list[int] = []
    for (part, fill), room in zip(parts, rooms, strict=True):
        if len(part) > room:
            raise ValueError(f"{len(part)} numbers do not fit a room for {room}")
        found += part + [fill] * (room - len(part))
    return found


def _rows(packed: Packed) -> list[Part]:
    ends = [packed.path[stop - 1] for stop in packed.offsets[1:]]
    return [(packed.tokens, 0), (packed.positions, 0), (ends, 0)]
