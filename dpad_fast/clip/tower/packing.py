"""Token sequences packed without padding, where the prefixes that sequences share are one set of rows.

This is exact for a causal tower: a token's values depend only on the tokens up to it, so equal prefixes have equal
values, and the tokens after the one that is read do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from dpad_fast._native.numbers import int64
from dpad_fast.cached import cached_property
from dpad_fast.clip.tokens import Ids


@dataclass(frozen=True)
class Paths:
    """S sequences over R shared rows.

    Attributes:
        path: int64 [sum of lengths], the rows of each sequence in order.
        offsets: int64 [S + 1], where each sequence starts in `path`.
        first: int64 [S], the first position of each sequence that is a query.
        last: int64 [S], the position after its last query.
        causal: whether a position sees only those up to it.
    """

    path: torch.Tensor
    offsets: torch.Tensor
    first: torch.Tensor
    last: torch.Tensor
    causal: bool
    _cached: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def kept(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """The result of `make`, cached under `key`: every layer of a tower needs the same one."""
        if key not in self._cached:
            self._cached[key] = make()
        return self._cached[key]

    @property
    def count(self) -> int:
        """S."""
        return int(self.first.numel())

    @cached_property
    def lengths(self) -> list[int]:
        """Length of each sequence."""
        lengths: list[int] = self.offsets.diff().tolist()
        return lengths

    @cached_property
    def queries(self) -> torch.Tensor:
        """int64 [S + 1], where the queries of each sequence start among all queries."""
        zero = torch.zeros(1, dtype=torch.int64, device="cpu")
        return torch.cat([zero, (self.last - self.first).cumsum(0)])

    @cached_property
    def ends(self) -> torch.Tensor:
        """int64 [S], the last row of each sequence."""
        return self.path[self.offsets[1:] - 1]

    @cached_property
    def only_ends(self) -> Paths:
        """The same sequences with their last position as the only query."""
        last = self.offsets.diff()
        return Paths(self.path, self.offsets, last - 1, last, self.causal)


@dataclass(frozen=True)
class PackedTokens:
    """Packed token sequences: `paths`, and int64 [R] `tokens` and `positions` of the rows."""

    paths: Paths
    tokens: torch.Tensor
    positions: torch.Tensor


def pack_tokens(rows: Sequence[Sequence[int]]) -> PackedTokens:
    """Packs sequences that are in lexicographic order, as `sorted` leaves them, so that shared prefixes are neighbours.

    Args:
        rows: S different sequences of at least one token.
    """
    tokens: list[int] = []
    positions: list[int] = []
    path: list[int] = []
    offsets, first, last = [0], [], []
    before: Sequence[int] = ()
    way: list[int] = []
    for row in rows:
        shared, most = 0, min(len(before), len(row) - 1)
        while shared < most and before[shared] == row[shared]:
            shared += 1
        way = way[:shared] + list(range(len(tokens), len(tokens) + len(row) - shared))
        tokens.extend(row[shared:])
        positions.extend(range(shared, len(row)))
        path.extend(way)
        offsets.append(len(path))
        first.append(shared)
        last.append(len(row))
        before = row
    paths = Paths(int64(path), int64(offsets), int64(first), int64(last), causal=True)
    return PackedTokens(paths, int64(tokens), int64(positions))


def in_order(rows: Sequence[Ids]) -> tuple[list[Ids], list[int]]:
    """The different ones of N sequences in lexicographic order, and for each of the N where it stands among them."""
    order = sorted(set(rows))
    found = {row: i for i, row in enumerate(order)}
    return order, [found[row] for row in rows]


def pieces(rows: Sequence[Ids], tokens: int, sequences: int | None = None) -> Iterator[Sequence[Ids]]:
    """Neighbouring sequences in pieces of at most `tokens` tokens and `sequences` sequences, but at least of one."""
    start = 0
    while start < len(rows):
        stop, count = start, 0
        while stop < len(rows) and (stop == start or (count + len(rows[stop]) <= tokens and stop - start != sequences)):
            count += len(rows[stop])
            stop += 1
        yield rows[start:stop]
        start = stop


def whole_sequences(count: int, length: int) -> Paths:
    """`count` sequences of `length` rows of their own, every position seeing every other."""
    starts = torch.arange(count + 1, device="cpu") * length
    lengths = torch.full((count,), length, device="cpu")
    rows, first = torch.arange(count * length, device="cpu"), torch.zeros(count, dtype=torch.int64, device="cpu")
    return Paths(rows, starts, first, lengths, causal=False)
