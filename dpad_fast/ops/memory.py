"""The memory of large results on the CPU, which is kept between calls.

The operating system clears every page that it hands out, which can cost more than computing what is written there. So
the memory of a result of 4 MiB and more, in pages of 2 MiB, is kept for the next call once its last tensor has died. At
most an eighth of the machine's memory is kept, and at most 4 GiB, or `DPAD_FAST_KEEP_MB` MiB where that is set (0:
nothing). On Linux the kept memory beyond 256 MiB is marked as free (`MADV_FREE`), so that the system takes it where
memory runs short. A forked child starts without kept memory.
"""

from __future__ import annotations

from typing import NamedTuple

from dpad_fast._native import extension


class KeptMemory(NamedTuple):
    """What is kept between calls.

    Attributes:
        kept: bytes that are kept for the next call.
        limit: the most bytes that are kept.
    """

    kept: int
    limit: int


def kept_memory() -> KeptMemory:
    """How much memory is kept for the next call, and the limit."""
    return KeptMemory(*extension.C.output_memory())


def limit_kept_memory(limit: int) -> None:
    """Limit the memory that is kept for the next call, and free at once what is beyond; 0 frees all of it.

    Args:
        limit: bytes.

    Raises:
        ValueError: `limit` is negative or no integer.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit < 1 << 63:
        raise ValueError(f"limit must be a number of bytes from 0 up, got {limit!r:.80}")
    extension.C.limit_output_memory(limit)
