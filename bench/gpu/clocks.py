"""Time of a call on a GPU by CUDA events, or on the CPU, where the same code is rehearsed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch

from dpad_fast.ops import PackedMasks

Item = TypeVar("Item")
Call = Callable[[], Any]
DEVICES = ("cuda", "cpu")  # where a run can be asked for; CUDA_VISIBLE_DEVICES chooses among several GPUs
CACHE = 256 << 20  # bytes: more than any level 2 cache of a GPU holds


def beginning_with(items: Sequence[Item], turn: int) -> list[Item]:
    """The items in their order, another one first in each turn: who follows a heavy call finds the caches cold."""
    first = turn % len(items) if items else 0
    return [*items[first:], *items[:first]]


class Clock(Protocol):
    """What a run is timed with."""

    device: torch.device

    def flush(self) -> None:
        """Overwrites the cache, so that the next call finds its input in memory, and waits."""

    def wait(self) -> None:
        """Until the device is idle."""

    def time(self, call: Call) -> float:
        """Microseconds of a call, host work included."""

    def captured(self, call: Call) -> tuple[Call, Any]:
        """A call that replays what the call did on the device, and where its result then is."""


class GpuClock:
    """CUDA events on torch's current stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._scratch = torch.empty(CACHE, dtype=torch.uint8, device=device)

    def flush(self) -> None:
        """See `Clock`."""
        self._scratch.zero_()
        torch.cuda.synchronize()

    def wait(self) -> None:
        """See `Clock`."""
        torch.cuda.synchronize()

    def time(self, call: Call) -> float:
        """See `Clock`."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        end.synchronize()
        return 1e3 * start.elapsed_time(end)

    def captured(self, call: Call) -> tuple[Call, Any]:
        """See `Clock`.

        Raises:
            RuntimeError: the call asks the host for something, which no graph can hold, or leaves its result there: the
                graph of a call that works on the host is empty, and would be timed as if it did the work.
        """
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # kernels are loaded, and memory is found, before the capture
            call()
            result = call()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        if not _lies_on(result, self.device):
            raise RuntimeError("works on the host")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = call()
        return graph.replay, result


def _lies_on(result: Any, device: torch.device) -> bool:
    first = result[0] if isinstance(result, tuple) else result
    there: torch.device = (first.words if isinstance(first, PackedMasks) else first).device
    return there.type == device.type


class CpuClock:
    """The host's clock; a graph is the call made again."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self._scratch = torch.empty(1 << 20, dtype=torch.uint8)

    def flush(self) -> None:
        """See `Clock`."""
        self._scratch.zero_()

    def wait(self) -> None:
        """See `Clock`."""

    def time(self, call: Call) -> float:
        """See `Clock`."""
        began = time.perf_counter()
        call()
        return 1e6 * (time.perf_counter() - began)

    def captured(self, call: Call) -> tuple[Call, Any]:
        """See `Clock`."""
        return call, call()
