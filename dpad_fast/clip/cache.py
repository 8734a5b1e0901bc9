"""A bounded cache of embeddings: in memory, where the least recently used are dropped first, and optionally on disk."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from threading import Lock
from typing import TypeVar

import numpy as np
import torch

from dpad_fast.clip.fork import free_lock_in_child
from dpad_fast.clip.store import EmbeddingStore

Kept = TypeVar("Kept")


class EmbeddingCache:
    """Maps a key (content, box, precision) to one embedding. Safe to use from several threads.

    Args:
        max_bytes: embeddings are dropped from memory, oldest use first, beyond this; 0 keeps nothing.
        folder: also keeps the embeddings of images in a file there, which other processes and later runs share; see
            `dpad_fast.clip.store`. None: memory only.
        folder_bytes: that file never grows beyond this.
    """

    def __init__(
        self,
        max_bytes: int = 256 << 20,
        folder: str | os.PathLike[str] | None = None,
        folder_bytes: int = 1 << 30,
    ) -> None:
        if not isinstance(max_bytes, int) or max_bytes < 0:
            raise ValueError(f"max_bytes must be 0 or more, got {max_bytes!r:.80} (a whole number)")
        self.max_bytes = max_bytes
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self.store = None if folder is None else EmbeddingStore(folder, folder_bytes)
        self._entries: OrderedDict[Hashable, torch.Tensor | bytes] = OrderedDict()  # bytes until they are read
        self._lock = Lock()
        free_lock_in_child(self)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable) -> torch.Tensor | None:
        """The embedding in memory, or None; counts a hit or a miss."""
        return self.get_rows([key])[0]

    def get_rows(self, keys: Sequence[Hashable]) -> list[torch.Tensor | None]:
        """`get` of each key."""
        entries = self._entries
        with self._lock:
            found = [entries.get(key) for key in keys]
            hits = 0
            for i, kept in enumerate(found):
                if kept is None:
                    continue
                if isinstance(kept, bytes):  # those of most captions are never asked for again
                    found[i] = entries[keys[i]] = torch.frombuffer(bytearray(kept), dtype=torch.float32)
                entries.move_to_end(keys[i])
                hits += 1
            self.hits += hits
            self.misses += len(found) - hits
        return found  # type: ignore[return-value]  # no bytes are left

    def put(self, key: Hashable, embedding: torch.Tensor) -> None:
        """Keeps a copy of `embedding`, [D], in memory."""
        self._keep([(key, embedding.detach().clone())])

    def put_rows(self, keys: Sequence[Hashable], embeddings: torch.Tensor) -> None:
        """`put` of N embeddings, float32 [N, D] on the CPU, for a tenth of the time.

        Each row is a copy of its own: a view of all of them would keep all of them. Rows of another type, and rows
        of no numbers, are kept as `put` keeps them.
        """
        if embeddings.dtype != torch.float32 or not embeddings.numel():  # bytes are read as float32, and not if empty
            self._keep([(key, row.detach().clone()) for key, row in zip(keys, embeddings, strict=True)])
            return
        rows = embeddings.detach().numpy()
        self._keep([(key, row.tobytes()) for key, row in zip(keys, rows, strict=True)])

    def _keep(self, entries: Sequence[tuple[Hashable, torch.Tensor | bytes]]) -> None:
        with self._lock:
            for key, kept in entries:
                size = _size(kept)
                if size > self.max_bytes or key in self._entries:
                    continue
                self._entries[key] = kept
                self.bytes += size
                while self.bytes > self.max_bytes:
                    _, dropped = self._entries.popitem(last=False)
                    self.bytes -= _size(dropped)

    def get_stored(
        self, keys: Sequence[Hashable], owner: bytes, size: int | None = None
    ) -> dict[Hashable, torch.Tensor]:
        """The embeddings of those keys that the file has; they are then in memory too.

        Args:
            keys: made of tuples, numbers, strings and bytes, so that their `repr` is the same in every process.
            owner: a digest of the model and its preprocessing.
            size: numbers in an embedding; None: any.
        """
        if self.store is None or not keys:
            return {}
        digests = {_digest(owner, key): key for key in keys}
        found = {digests[digest]: value for digest, value in self.store.get(list(digests), size).items()}
        for key, value in found.items():
            self.put(key, value)
        return found

    def put_stored(self, embeddings: Mapping[Hashable, torch.Tensor], owner: bytes) -> None:
        """Keeps embeddings in the file, if there is one."""
        if self.store is not None and embeddings:
            self.store.put({_digest(owner, key): value for key, value in embeddings.items()})

    def clear(self) -> None:
        """Drops the embeddings in memory; those in the file stay."""
        with self._lock:
            self._entries.clear()
            self.bytes = 0


def _size(kept: torch.Tensor | bytes) -> int:
    return len(kept) if isinstance(kept, bytes) else kept.nbytes


def _digest(owner: bytes, key: Hashable) -> bytes:
    return hashlib.blake2b(repr(key).encode(), digest_size=20, key=owner[:64]).digest()


def finite_rows(keys: Sequence[Kept], values: torch.Tensor) -> tuple[Sequence[Kept], torch.Tensor]:
    """The finite rows of values [N, D] on the CPU, with their keys.

    Who reads the cache does not look at what is in it: an encoder without a guard would return NaN.
    """
    # NumPy's, since torch wakes its threads for so little.
    finite = np.isfinite(values.numpy())
    if finite.all():  # a tenth of the time of a look at each row
        return keys, values
    kept = finite.all(axis=1).nonzero()[0].tolist()
    return [keys[i] for i in kept], values[kept]
