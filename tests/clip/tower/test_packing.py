"""Texts packed by the extension: the plain reference's rows, paths and pieces, whatever the texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpad_fast._native import extension
from dpad_fast.clip.tower.packing import PackedTokens, pack_texts, pack_tokens
from dpad_fast.reference import text_packing as reference

CONTEXT = 77


def sequences():
    """1 to 40 token sequences, in any order and some of them equal: shared prefixes, one token, the whole context."""
    few = st.lists(st.integers(0, 2), min_size=1, max_size=8)
    long = st.tuples(few, st.integers(3, 5)).map(lambda t: (t[0] + [t[1]] * CONTEXT)[:CONTEXT])
    any_ids = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=CONTEXT)
    return st.lists((few | long | any_ids).map(tuple), min_size=1, max_size=40)


def lists(packed: PackedTokens) -> reference.Packed:
    paths = packed.paths
    parts = (packed.tokens, packed.positions, paths.path, paths.offsets, paths.first, paths.last)
    return reference.Packed(*(part.tolist() for part in parts))


@settings(max_examples=200, deadline=None)
@given(
    rows=sequences(),
    most=st.integers(1, 400),
    count=st.none() | st.integers(1, 12),
    read=st.none() | st.just("largest") | st.integers(0, 6),
)
@example(rows=[(1, 2, 3), (1, 2, 3, 4), (1, 5), (6,), (1, 5)], most=5, count=None, read=None)
@example(rows=[(3, 5, 1, 5, 1)], most=1, count=1, read="largest")
def test_any_texts_are_packed_as_the_reference_does(rows, most, count, read):
    order, places = reference.in_order([reference.cut(row, read) for row in rows])
    expected = [reference.pack(piece) for piece in reference.pieces(order, most, count)]
    found, found_places = pack_texts(rows, most, count, read)
    assert [lists(piece) for piece in found] == expected
    assert found_places.tolist() == places
    for piece, one in zip(found, expected, strict=True):
        assert (piece.rows, piece.keys, piece.count) == (len(one.tokens), len(one.path), len(one.first))
        assert piece.paths.causal


def test_the_token_that_is_read():
    rows = [(3, 9, 4, 9), (3, 4), (7,)]
    kept = lambda read: [p.tokens.tolist() for row in rows for p in pack_texts([row], 99, read=read)[0]]  # noqa: E731
    assert kept(None) == [[3, 9, 4, 9], [3, 4], [7]]
    assert kept("largest") == [[3, 9], [3, 4], [7]]
    assert kept(4) == [[3, 9, 4], [3, 4], [7]]
    assert kept(5) == [[3], [3], [7]]


def test_pieces():
    rows = [(1, 2), (1, 3), (1, 4, 5), (2,)]
    sizes = lambda *limits: [piece.count for piece in pack_texts(rows, *limits)[0]]  # noqa: E731
    assert sizes(4) == [2, 2]
    assert sizes(1) == [1, 1, 1, 1]
    assert sizes(100, 3) == [3, 1]
    found, places = pack_texts([], 4)
    assert found == []
    assert places.tolist() == []


def test_rows_of_other_kinds():
    assert pack_tokens([[1, 2], np.array([1, 3])]).tokens.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([(1,), ()], ValueError, r"rows\[1\] must hold at least one token"),
        ([(1, 2.5)], TypeError, "float"),
        ([(1, 2**63)], OverflowError, "int"),
        ([7], TypeError, "rows must be sequences of ids"),
    ],
)
def test_what_is_no_text(rows, error, message):
    with pytest.raises(error, match=message):
        pack_texts(rows, 100)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((5, 4, 1), "cannot have 5 rows and 4 keys"),
        ((0, 4, 1), "1 sequences cannot have 0 rows"),
        ((4, 7, 2), "do not add up"),  # 1, 2, 3 and 1, 2, 4, 5 have 5 rows and 7 keys
    ],
)
def test_sizes_that_are_not_those_of_the_texts(sizes, message):
    packed = pack_tokens([(1, 2, 3), (1, 2, 4, 5)])
    assert (packed.rows, packed.keys, packed.count) == (5, 7, 2)
    with pytest.raises(ValueError, match=message):
        extension.C.bins_of((packed.numbers.data_ptr(), *sizes), 128)
