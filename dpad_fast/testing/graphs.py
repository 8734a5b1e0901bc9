"""CUDA graphs without a GPU: recorders that call the function again or not, and streams as queues in any order."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch

from dpad_fast.clip.tower.graphs import Recorded, Run


class Again:
    """A `Recorder` for the CPU. All results share one memory, as they may in a pool: each replay overwrites the others.

    Attributes:
        captures: how many runs were recorded.
        replays: how many were called again.
        memory_taken: elements of static inputs.
    """

    def __init__(self) -> None:
        self.captures = self.replays = self.memory_taken = 0
        self._lock, self._pool = Lock(), torch.empty(1 << 20)

    @contextmanager
    def using(self) -> Iterator[None]:
        """See `Recorder`."""
        with self._lock:
            yield

    def memory(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """See `Recorder`."""
        self.memory_taken += count
        return torch.zeros(count, dtype=dtype)

    def record(self, run: Run) -> Recorded:
        """See `Recorder`."""
        self.captures += 1
        like = run()
        out = self._pool[: like.numel()].view(like.shape)

        def replay() -> None:
            self.replays += 1
            self._pool.fill_(float("nan"))
            out.copy_(run())

        return Recorded(out, replay)


class Ready:
    """A `Recorder` whose replays take no time once it was given the rows that all of them result in.

    Until then a replay calls the function again, so that what is captured can be checked.
    """

    def __init__(self) -> None:
        self._lock, self._given = Lock(), torch.empty(0)
        self._results: list[torch.Tensor] = []

    def give(self, rows: torch.Tensor) -> None:
        """Every result is the first of these rows [N, D] from here on, of sizes that were captured before too.

        N is at least the largest size, and what is recorded after this is not run.
        """
        self._given = rows
        with torch.inference_mode():  # in which results are made
            for result in self._results:
                result.copy_(rows[: len(result)])

    @contextmanager
    def using(self) -> Iterator[None]:
        """See `Recorder`."""
        with self._lock:
            yield

    def memory(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """See `Recorder`."""
        return torch.zeros(count, dtype=dtype)

    def record(self, run: Run) -> Recorded:
        """See `Recorder`."""
        if len(self._given):
            return Recorded(self._given, lambda: None)
        out = run().clone()
        self._results.append(out)

        def replay() -> None:
            if not len(self._given):
                out.copy_(run())

        return Recorded(out, replay)


class Streams:
    """torch's streams, events and graphs over work that is done late, and in any order that the events allow.

    Attributes:
        current: the name of the stream that `launch` takes.
        log: what was called, in order.

    Args:
        side_streams: how many streams there are, which are given out in turn.
    """

    def __init__(self, side_streams: int = 32) -> None:
        self.side_streams, self._made = side_streams, 0
        self.current, self.log = "default", list[Any]()
        self.capturing: list[Callable[[], None]] | None = None
        self._queues: dict[str, list[tuple[str, Any]]] = {}
        self._reached: dict[int, int] = {}

    def launch(self, work: Callable[[], None]) -> None:
        """Queues work on the current stream, or puts it into the graph that is being captured."""
        if self.capturing is not None:
            self.capturing.append(work)
        else:
            self._queue().append(("work", work))

    def finish(self, seed: int) -> None:
        """Does all work, each time that of a stream by chance among those that wait for nothing.

        Raises:
            RuntimeError: all that is left waits for something.
        """
        rng = random.Random(seed)
        while any(self._queues.values()):
            ready = [queue for queue in self._queues.values() if queue and self._runs(queue[0])]
            if not ready:
                raise RuntimeError("streams wait for each other")
            kind, what = rng.choice(ready).pop(0)
            if kind == "work":
                what()
            elif kind == "record":
                event, count = what
                self._reached[event] = count

    def replace(self, monkeypatch: Any) -> None:
        """Puts itself in the place of `torch.cuda`'s streams, events and graphs."""
        for name in ("Stream", "Event", "CUDAGraph", "stream", "device", "current_stream", "graph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, f"_{name}"))
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")

    def _queue(self, name: str | None = None) -> list[tuple[str, Any]]:
        return self._queues.setdefault(self.current if name is None else name, [])

    def _runs(self, entry: tuple[str, Any]) -> bool:
        kind, what = entry
        return kind != "wait" or self._reached.get(what[0], 0) >= what[1]

    def _Stream(self, device: Any = None, priority: int = 0) -> "_OneStream":
        # As torch's: each priority has streams of its own, which are handed out in turn.
        self._made = self._made % self.side_streams + 1
        return _OneStream(self, f"side {self._made}" if priority == 0 else f"first {self._made}")

    def _Event(self) -> "_OneEvent":
        return _OneEvent(self)

    def _CUDAGraph(self) -> "_OneGraph":
        return _OneGraph(self)

    def _current_stream(self, device: Any = None) -> "_OneStream":
        return _OneStream(self, self.current)

    @contextmanager
    def _stream(self, stream: "_OneStream") -> Iterator[None]:
        before, self.current = self.current, stream.name
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def _device(self, device: Any) -> Iterator[None]:
        self.log.append(("device", device))
        yield

    @contextmanager
    def _graph(self, graph: "_OneGraph", pool: Any, stream: "_OneStream", capture_error_mode: str) -> Iterator[None]:
        self.log.append(("graph", pool, stream.name, capture_error_mode))
        # As torch's own: where the capture fails, the stream stays the capture's.
        self.current, self.capturing = stream.name, graph.work
        try:
            yield
        finally:
            self.capturing = None


class _OneStream:
    def __init__(self, streams: Streams, name: str) -> None:
        self.streams, self.name = streams, name
        self.cuda_stream = name

    def wait_event(self, event: "_OneEvent") -> None:
        self.streams._queue(self.name).append(("wait", (id(event), event.count)))

    def wait_stream(self, other: "_OneStream") -> None:
        event = _OneEvent(self.streams)
        self.streams.log.append(event)  # kept, so that no other gets its id
        event.record(other)
        self.wait_event(event)


class _OneEvent:
    def __init__(self, streams: Streams) -> None:
        self.streams, self.count = streams, 0

    def record(self, stream: _OneStream) -> None:
        self.count += 1
        self.streams._queue(stream.name).append(("record", (id(self), self.count)))


class _OneGraph:
    def __init__(self, streams: Streams) -> None:
        self.streams, self.work = streams, list[Callable[[], None]]()

    def replay(self) -> None:
        for work in self.work:
            self.streams.launch(work)
