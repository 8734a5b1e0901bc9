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
