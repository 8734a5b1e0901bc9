"""GPUs that are not there: one counts or refuses the waits of the host, one is done at once and copies nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from dpad_fast._native.streams import Gpu
from dpad_fast.clip.gpu_way import GpuWay

_WAITS = {"item", "tolist", "cpu", "numpy", "nonzero", "masked_select", "equal", "allclose", "unique"}
_WAITS |= {"__bool__", "__float__", "__int__", "__index__", "__contains__", "__array__"}


class There(torch.Tensor):
    """A host tensor that passes for one on cuda:0: what would make the host wait for its values is an error.

    So is an operation that mixes it with a host tensor, which torch would copy, and wait for.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation of torch on such a tensor."""
        name = getattr(func, "__name__", "")
        if func == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
            return torch.device("cuda", 0)
        if func == torch.Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return True
        if name in _WAITS:
            raise AssertionError(f"{name} waits for the GPU")
        if name == "to":
            return _moved(args, kwargs or {})
        if not isinstance(func, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
            for part in _tensors((args, kwargs or {})):
                if not isinstance(part, There) and part.dim() > 0:
                    raise AssertionError(f"{name} mixes tensors of the host and the GPU")
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]  # a failed assertion shows it
        return f"There({list(self.shape)}, {self.dtype})"


def there(tensor: torch.Tensor) -> There:
    """The tensor as if it were on cuda:0; over the same memory."""
    return tensor.as_subclass(There)


def here(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as what it is; over the same memory."""
    return tensor.as_subclass(torch.Tensor)


def _moved(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    tensor, *rest = args
    places = [value for value in (*rest, kwargs.get("device")) if isinstance(value, str | torch.device)]
    if any(torch.device(place).type == "cpu" for place in places):
        raise AssertionError("to waits for the GPU")
    found = here(tensor)
    for value in (*rest, kwargs.get("dtype")):
        if isinstance(value, torch.dtype):
            found = found.to(value)
    return there(found)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)


class Stream:
    """Queued copies, of which the first `done` were made."""

    def __init__(self, name: str) -> None:
        self.name, self.queue, self.done = name, list[Callable[[], Any]](), 0

    def run(self, until: int) -> None:
        """Makes the copies before that place."""
        while self.done < until:
            self.done += 1
            self.queue[self.done - 1]()


Event = tuple[Stream, int]


class PretendedGpu(Gpu):
    """Streams whose copies are made as late as their events allow, and memory that holds garbage before.

    Attributes:
        log: what was asked for, in order: (what, stream or size, ...).
        waits: how often the host waited.
    """

    def __init__(self) -> None:
        self.device = torch.device("cuda", 0)
        self.log: list[tuple[Any, ...]] = []
        self.waits = 0
        self._model = Stream("model")
        self._thread = threading.local()

    def stream(self) -> Stream:
        """See `Gpu`."""
        return Stream("copies")

    def current(self) -> Stream:
        """See `Gpu`."""
        return getattr(self._thread, "stream", self._model)

    @contextmanager
    def _on(self, stream: Stream) -> Iterator[None]:
        before = self.current()
        self._thread.stream = stream
        try:
            yield
        finally:
            self._thread.stream = before

    def on(self, stream: Stream) -> AbstractContextManager[None]:
        """See `Gpu`."""
        return self._on(stream)

    def record(self, stream: Stream) -> Event:
        """See `Gpu`."""
        return stream, len(stream.queue)

    def after(self, stream: Stream, event: Event) -> None:
        """See `Gpu`."""
        if event[0] is not stream:
            self.log.append(("after", stream.name, event[0].name))
        event[0].run(event[1])

    def passed(self, event: Event) -> bool:
        """See `Gpu`."""
        return event[0].done >= event[1]

    def wait(self, event: Event) -> None:
        """See `Gpu`."""
        self.waits += 1
        self.log.append(("wait", event[0].name))
        event[0].run(event[1])

    def lend(self, tensor: torch.Tensor, stream: Stream) -> None:
        """See `Gpu`."""
        assert isinstance(tensor, There)
        self.log.append(("lend", stream.name, tensor.numel()))

    def pinned(self, size: int) -> torch.Tensor:
        """See `Gpu`."""
        self.log.append(("pinned", size))
        return torch.full((size,), 0xA5, dtype=torch.uint8, device="cpu")

    def empty(self, size: int) -> torch.Tensor:
        """See `Gpu`."""
        return there(torch.full((size,), 0x5A, dtype=torch.uint8, device="cpu"))

    def copy(self, there: torch.Tensor, pinned: torch.Tensor) -> None:
        """See `Gpu`."""
        stream = self.current()
        self.log.append(("copy", stream.name, pinned.numel()))
        stream.queue.append(lambda: here(there).copy_(pinned))

    def numbers(self, *lists: Sequence[int]) -> list[torch.Tensor]:
        """See `Gpu`."""
        return [there(torch.tensor(list(one), dtype=torch.int64, device="cpu")) for one in lists]

    def rows(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """See `Gpu`."""
        self.log.append(("rows", self.current().name, len(rows)))
        return there(torch.stack(list(rows)))

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Gpu`."""
        assert isinstance(tensor, There)
        self.waits += 1
        self.log.append(("to_host", self.current().name, tensor.numel()))
        return here(tensor).clone()


class IdleGpu(Gpu):
    """A GPU that has done everything at once, over the host's memory: what is left of a step is the host's own work.

    Copies from pinned memory copy nothing, so that what lies there is garbage, and results are where they are wanted.
    """

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def stream(self) -> Any:
        """See `Gpu`."""
        return None

    current = stream

    def on(self, stream: Any) -> AbstractContextManager[None]:
        """See `Gpu`."""
        return nullcontext()

    def record(self, stream: Any) -> Any:
        """See `Gpu`."""
        return None

    def after(self, stream: Any, event: Any) -> None:
        """See `Gpu`."""

    def passed(self, event: Any) -> bool:
        """See `Gpu`."""
        return True

    def wait(self, event: Any) -> None:
        """See `Gpu`."""

    def lend(self, tensor: torch.Tensor, stream: Any) -> None:
        """See `Gpu`."""

    def pinned(self, size: int) -> torch.Tensor:
        """See `Gpu`."""
        return torch.empty(size, dtype=torch.uint8, device="cpu")

    empty = pinned

    def copy(self, there: torch.Tensor, pinned: torch.Tensor) -> None:
        """See `Gpu`."""

    def rows(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        """See `Gpu`."""
        return torch.stack(list(rows))

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        """See `Gpu`."""
        return tensor


def pretend_gpu(encoder: Any) -> PretendedGpu:
    """Lets an encoder on the CPU take its steps as on a GPU; the model is given tensors that pass for a GPU's."""
    gpu = PretendedGpu()
    encoder._way = GpuWay(gpu)
    for forward in set(encoder._forwards.values()):
        forward.texts = _called(gpu, "texts", forward.texts)
        forward.images = _called(gpu, "images", forward.images)
    return gpu


def _called(gpu: PretendedGpu, name: str, call: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def called(given: Any, threads: int) -> torch.Tensor:
        assert isinstance(given, There) or name == "texts"
        gpu.log.append((name, gpu.current().name, len(given)))
        return there(call(here(given) if isinstance(given, torch.Tensor) else given, threads))

    return called
