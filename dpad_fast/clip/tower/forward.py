"""From token ids and pixels to embeddings: by the model's own forward, or by this package's towers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Protocol

import numpy as np
import torch

from dpad_fast._native.upload import on_device, upload
from dpad_fast.clip.fork import one_thread
from dpad_fast.clip.tokens import Ids, Layout
from dpad_fast.clip.tower.captured import CapturedTowers
from dpad_fast.clip.tower.exact import exact_float32, exact_on_cpu
from dpad_fast.clip.tower.graphs import Recorder
from dpad_fast.clip.tower.towers import Towers

TextFeatures = Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]
ImageFeatures = Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]
# Rows of one width that the model sees together: bounds memory, and how much a short caption is padded.
_TOKENS = 4096


class Forward(Protocol):
    """Embeddings, not normalised, float32, where the model is.

    Attributes:
        name: the implementation, in words.
        precision: of the products: "float32", "tf32", "float16", "bfloat16" or "int16".
    """

    name: str
    precision: str

    def texts(self, rows: Sequence[Ids], threads: int) -> torch.Tensor:
        """Embeddings [N, D] of N token id lists."""
        ...

    def images(self, pixels: torch.Tensor, threads: int) -> torch.Tensor:
        """Embeddings [K, D] of K preprocessed images [K, 3, side, side]."""
        ...


class OwnForward:
    """The model's own forward. Float32 is IEEE's, whatever torch's settings allow.

    Args:
        model: on the device and in the precision that it is to run in.
        text_features: from ids [n, width] and lengths [n].
        image_features: from pixels.
        width: of padded rows; None where rows may be as short as their longest, because the tower is causal.
        layout: where the ids stand in a row.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        text_features: TextFeatures,
        image_features: ImageFeatures,
        width: int | None,
        layout: Layout,
    ) -> None:
        weight = next(model.parameters())
        self.precision = str(weight.dtype).removeprefix("torch.")
        self.name = f"{self.precision}, the model's own forward"
        self._model, self._text, self._image = model, text_features, image_features
        self._width, self._layout = width, layout
        self._device, self._dtype = weight.device, weight.dtype

    def texts(self, rows: Sequence[Ids], threads: int) -> torch.Tensor:
        """In buckets of similar length."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        parts = []
        with self._running(threads):
            for bucket in self._buckets(rows, order):
                lengths = torch.tensor([len(rows[i]) for i in bucket], device="cpu")
                width = int(lengths.max()) if self._width is None else self._width
                ids = self._layout.rows([rows[i] for i in bucket], width)
                if self._device.type != "cpu":
                    ids, lengths = upload((ids, lengths), self._device)
                found = self._text(self._model, ids, lengths)
                parts.append(found.detach().to(torch.float32))
        back = torch.empty(len(rows), dtype=torch.long, device="cpu")
        back[torch.tensor(order, device="cpu")] = torch.arange(len(rows), device="cpu")
        if self._device.type != "cpu":
            (back,) = upload((back,), self._device)
        return torch.cat(parts)[back]

    def _buckets(self, rows: Sequence[Ids], order: list[int]) -> Iterator[list[int]]:
        bucket: list[int] = []
        for i in order:  # shortest first, so that the newcomer is the widest
            width = len(rows[i]) if self._width is None else self._width
            longer = self._width is None and bool(bucket) and width > 1.25 * len(rows[bucket[0]]) + 1
            # Many captions of a kind are worth a call of their own; a few are cheaper padded.
            if bucket and ((len(bucket) + 1) * width > _TOKENS or (longer and len(bucket) >= 16)):
                yield bucket
                bucket = []
            bucket.append(i)
        yield bucket

    def images(self, pixels: torch.Tensor, threads: int) -> torch.Tensor:
        """All in one batch."""
        with self._running(threads):
            found = self._image(self._model, pixels.to(self._device, self._dtype))
        return found.detach().to(torch.float32)

    @contextmanager
    def _running(self, threads: int) -> Iterator[None]:
        exact = self._device.type == "cuda" and self._dtype == torch.float32
        with _running(threads, self._device), exact_float32() if exact else nullcontext():
            yield


class TowerForward:
    """This package's towers.

    Args:
        clip: both of them.
        note: what else to say of them in the name.
    """

    def __init__(self, clip: Towers | CapturedTowers, note: str = "") -> None:
        self.precision = clip.products.precision
        self.name = f"{clip.products.name}, packed towers{note}"
        self._clip, self._note = clip, note

    def captured(self, recorder: Recorder) -> TowerForward:
        """The same towers on a GPU, with each call a replay of a CUDA graph."""
        assert isinstance(self._clip, Towers), "captured already"
        return TowerForward(CapturedTowers(self._clip, recorder), f"{self._note}, CUDA graphs")

    def texts(self, rows: Sequence[Ids], threads: int) -> torch.Tensor:
        """Packed."""
        with _running(threads, self._clip.device):
            return self._clip.texts(rows, threads)

    def images(self, pixels: torch.Tensor, threads: int) -> torch.Tensor:
        """In chunks."""
        with _running(threads, self._clip.device):
            return self._clip.images(pixels.to(self._clip.device, torch.float32), threads)


@contextmanager
def _running(threads: int, device: torch.device) -> Iterator[None]:
    """Without gradients, on `threads` threads, and launching to `device`, whatever GPU is the current one.

    On a CPU float32 is IEEE's. On a GPU who launches products sees to it, for a setting is every thread's.
    """
    exact = exact_on_cpu() if device.type == "cpu" else nullcontext()
    with torch.inference_mode(), torch_threads(threads), on_device(device), exact:
        yield


def unit(values: torch.Tensor, name: str, *, first: bool = False) -> torch.Tensor:
    """Embeddings [N, D] divided by their lengths.

    Args:
        values: not normalised.
        name: of the encoder.
        first: they are a first look in reduced precision, whose rows that are not finite are looked at again.

    Raises:
        ValueError: some are not finite, and this is not a first look; calls the encoder `name`.
    """
    found = torch.nn.functional.normalize(values, dim=-1)
    if not first:
        check_finite(found, name)
    return found


def check_finite(values: torch.Tensor, name: str) -> None:
    """Raises a `ValueError` where an embedding is not finite, which waits for a GPU."""
    # NumPy's on the host, since torch wakes its threads for so little.
    finite = np.isfinite(values.detach().numpy()) if values.device.type == "cpu" else torch.isfinite(values)
    if not bool(finite.all()):
        raise ValueError(f"encoder {name!r} returned embeddings that are not finite; are its weights sound?")


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Within it, torch's own operations use `threads` threads; in a forked child one."""
    before = torch.get_num_threads()
    if before == threads or one_thread():
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
