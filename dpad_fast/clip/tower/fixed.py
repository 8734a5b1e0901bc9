"""Packed texts in tables of a fixed shape: what a captured graph of the text tower reads.

A graph fixes every shape and every number that the host passes to a kernel. So a bucket has room for `rows` rows,
`rows // 4` sequences and `2 * rows` keys, and a work goes into the smallest bucket that holds it. Rows cost products.
Empty sequences and the room for keys cost next to nothing, which is why there is one size for the three and not a grid
of sizes: a quarter is enough for captions that add four tokens each, twice for prefixes that are shared by half.

What is beyond the work is padding: token 0 in rows that no sequence has, and sequences without queries and keys. Every
operation but attention works row by row, and the keys of padding are copies of row 0, so that a kernel which reads a
tile beyond a sequence's end finds finite values. What attention leaves in padding rows (some kernels: nothing, so that
it is whatever lay there) stays in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from dpad_fast._native.numbers import int64
from dpad_fast.clip.tower.gpu_attention import Bucket, Padded, Ragged
from dpad_fast.clip.tower.packing import PackedTokens, Paths, whole_sequences

Tensor = torch.Tensor
# Per sequence and per key: how many rows a bucket has.
_ROWS_PER_SEQUENCE = 4
_KEYS_PER_ROW = 2
# Slots of a bin of `Bins`: several captions, and a multiple of what kernels align masks to.
_BIN = 128
_ALIGN = 8


@dataclass(frozen=True)
class Work:
    """Packed texts, ready for a bucket.

    Attributes:
        need: the rows that a bucket must have.
        parts: int64 vectors, in the order of `Tables.capacities`.
        fill: per part what the room beyond it is filled with.
    """

    need: int
    parts: tuple[Tensor, ...]
    fill: tuple[int, ...]


@dataclass(frozen=True)
class Description:
    """A work as the text tower reads it, on the device; `paths` know their description for attention."""

    tokens: Tensor
    positions: Tensor
    ends: Tensor
    paths: Paths


class Tables(Protocol):
    """How a work is laid out for one kind of attention."""

    def work(self, packed: PackedTokens) -> Work:
        """Lays packed texts out."""
        ...

    def capacities(self, rows: int) -> tuple[int, ...]:
        """The lengths of a bucket's parts."""
        ...

    def describe(self, parts: Sequence[Tensor]) -> Description:
        """Reads a bucket's parts, which lie on the device. Nothing in it waits for the GPU or asks the host."""
        ...


def sequences_of(rows: int) -> int:
    """The most sequences of a bucket of so many rows."""
    return max(1, rows // _ROWS_PER_SEQUENCE)


def rows_of(rows: int, keys: int, sequences: int) -> int:
    """The rows that a bucket must have, so that it has room for all three."""
    return max(rows, -(-keys // _KEYS_PER_ROW), sequences * _ROWS_PER_SEQUENCE)


def write(work: Work, capacities: Sequence[int], out: Tensor) -> None:
    """Writes a work, padded to the capacities, into int64 [sum of capacities]."""
    for part, value, room in zip(work.parts, work.fill, torch.split(out, list(capacities)), strict=True):
        room[: len(part)] = part
        room[len(part) :] = value


class VariableLengths:
    """For variable-length attention, whose lengths lie on the device; only the longest one is the host's.

    Args:
        context: the most tokens of a text.
    """

    def __init__(self, context: int) -> None:
        self._context = context

    def work(self, packed: PackedTokens) -> Work:
        """See `Tables`. Empty sequences start where the last one ends."""
        paths = packed.paths
        asks = torch.arange(paths.count + 1, device="cpu")
        starts = (paths.queries, paths.offsets, asks)
        return Work(
            rows_of(len(packed.tokens), len(paths.path), paths.count),
            (packed.tokens, packed.positions, paths.ends, paths.path, *starts),
            (0, 0, 0, 0, *(int(part[-1]) for part in starts)),
        )

    def capacities(self, rows: int) -> tuple[int, ...]:
        """See `Tables`."""
        sequences = sequences_of(rows)
        return (rows, rows, sequences, _KEYS_PER_ROW * rows, *[sequences + 1] * 3)

    def describe(self, parts: Sequence[Tensor]) -> Description:
        """See `Tables`."""
        tokens, positions, ends, keys = parts[:4]
        starts_q, starts_k, asks = (part.to(torch.int32) for part in parts[4:])
        every = Ragged(keys, starts_q, starts_k, self._context, self._context, causal=True)
        last = Ragged(keys, asks, starts_k, 1, self._context, causal=False)
        return Description(tokens, positions, ends, _described("ragged", tokens.device, every, last))


class Bins:
    """For attention that needs padding: sequences side by side in bins of one length, and a mask that parts them.

    Buckets by length, as for works of any shape, would be a graph for every combination of counts. Here the shape
    follows from the number of rows alone. A bin has room for the longest text.

    Args:
        context: the most tokens of a text.
    """

    def __init__(self, context: int) -> None:
        self._width = max(_BIN, -(-context // _ALIGN) * _ALIGN)

    def work(self, packed: PackedTokens) -> Work:
        """See `Tables`. Two neighbouring bins hold more than one bin's length, so that half of the room is used."""
        paths = packed.paths
        lengths, width, bases, free = paths.lengths, self._width, [], 0
        for length in lengths:
            if free % width + length > width:
                free += width - free % width
            bases.append(free)
            free += length
        base, counts = int64(bases), int64(lengths)
        which = torch.repeat_interleave(counts)
        place = torch.arange(len(paths.path), device="cpu") - paths.offsets[which]
        slots = base[which] + place
        bins = -(-free // width)
        rows, back, asks = torch.zeros(3, bins * width, dtype=torch.int64, device="cpu")
        rows[slots], back[slots] = paths.path, place
        ends = base + counts - 1
        asks[ends] = torch.arange(paths.count, device="cpu")
        order = slots[place >= paths.first[which]]
        # The last bin is there as soon as the room for keys reaches into it.
        return Work(
            rows_of(len(packed.tokens), (bins - 1) * width + 1, paths.count),
            (packed.tokens, packed.positions, paths.ends, rows, back, asks, order, ends),
            (0,) * 8,
        )

    def capacities(self, rows: int) -> tuple[int, ...]:
        """See `Tables`."""
        slots = -(-_KEYS_PER_ROW * rows // self._width) * self._width
        sequences = sequences_of(rows)
        return (rows, rows, sequences, slots, slots, slots, rows, sequences)

    def describe(self, parts: Sequence[Tensor]) -> Description:
        """See `Tables`. A slot sees itself and the `back` slots before it, its sequence's earlier positions."""
        tokens, positions, ends, *slots, order, last = parts
        rows, back, asks = (part.view(-1, self._width) for part in slots)
        here = torch.arange(self._width, device=tokens.device)
        seen = ((here <= here[:, None]) & (here >= (here - back)[:, :, None]))[:, None]
        every = Padded((Bucket(rows, rows, seen),), order)
        read = Padded((Bucket(rows, asks, seen),), last)
        return Description(tokens, positions, ends, _described("padded", tokens.device, every, read))


def _described(kind: str, device: torch.device, every: object, last: object) -> Paths:
    """Paths that only hold a description: of attention with every row as a query, and with the rows that are read."""
    paths = whole_sequences(1, 1)
    paths.kept((kind, device), lambda: every)
    paths.only_ends.kept((kind, device), lambda: last)
    return paths
