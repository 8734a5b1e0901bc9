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
