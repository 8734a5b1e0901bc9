"""The cache of embeddings in memory stays within its bytes, and the least recently used go first."""

import pytest
import torch

from dpad_fast.clip import EmbeddingCache


def test_cache_is_bounded():
    cache = EmbeddingCache(max_bytes=3 * 16)
    for i in range(5):
        cache.put(i, torch.full((4,), float(i)))
        cache.get(2)
    assert len(cache) == 3
    assert cache.bytes == 48
    assert cache.get(0) is None
    assert cache.get(1) is None
    assert cache.get(2) is not None  # used all along
    assert EmbeddingCache(0).get(1) is None
    nothing = EmbeddingCache(0)
    nothing.put(1, torch.zeros(4))
    assert len(nothing) == 0
    with pytest.raises(ValueError, match="max_bytes must be 0 or more"):
        EmbeddingCache(-1)


def test_rows_are_kept_as_copies_of_their_own():
    cache = EmbeddingCache(max_bytes=2 * 16)
    rows = torch.arange(12.0).view(3, 4)
    cache.put("b", torch.zeros(4))
    cache.put_rows(["a", "b", "c"], rows)
    rows.fill_(9.0)
    assert cache.bytes == 32
    assert cache.get("b") is None  # the oldest; a key that is known stays what it was, and is not used by that
    assert cache.get("a").tolist() == [0.0, 1.0, 2.0, 3.0]
    assert cache.get("c").tolist() == [8.0, 9.0, 10.0, 11.0]
    assert cache.get("c").untyped_storage().nbytes() == 16
    EmbeddingCache(8).put_rows(["a"], rows[:1])


def test_many_are_read_as_one_is():
    cache = EmbeddingCache(max_bytes=3 * 16)
    rows = torch.randn(3, 4)
    cache.put_rows(["a", "b", "c"], rows.t().contiguous().t())  # in any memory format
    cache.put("d", torch.arange(2))  # a is dropped; any type is kept
    found = cache.get_rows(["a", "b", "c", "b"])
    assert found[0] is None
    assert torch.equal(torch.stack(found[1:]), rows[[1, 2, 1]])
    assert (cache.hits, cache.misses) == (3, 1)
    cache.put("e", torch.zeros(4))
    assert [key for key in "abcde" if cache.get(key) is not None] == ["b", "c", "e"]  # d was not used
    assert cache.get_rows([]) == []
    assert cache.bytes == 48


def test_what_is_read_is_the_caches_own():
    cache, rows = EmbeddingCache(), torch.tensor([[1.0, float("nan")], [float("inf"), -0.0]])
    cache.put_rows(["a", "b"], rows)
    for _ in range(2):
        first, second = cache.get_rows(["a", "b"])
        assert torch.equal(torch.stack([first, second]).view(torch.int32), rows.view(torch.int32))
    assert cache.get("a") is first  # made once
    assert first.untyped_storage().nbytes() == 8


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_rows_of_another_type_come_back_as_they_are(dtype):
    cache, rows = EmbeddingCache(), torch.arange(8).view(2, 4).to(dtype)
    cache.put_rows(["a", "b"], rows)
    found = cache.get_rows(["a", "b"])
    assert [row.dtype for row in found] == [dtype] * 2
    assert torch.equal(torch.stack(found), rows)
    assert cache.bytes == rows.nbytes
    assert found[1].untyped_storage().nbytes() == rows[1].nbytes


def test_rows_of_no_numbers():
    cache = EmbeddingCache()
    cache.put_rows(["a", "b"], torch.empty(2, 0))
    cache.put_rows([], torch.empty(0, 4))
    assert [tuple(row.shape) for row in cache.get_rows(["a", "b"])] == [(0,), (0,)]
    assert (len(cache), cache.bytes) == (2, 0)
