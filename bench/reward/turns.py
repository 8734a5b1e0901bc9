"""Timed turns of a contestant: the clock, for how much of it a processor worked, and garbage collections."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

OLDEST = 2  # the generation whose collection looks at every object of the process
COLUMNS = ("p50_ms", "least_ms", "most_ms", "turns", "thread_ms", "process_ms", "collections")


@dataclass(frozen=True)
class Turn:
    """A turn.

    Attributes:
        ms: on the clock.
        thread_ms: of these a processor worked for the calling thread. Where the clock went on and this did not, the
            thread waited: for the GPU, for other threads, or because the machine gave it no processor.
        process_ms: a processor worked for any thread of the process; waits that ask again and again count too.
        collections: garbage collections of all generations in it.
    """

    ms: float
    thread_ms: float
    process_ms: float
    collections: int

    def __str__(self) -> str:
        """For a log: the clock, with the calling thread's part; a star for each collection."""
        return f"{self.ms:.1f} ({self.thread_ms:.1f}){'*' * self.collections}"

    def times(self, factor: float) -> Turn:
        """The turn of so many times the work."""
        return Turn(self.ms * factor, self.thread_ms * factor, self.process_ms * factor, self.collections)


@contextmanager
def counted_collections() -> Iterator[list[int]]:
    """A list that grows by one entry for each collection of all generations within."""
    found: list[int] = []

    def note(phase: str, facts: dict[str, Any]) -> None:
        if phase == "stop" and facts["generation"] == OLDEST:
            found.append(OLDEST)

    gc.callbacks.append(note)
    try:
        yield found
    finally:
        gc.callbacks.remove(note)


def measured(call: Callable[[], Any], wait: Callable[[], Any]) -> Turn:
    """Times a call, from the moment at which the device is idle until it is idle again.

    Args:
        call: the work.
        wait: until the device is idle.
    """
    with counted_collections() as collections:
        wait()
        clocks = time.perf_counter, time.thread_time, time.process_time
        began = [clock() for clock in clocks]
        call()
        wait()
        spent = [1e3 * (clock() - before) for clock, before in zip(clocks, began, strict=True)]
    return Turn(*spent, len(collections))


def columns(turns: Sequence[Turn]) -> dict[str, Any]:
    """`COLUMNS` of a row: milliseconds are medians where they are not the least or the most; empty without turns.

    "collections" is the number of turns with at least one.
    """
    if not turns:
        return dict.fromkeys(COLUMNS, "") | {"turns": 0}
    clock = [turn.ms for turn in turns]
    found = {
        "p50_ms": statistics.median(clock),
        "least_ms": min(clock),
        "most_ms": max(clock),
        "thread_ms": statistics.median(turn.thread_ms for turn in turns),
        "process_ms": statistics.median(turn.process_ms for turn in turns),
    }
    said: dict[str, Any] = {key: f"{value:.2f}" for key, value in found.items()}
    said |= {"turns": len(turns), "collections": sum(turn.collections > 0 for turn in turns)}
    return {key: said[key] for key in COLUMNS}


def ratio(ours: Sequence[Turn], theirs: Sequence[Turn], key: str = "ms") -> tuple[float, float, float] | None:
    """The median of our time over theirs, turn by turn, between its quartiles; None where there is no turn of both.

    The two calls of a turn follow each other within a second, so a machine whose speed changes from minute to minute
    is as fast for the one as for the other.

    Args:
        ours: turns.
        theirs: turns, in the same order.
        key: which time, an attribute of `Turn`.
    """
    pairs = zip(ours, theirs, strict=False)
    found = sorted(getattr(mine, key) / getattr(other, key) for mine, other in pairs)
    if not found:
        return None
    quarter = len(found) // 4
    return found[quarter], statistics.median(found), found[-1 - quarter]
