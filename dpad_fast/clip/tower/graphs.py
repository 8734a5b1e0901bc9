"""CUDA graphs of one function over padded sizes: captured when a size is first needed, and replayed from then on.

The rules are those of torch's "CUDA graphs": a warm-up on the stream that captures, inputs and outputs at fixed
addresses, nothing that waits or asks the host. The graphs of a `CudaRecorder` share one memory pool. That is allowed
in any order of replay, because they never run at the same time and none reads what another has left.
"""

from __future__ import annotations

import os
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import torch

Tensor = torch.Tensor
Run = Callable[[], Tensor]
Fill = Callable[[int, Tensor], None]
# The first run loads kernels and plans, the second one runs as the capture will.
_WARM_UPS = 2
# Sizes between two powers of two, from the size on where padding costs time: a GPU is not busy below.
_PARTS = 4


def ladder(first: int, most: int) -> tuple[int, ...]:
    """Sizes from `first` to `most`: doubled up to 4 * `first`, then with three sizes between two powers.

    Beyond that a work is padded by less than a quarter, by a tenth on average; 23 sizes reach from 128 to 16,384.
    """
    sizes, octave = [], first
    while octave <= most:
        parts = _PARTS if octave >= 4 * first else 1
        sizes += [octave * (parts + i) // parts for i in range(parts)]
        octave *= 2
    found = tuple(size for size in sizes if size <= most)
    # A work as large as `most` is promised; between the last two sizes it may be padded by more.
    return found if found and found[-1] == most else (*found, most)


@dataclass(frozen=True)
class Recorded:
    """A captured run: `replay` leaves its result in `out`, where the next replay overwrites it."""

    out: Tensor
    replay: Callable[[], object]


class Recorder(Protocol):
    """Captures and replays runs, in turns. Tests have one that calls the function again."""

    def using(self) -> AbstractContextManager[None]:
        """One caller at a time, whose work on the GPU follows that of the callers before, whatever their streams."""
        ...

    def memory(self, count: int, dtype: torch.dtype) -> Tensor:
        """Zeros [count] for static inputs, ready for the current stream."""
        ...

    def record(self, run: Run) -> Recorded:
        """Warms up and captures. An error of the capture is raised, never answered by another way to run."""
        ...


class CudaRecorder:
    """torch's CUDA graphs on one GPU: one stream to capture on, one memory pool, one queue of users.

    The warm-up has a stream of its own, as in torch's examples. cuBLAS keeps a workspace for each stream, and the
    capturing stream's is then made by a capture, in the pool. One of the warm-up would be ordinary memory, which
    `torch.compile` frees when it clears all workspaces, under graphs that still write there.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type == "cuda" and device.index is None:  # would be another one when the caller chooses another
            device = torch.device("cuda", torch.cuda.current_device())
        self._device, self._process, self._lock = device, os.getpid(), Lock()
        with torch.cuda.device(device):
            self._warm_up, self._stream = _new_stream(device), _new_stream(device)
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()
        _live.add(self)

    @contextmanager
    def using(self) -> Iterator[None]:
        """See `Recorder`.

        Raises:
            RuntimeError: in a forked process, which CUDA does not survive.
        """
        if os.getpid() != self._process:  # before the lock, which a thread of the parent may hold for ever here
            raise RuntimeError("CUDA graphs were captured before this process was forked; make the encoder here")
        with self._lock, torch.cuda.device(self._device):
            here = torch.cuda.current_stream(self._device)
            here.wait_event(self._done)  # does nothing before the first record
            try:
                yield
            finally:
                self._done.record(here)

    def memory(self, count: int, dtype: torch.dtype) -> Tensor:
        """See `Recorder`. It belongs to the stream that captures: nobody else gets it while a replay may use it."""
        with torch.cuda.stream(self._stream):
            found = torch.zeros(count, dtype=dtype, device=self._device)
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        return found

    def record(self, run: Run) -> Recorded:
        """See `Recorder`. Other threads may launch meanwhile, but not wait for all of the GPU."""
        here = torch.cuda.current_stream(self._device)
        self._warm_up.wait_stream(here)
        with torch.cuda.stream(self._warm_up):
            for _ in range(_WARM_UPS):
                run()
        self._stream.wait_stream(self._warm_up)
        graph = torch.cuda.CUDAGraph()
        # The outer context restores the stream, which torch's own leaves in place where the end of a capture fails.
        with (
            _one_capture,
            torch.cuda.stream(here),
            torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"),
        ):
            out = run()
        here.wait_stream(self._stream)
        return Recorded(out, graph.replay)


# `torch.cuda.graph` waits for the whole device as it begins, which CUDA forbids while another stream captures there.
_one_capture = Lock()
_live: weakref.WeakSet[CudaRecorder] = weakref.WeakSet()
# torch hands out this many streams of a device in turn, then the first again.
_STREAMS = 32


def _new_stream(device: torch.device) -> torch.cuda.Stream:
    """A stream that no recorder has: two of them would share a workspace, whose memory is that of one."""
    taken = {stream.cuda_stream for other in _live for stream in (other._warm_up, other._stream)}
    for _ in range(_STREAMS):
        # Of another priority than the streams of others, of which torch hands out the same ones again and again: what
        # they launch during a capture would be captured.
        found = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
        if found.cuda_stream not in taken:
            break
    return found


@dataclass(frozen=True)
class _Bucket:
    static: Tensor
    run: Run  # holds what the graph reads besides
    recorded: Recorded


class Graphs:
    """A function of a static input, captured for each size that is needed.

    Of the sizes between two powers of two the largest is captured first. The others then fit into its memory, so that
    pool and inputs hold less than three times what the largest size in use needs, even if works grow step by step.

    Args:
        run: from a size and its static input to the run that is captured; its result is [size or more, D].
        recorder: captures; several `Graphs` may share one.
        sizes: from `ladder`.
        elements: from a size to the elements of its static input.
        dtype: of the static input.
    """

    def __init__(
        self,
        run: Callable[[int, Tensor], Run],
        recorder: Recorder,
        sizes: Sequence[int],
        elements: Callable[[int], int],
        dtype: torch.dtype,
    ) -> None:
        self._run, self._recorder, self.sizes = run, recorder, tuple(sizes)
        self._elements, self._dtype = elements, dtype
        self._buckets: dict[int, _Bucket] = {}
        self._memory: list[Tensor] = []

    def __call__(self, need: int, fill: Fill, count: int) -> Tensor:
        """Runs the smallest size that is at least `need`.

        Args:
            need: at most the largest size.
            fill: writes the input of a size into its static memory, on the current stream and without waiting.
            count: rows of the result that are real.

        Returns:
            A copy of them, ready for the current stream.
        """
        assert need <= self.sizes[-1], "the caller cuts what is larger"
        size = self.sizes[bisect_left(self.sizes, need)]
        with torch.inference_mode(), self._recorder.using():
            if size not in self._buckets:
                for each in dict.fromkeys((self._octave(size), size)):
                    self._capture(each, fill)
            bucket = self._buckets[size]
            fill(size, bucket.static)
            bucket.recorded.replay()
            return bucket.recorded.out[:count].clone()

    def _octave(self, size: int) -> int:
        octave = self.sizes[0]
        while octave < size:
            octave *= 2
        return min(octave, self.sizes[-1])

    def _capture(self, size: int, fill: Fill) -> None:
        if size in self._buckets:
            return
        static = self._static(self._elements(size))
        fill(size, static)  # the warm-up runs on this, since an index left by another size could be out of range
        run = self._run(size, static)
        self._buckets[size] = _Bucket(static, run, self._recorder.record(run))

    def _static(self, count: int) -> Tensor:
        """Input memory, which sizes share: only one of them runs at a time."""
        for memory in self._memory:
            if len(memory) >= count:
                return memory[:count]
        self._memory.append(self._recorder.memory(count, self._dtype))
        return self._memory[-1]
