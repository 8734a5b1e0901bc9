"""`PinnedArena`: pinned host memory that uploads take in turns, and that is given back when less is needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch

from dpad_fast._native.streams import Gpu

_SMALLEST = 1 << 20
_LATELY = 16  # uploads; a block that is more than four times larger than all of them were is given back
_LIMIT = 512 << 20


@dataclass(eq=False)
class Block:
    """Pinned memory of one upload.

    Attributes:
        memory: uint8 [at least what was asked for].
        copied: an event behind the copy that reads it, set by whoever queued the copy; None: nothing reads it.
    """

    memory: torch.Tensor
    copied: Any = None


class PinnedArena:
    """Blocks of pinned memory. Pinning costs more than the copy itself, so blocks are used again and again.

    A block whose copy is still on its way is never handed out: another one is, or a new one. Only where the blocks
    would exceed `limit` together is a copy waited for. Safe to use from several threads.

    Blocks are powers of 2. One that is given back goes to torch's own allocator of pinned memory, which knows of the
    copies that still read it.

    Args:
        gpu: whose memory and events these are.
        limit: bytes of all blocks that nobody is filling.

    Attributes:
        held: bytes of those blocks now.
    """

    def __init__(self, gpu: Gpu, limit: int = _LIMIT) -> None:
        self.limit = limit
        self._gpu = gpu
        self._blocks: list[Block] = []  # the one whose copy was queued first comes first
        self._lately: deque[int] = deque(maxlen=_LATELY)
        self._lock = Lock()

    @property
    def held(self) -> int:
        """Bytes of the blocks that nobody is filling."""
        with self._lock:
            return self._held()

    @contextmanager
    def block(self, size: int) -> Iterator[Block]:
        """A block of at least `size` bytes to fill; whoever queues a copy from it sets `copied` before leaving."""
        with self._lock:
            taken = self._take(size)
        try:
            yield taken
        finally:
            with self._lock:
                self._give_back(taken)

    def _take(self, size: int) -> Block:
        self._lately.append(size)
        for block in sorted(self._blocks, key=lambda one: len(one.memory)):
            if len(block.memory) >= size and self._is_free(block):
                self._blocks.remove(block)
                block.copied = None
                return block
        wanted = max(_SMALLEST, 1 << (size - 1).bit_length())
        while self._blocks and self._held() + wanted > self.limit:
            # The oldest one's copy is the first to be done.
            oldest = self._blocks.pop(0)
            if not self._is_free(oldest):
                self._gpu.wait(oldest.copied)
        return Block(self._gpu.pinned(wanted))

    def _give_back(self, block: Block) -> None:
        self._blocks.append(block)
        enough = 4 * max(_SMALLEST, *self._lately)
        self._blocks = [one for one in self._blocks if len(one.memory) <= enough]
        while self._held() > self.limit:
            self._blocks.pop(0)

    def _is_free(self, block: Block) -> bool:
        return block.copied is None or self._gpu.passed(block.copied)

    def _held(self) -> int:
        return sum(len(block.memory) for block in self._blocks)
