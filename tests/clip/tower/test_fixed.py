"""Texts in tables of a fixed shape: what attention finds there, what fits, and what padding may hold."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpad_fast.clip.tower.fixed import Bins, VariableLengths, rows_of, sequences_of
from dpad_fast.clip.tower.gpu_attention import GpuProducts
from dpad_fast.clip.tower.packing import pack_texts, pack_tokens
from dpad_fast.reference import text_packing as reference

CONTEXT = 77
TABLES = {"variable lengths": VariableLengths, "bins": Bins}


def overreading(q, k, v, part):
    """Variable-length attention at its worst: tiles reach beyond a sequence's end, and rows of no sequence stay NaN."""
    out = torch.full_like(q, float("nan"))
    for starts, rows, longest in ((part.starts_q, q, part.longest_q), (part.starts_k, k, part.longest_k)):
        assert starts.dtype == torch.int32
        assert starts[0] == 0
        assert int(starts[-1]) <= len(rows)
        assert 0 <= int(starts.diff().min()) <= int(starts.diff().max()) <= longest
    for i in range(len(part.starts_q) - 1):
        asks, keys = (slice(int(starts[i]), int(starts[i + 1])) for starts in (part.starts_q, part.starts_k))
        tile = slice(keys.start, keys.start + 128)
        query, key, value = (rows.transpose(0, 1) for rows in (q[asks], k[tile], v[tile]))
        ahead = keys.stop - keys.start - query.shape[1]
        seen = torch.arange(key.shape[1]) < keys.stop - keys.start
        if part.causal:
            seen = seen & torch.ones(query.shape[1], key.shape[1], dtype=torch.bool).tril(ahead)
        if query.shape[1]:
            scores = (query @ key.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(~seen, float("-inf"))
            out[asks] = (scores.softmax(-1) @ value).transpose(0, 1)
    return out


def captions():
    """Sorted different sequences that share prefixes, of 1 to 77 tokens."""
    ids = st.lists(st.integers(0, 2), max_size=12)
    one = st.tuples(ids, st.integers(0, 76), st.integers(3, 5)).map(lambda t: (9, *t[0], *[t[2]] * t[1])[:CONTEXT])
    return st.lists(one, min_size=1, max_size=40, unique=True).map(sorted)


def described(tables, packed, rows=None):
    """The work in a bucket of so many rows, whose memory another work has used."""
    size = tables.need(packed) if rows is None else rows
    capacities = tables.capacities(size)
    static = torch.full((sum(capacities),), 7)
    tables.write(packed, size, static)
    return tables.describe(static.split(list(capacities)))


@pytest.mark.parametrize("which", TABLES)
@settings(max_examples=100, deadline=None)
@given(rows=captions(), more=st.integers(0, 300))
def test_a_table_is_the_references(which, rows, more):
    tables, packed, plain = TABLES[which](CONTEXT), pack_tokens(rows), reference.pack(rows)
    keys, parts = len(plain.path), reference.variable_lengths(plain)
    if which == "bins":
        bins, parts = reference.bins(plain, 128)
        keys = 128 * (bins - 1) + 1
    need = rows_of(len(plain.tokens), keys, len(rows))
    assert tables.need(packed) == need
    capacities = tables.capacities(need + more)
    out = torch.full((sum(capacities),), -7)
    tables.write(packed, need + more, out)
    assert out.tolist() == reference.padded(parts, capacities)


@pytest.mark.parametrize("which", TABLES)
def test_what_does_not_fit_a_table_is_not_written(which):
    tables, packed = TABLES[which](CONTEXT), pack_tokens([(i, *range(70)) for i in range(9)])
    need = tables.need(packed)
    out = torch.full((sum(tables.capacities(need - 1)),), -7)
    with pytest.raises(ValueError, match=r"part \d of a table has room for \d+, got \d+"):
        tables.write(packed, need - 1, out)
    with pytest.raises(AssertionError):
        tables.write(packed, need, out)
    long = pack_tokens([tuple(range(129))])
    if which == "bins":
        with pytest.raises(ValueError, match="a text of 129 tokens does not fit a bin of 128"):
            tables.need(long)


@pytest.mark.parametrize("which", TABLES)
@settings(max_examples=25, deadline=None)
@given(rows=captions(), more=st.integers(0, 300))
def test_attention_finds_what_it_finds_in_the_packed_work(which, rows, more):
    torch.manual_seed(len(rows))
    tables, packed = TABLES[which](CONTEXT), pack_tokens(rows)
    products = GpuProducts(torch.float32, overreading if which == "variable lengths" else None)
    size = tables.need(packed) + more
    read = described(tables, packed, size)
    count, sequences = len(packed.tokens), len(rows)
    assert (len(read.tokens), len(read.ends)) == (size, sequences_of(size))
    assert torch.equal(read.tokens[:count], packed.tokens)
    assert torch.equal(read.positions[:count], packed.positions)
    assert torch.equal(read.ends[:sequences], packed.paths.ends)
    assert not read.tokens[count:].any()
    assert not read.positions[count:].any()
    assert not read.ends[sequences:].any()
    qkv = torch.randn(size, 3 * 8)
    qkv[count:] = float("nan")  # padding rows may hold anything
    q, k, v = qkv.chunk(3, dim=1)
    plain = GpuProducts(torch.float32)
    expected = plain.attend(q[:count], k[:count], v[:count], packed.paths, 2, 1)
    found = products.attend(q, k, v, read.paths, 2, 1)
    torch.testing.assert_close(found[:count], expected, atol=2e-6, rtol=1e-5)
    expected = plain.attend(q[packed.paths.ends], k[:count], v[:count], packed.paths.only_ends, 2, 1)
    found = products.attend(q[read.ends], k, v, read.paths.only_ends, 2, 1)
    torch.testing.assert_close(found[:sequences], expected, atol=2e-6, rtol=1e-5)


def extremes():
    """Works at the edges of what a bucket has room for."""
    return {
        "two tokens": [(i, 1) for i in range(400)],
        "one token": [(i,) for i in range(400)],
        "longer than half a bin": sorted({(9, *[i % 7] * 63, i) for i in range(40)}),
        "whole context": [(i, *range(76)) for i in range(60)],
        "nearly the same": [(*range(76), i) for i in range(60)],
        "half a bin": [(i, *range(63)) for i in range(60)],
    }


@pytest.mark.parametrize("which", TABLES)
@pytest.mark.parametrize("context", [77, 128, 256])
@pytest.mark.parametrize("most", [256, 300, 1000, 4096])
def test_every_piece_fits_the_largest_bucket(which, context, most):
    tables = TABLES[which](context)
    for rows in extremes().values():
        cut, _ = pack_texts(rows, most, sequences_of(most))
        assert sum(piece.count for piece in cut) == len(rows)
        for piece in cut:
            need = tables.need(piece)
            assert need <= most
            for size in (need, most):
                tables.write(piece, size, torch.empty(sum(tables.capacities(size)), dtype=torch.int64))


def test_room_for_sequences_and_keys():
    assert rows_of(100, 150, 20) == 100
    assert rows_of(100, 201, 20) == 101
    assert rows_of(100, 150, 30) == 120
    assert (sequences_of(128), sequences_of(3)) == (32, 1)


def test_sharing_saves_rows_in_a_bucket():
    shared = [(*range(30), i) for i in range(60)]
    apart = [(100 + i, *range(1, 30), i) for i in range(60)]
    for tables in (VariableLengths(CONTEXT), Bins(CONTEXT)):
        # 90 rows and 1,860 keys, 1,860 rows and keys.
        assert tables.need(pack_tokens(shared)) <= 960
        assert tables.need(pack_tokens(apart)) == 1860
