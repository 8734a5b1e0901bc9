"""Streams, events and pinned memory of a GPU, and how threads and callers hand work from one stream to another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from threading import Lock
from typing import Any, TypeVar

import torch

from dpad_fast._native.numbers import int64
from dpad_fast._native.upload import upload

Given = TypeVar("Given")
Result = TypeVar("Result")


class Gpu:
    """What the steps of an encoder ask of CUDA; `dpad_fast.testing.gpu` has one that runs on the CPU and keeps count.

    Args:
        device: without an index it is the one that is current here and now: other threads have another current one.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device if device.index is not None else torch.device("cuda", torch.cuda.current_device())

    def stream(self) -> Any:
        """A new stream."""
        return torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def current(self) -> Any:
        """The stream of this thread."""
        return torch.cuda.current_stream(self.device)

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        """What is launched inside goes to the stream."""
        return torch.cuda.stream(stream)

    def record(self, stream: Any) -> Any:
        """An event behind what the stream has been given so far."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(stream)
        return event

    def after(self, stream: Any, event: Any) -> None:
        """What the stream is given from here on begins after the event; nothing waits here."""
        stream.wait_event(event)

    def passed(self, event: Any) -> bool:
        """Whether the GPU is beyond the event."""
        return bool(event.query())

    def wait(self, event: Any) -> None:
        """Waits until the GPU is beyond the event."""
        event.synchronize()

    def lend(self, tensor: torch.Tensor, stream: Any) -> None:
        """The tensor's memory is not given to anybody else before what the stream has been given so far is done."""
        tensor.record_stream(stream)

    def pinned(self, size: int) -> torch.Tensor:
        """Pinned host memory, uint8 [size]."""
        return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)

    def empty(self, size: int) -> torch.Tensor:
        """Memory of the GPU, uint8 [size], of this thread's stream."""
        return torch.empty(size, dtype=torch.uint8, device=self.device)

    def copy(self, there: torch.Tensor, pinned: torch.Tensor) -> None:
        """Queues a copy from pinned memory."""
        there.copy_(pinned, non_blocking=True)

    def numbers(self, *lists: Sequence[int]) -> list[torch.Tensor]:
        """Lists of whole numbers as int64 tensors on the GPU, by one queued copy."""
        return upload(tuple(map(int64, lists)), self.device)

    def rows(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """K host rows, float32 [D] each, as [K, D] on the GPU, by one queued copy."""
        staged = torch.empty((len(rows), len(rows[0])), dtype=torch.float32, device="cpu", pin_memory=True)
        return torch.stack(list(rows), out=staged).to(self.device, non_blocking=True)

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy in host memory, which is waited for."""
        here = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
        here.copy_(tensor, non_blocking=True)
        self.wait(self.record(self.current()))
        return here


def callers_streams() -> Callable[[], AbstractContextManager[Any]]:
    """A context in which another thread works on the streams that are current in this one, and on its current GPU.

    A new thread has every GPU's default stream, which does not wait for the pictures that a caller's own stream makes.
    """
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return nullcontext
    first = torch.cuda.current_device()
    others = [number for number in range(torch.cuda.device_count()) if number != first]
    current = [torch.cuda.current_stream(number) for number in others]
    # A thread is on the default streams anyway, and to set one of a GPU that is not in use would open it.
    streams = [stream for stream in current if stream != torch.cuda.default_stream(stream.device)]
    here = torch.cuda.current_stream(first)
    if first == 0 and not streams and here == torch.cuda.default_stream(first):
        return nullcontext  # what a thread begins with; to set it costs more than some of the work
    streams.append(here)  # the last one's GPU is current
    return lambda: _on_all(streams)


@contextmanager
def _on_all(streams: Iterable[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for stream in streams:
            stack.enter_context(torch.cuda.stream(stream))
        yield


def on_callers_streams(function: Callable[[Given], Result]) -> Callable[[Given], Result]:
    """The function, for other threads: it works on the streams that are current in this one."""
    streams = callers_streams()

    def there(item: Given) -> Result:
        with streams():
            return function(item)

    return there


class OwnStreams:
    """A stream per GPU for work beside a caller's, which begins when the caller's inputs are there."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, Any] = {}
        self._lock = Lock()

    def beside(self, inputs: Iterable[Any], device: torch.device | None) -> Callable[[], AbstractContextManager[Any]]:
        """A context for the threads that do the work; it may be entered more than once.

        Args:
            inputs: what the work reads; tensors on a GPU are as the caller's current stream leaves them.
            device: where else the work launches kernels; None: nowhere.
        """
        tensors = [value for value in inputs if isinstance(value, torch.Tensor) and value.is_cuda]
        used = {tensor.device for tensor in tensors}
        events = [(self._stream(there), torch.cuda.current_stream(there).record_event()) for there in used]
        if device is not None and device.type == "cuda":
            used.add(Gpu(device).device)
        if not used:
            return nullcontext
        streams = [self._stream(there) for there in used]

        @contextmanager
        def entered() -> Iterator[None]:
            for stream, event in events:
                stream.wait_event(event)
            for tensor in tensors:
                # The caller may let go of it while kernels that an error has left behind still read it.
                tensor.record_stream(self._stream(tensor.device))
            with _on_all(streams):
                yield

        return entered

    def _stream(self, device: torch.device) -> Any:
        with self._lock:
            if device not in self._streams:
                self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            return self._streams[device]
