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

from dpad_fast._native import extension
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
class Description:
    """A work as the text tower reads it, on the device; `paths` know their description for attention."""

    tokens: Tensor
    positions: Tensor
    ends: Tensor
    paths: Paths


class Tables(Protocol):
    """How packed texts are laid out for one kind of attention."""

    def need(self, packed: PackedTokens) -> int:
        """The rows that a bucket must have for them."""
        ...

    def capacities(self, rows: int) -> tuple[int, ...]:
        """The lengths of the parts of a bucket of so many rows."""
        ...

    def write(self, packed: PackedTokens, rows: int, out: Tensor) -> None:
        """Lays them out in int64 [sum of the capacities] on the host, the room behind each part filled."""
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


class VariableLengths:
    """For variable-length attention, whose lengths lie on the device; only the longest one is the host's.

    Args:
        context: the most tokens of a text.
    """

    def __init__(self, context: int) -> None:
        self._context = context

    def need(self, packed: PackedTokens) -> int:
        """See `Tables`."""
        return rows_of(packed.rows, packed.keys, packed.count)

    def capacities(self, rows: int) -> tuple[int, ...]:
        """See `Tables`."""
        sequences = sequences_of(rows)
        return (rows, rows, sequences, _KEYS_PER_ROW * rows, *[sequences + 1] * 3)

    def write(self, packed: PackedTokens, rows: int, out: Tensor) -> None:
        """See `Tables`. Empty sequences start where the last one ends."""
        extension.C.write_variable_lengths(packed.address, *_checked(self.capacities(rows), out))

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

    def need(self, packed: PackedTokens) -> int:
        """See `Tables`. Two neighbouring bins hold more than one bin's length, so that half of the room is used."""
        bins = extension.C.bins_of(packed.address, self._width)
        # The last bin is there as soon as the room for keys reaches into it.
        return rows_of(packed.rows, (bins - 1) * self._width + 1, packed.count)

    def capacities(self, rows: int) -> tuple[int, ...]:
        """See `Tables`."""
        slots = -(-_KEYS_PER_ROW * rows // self._width) * self._width
        sequences = sequences_of(rows)
        return (rows, rows, sequences, slots, slots, slots, rows, sequences)

    def write(self, packed: PackedTokens, rows: int, out: Tensor) -> None:
        """See `Tables`."""
        extension.C.write_bins(packed.address, self._width, *_checked(self.capacities(rows), out))

    def describe(self, parts: Sequence[Tensor]) -> Description:
        """See `Tables`. A slot sees itself and the `back` slots before it, its sequence's earlier positions."""
        tokens, positions, ends, *slots, order, last = parts
        rows, back, asks = (part.view(-1, self._width) for part in slots)
        here = torch.arange(self._width, device=tokens.device)
        seen = ((here <= here[:, None]) & (here >= (here - back)[:, :, None]))[:, None]
        every = Padded((Bucket(rows, rows, seen),), order)
        read = Padded((Bucket(rows, asks, seen),), last)
        return Description(tokens, positions, ends, _described("padded", tokens.device, every, read))


def _checked(capacities: tuple[int, ...], out: Tensor) -> tuple[tuple[int, ...], int]:
    """The rooms of the parts, and the address of memory that has all of them."""
    assert (out.dtype, out.shape) == (torch.int64, (sum(capacities),))
    assert out.is_contiguous()
    return capacities, out.data_ptr()


def _described(kind: str, device: torch.device, every: object, last: object) -> Paths:
    """Paths that only hold a description: of attention with every row as a query, and with the rows that are read."""
    paths = whole_sequences(1, 1)
    paths.kept((kind, device), lambda: every)
    paths.only_ends.kept((kind, device), lambda: last)
    return paths
