"""A bounded in-memory cache of embeddings: the least recently used go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock

import torch


class EmbeddingCache:
    """Maps a key (content, box, precision) to one embedding. Safe to use from several threads.

    Args:
        max_bytes: embeddings are dropped, oldest use first, beyond this; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be 0 or more, got {max_bytes}")
        self.max_bytes = max_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> torch.Tensor | None:
        """The embedding, or None; counts a hit or a miss."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._entries.move_to_end(key)
            return found

    def put(self, key: Hashable, embedding: torch.Tensor) -> None:
        """Keeps a copy of `embedding`, [D]."""
        size = embedding.numel() * embedding.element_size()
        if size > self.max_bytes:
            return
        kept = embedding.detach().clone()
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = kept
            self.bytes += size
            while self.bytes > self.max_bytes:
                _, dropped = self._entries.popitem(last=False)
                self.bytes -= dropped.numel() * dropped.element_size()

    def clear(self) -> None:
        """Drops everything."""
        with self._lock:
            self._entries.clear()
            self.bytes = 0
