"""Token sequences packed without padding, where the prefixes that sequences share are one set of rows.

This is exact for a causal tower: a token's values depend only on the tokens up to it, so equal prefixes have equal
values, and the tokens after the one that is read do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from dpad_fast._native import extension
from dpad_fast.cached import cached_property


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
    """S packed token sequences.

    Attributes:
        numbers: int64, what follows in one piece, as the extension reads it: `tokens` and `positions` [R] of the rows,
            and the fields of `paths`.
        rows: R.
        keys: the sequences' lengths together.
        count: S.
    """

    numbers: torch.Tensor
    rows: int
    keys: int
    count: int

    @property
    def tokens(self) -> torch.Tensor:
        """int64 [R], the token of each row."""
        return self.numbers[: self.rows]

    @property
    def positions(self) -> torch.Tensor:
        """int64 [R], where each row's token stands in its sequence."""
        return self.numbers[self.rows : 2 * self.rows]

    @cached_property
    def paths(self) -> Paths:
        """The sequences over the rows."""
        sizes = [self.keys, self.count + 1, self.count, self.count]
        path, offsets, first, last = torch.split(self.numbers[2 * self.rows :], sizes)
        return Paths(path, offsets, first, last, causal=True)

    @property
    def address(self) -> tuple[int, int, int, int]:
        """Where the extension finds it: memory, R, keys and S."""
        return self.numbers.data_ptr(), self.rows, self.keys, self.count


def pack_texts(
    rows: Sequence[Sequence[int]], most: int, sequences: int | None = None, read: int | Literal["largest"] | None = None
) -> tuple[list[PackedTokens], torch.Tensor]:
    """Packs the different ones of N token sequences in lexicographic order, so that shared prefixes are neighbours.

    Args:
        rows: N sequences of at least one token.
        most: tokens of a piece; a longer sequence is a piece of its own.
        sequences: the most sequences of a piece; None: any number.
        read: the token that is read, behind which a sequence is cut: the first of this id, and without one the
            sequence's first; the first of the sequence's largest id; or None, its last one.

    Returns:
        the pieces; and int64 [N], where each of the N stands among the sequences of all pieces.

    Raises:
        ValueError: a sequence is empty; names its index.
    """
    kind, token = ("last", 0) if read is None else ("largest", 0) if read == "largest" else ("token", read)
    places, pieces = extension.C.pack_texts(rows, kind, token, most, len(rows) if sequences is None else sequences)
    return [PackedTokens(torch.from_numpy(numbers), *sizes) for numbers, *sizes in pieces], torch.from_numpy(places)


def pack_tokens(rows: Sequence[Sequence[int]]) -> PackedTokens:
    """Packs the different ones of N sequences, at least one, together; see `pack_texts`."""
    ((packed,), _) = pack_texts(rows, sum(map(len, rows)))
    return packed


def whole_sequences(count: int, length: int) -> Paths:
    """`count` sequences of `length` rows of their own, every position seeing every other."""
    starts = torch.arange(count + 1, device="cpu") * length
    lengths = torch.full((count,), length, device="cpu")
    rows, first = torch.arange(count * length, device="cpu"), torch.zeros(count, dtype=torch.int64, device="cpu")
    return Paths(rows, starts, first, lengths, causal=False)
