"""How an encoder gets from token ids and pixels to embeddings: the model's own forward, or this package's towers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from dpad_fast.clip.fork import one_thread
from dpad_fast.clip.kernels import NativeKernels, TorchKernels, has_amx, has_avx512
from dpad_fast.clip.tokens import Ids, Layout
from dpad_fast.clip.tower import FastClip
from dpad_fast.clip.varlen import choose_gpu_kernels
from dpad_fast.clip.weights import ClipWeights, read_weights

TextFeatures = Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]
ImageFeatures = Callable[[torch.nn.Module, torch.Tensor], torch.Tensor]
# Rows of one width that the model sees together: bounds memory, and how much a short caption is padded.
_TOKENS = 4096
# The largest difference of unit embeddings between the towers and the model itself. Another order of additions makes
# some 1e-7; a model that is not what its type says makes a thousand times more than this.
_SAME = 5e-6
# By precision, which forwards are needed: exact ones (True), reduced ones, or both.
_WANTED = {"float32": (True,), "bfloat16": (False,), "guarded": (True, False)}
# The same between a GPU's towers and the CPU's, by precision: above what rounding makes, to bfloat16 or to the TF32
# that the caller may have allowed, and far below what wrong weights, masks or rows make.
_GPU_SAME = {"float32": 1e-2, "bfloat16": 5e-2}


class Forward(Protocol):
    """Embeddings, not normalised, float32 on the CPU.

    Attributes:
        name: what computes them, in words.
        precision: of the products: "float32", "bfloat16" or "int16".
    """

    name: str
    precision: str

    def texts(self, rows: Sequence[Ids], threads: int) -> torch.Tensor:
        """Of N token id lists, [N, D]."""
        ...

    def images(self, pixels: torch.Tensor, threads: int) -> torch.Tensor:
        """Of K preprocessed images [K, 3, side, side], [K, D]."""
        ...


class OwnForward:
    """The model's own forward.

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
        with torch.inference_mode(), torch_threads(threads):
            for bucket in self._buckets(rows, order):
                lengths = torch.tensor([len(rows[i]) for i in bucket], device="cpu")
                width = int(lengths.max()) if self._width is None else self._width
                ids = self._layout.rows([rows[i] for i in bucket], width)
                found = self._text(self._model, ids.to(self._device), lengths.to(self._device))
                parts.append(found.detach().to("cpu", torch.float32))
        back = torch.empty(len(rows), dtype=torch.long, device="cpu")
        back[torch.tensor(order, device="cpu")] = torch.arange(len(rows), device="cpu")
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
        with torch.inference_mode(), torch_threads(threads):
            found = self._image(self._model, pixels.to(self._device, self._dtype))
        return found.detach().to("cpu", torch.float32)


class TowerForward:
    """This package's towers.

    Args:
        clip: both of them.
        note: what else to say of them in the name.
    """

    def __init__(self, clip: FastClip, note: str = "") -> None:
        self.precision = clip.kernels.name
        self.name = f"{clip.kernels.products}, packed towers{note}"
        self._clip = clip

    def texts(self, rows: Sequence[Ids], threads: int) -> torch.Tensor:
        """Packed."""
        with torch.inference_mode(), torch_threads(threads):
            return self._clip.texts(rows, threads)

    def images(self, pixels: torch.Tensor, threads: int) -> torch.Tensor:
        """In chunks."""
        with torch.inference_mode(), torch_threads(threads):
            return self._clip.images(pixels.to(self._clip.device, torch.float32), threads)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Operations of torch itself on `threads` threads, meanwhile; in a forked child on one."""
    before = torch.get_num_threads()
    if before == threads or one_thread():
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def make_forwards(
    model: torch.nn.Module,
    device: torch.device,
    precision: str,
    own: Callable[[torch.nn.Module], OwnForward],
    probe: Sequence[Ids],
    side: int,
) -> dict[bool, Forward]:
    """By whether it is exact (float32): the forwards that a precision needs.

    "guarded" gets both; where nothing on this machine is faster than float32 they are the same one.

    Args:
        model: the caller's; it is left as it is.
        device: where to run.
        precision: "float32", "bfloat16" or "guarded".
        own: makes the model's own forward of a copy.
        probe: captions to compare the towers with the model on.
        side: of a preprocessed image.
    """
    weights = read_weights(model) if device.type == "cpu" else None
    if weights is not None:
        probed = own(_as(model, torch.float32, device))
        for towers in _cpu_towers(weights, precision):
            made: dict[bool, Forward] = {exact: TowerForward(clip) for exact, clip in towers.items()}
            if _agree(made[True], probed, probe, side):
                return _needed(made, precision)
    forwards: dict[bool, Forward] = {}
    if device.type == "cuda":
        forwards = _on_gpu(model, device, precision, own, probe, side)
        if forwards:
            return forwards
    if precision != "bfloat16":
        forwards[True] = own(_as(model, torch.float32, device))
    if precision != "float32":
        # Without AMX a bfloat16 product is no faster than float32's on any CPU that this was measured on.
        slow = precision == "guarded" and device.type == "cpu" and not has_amx()
        forwards[False] = forwards[True] if slow else own(_as(model, torch.bfloat16, device))
    return forwards


def _cpu_towers(weights: ClipWeights, precision: str) -> Iterator[dict[bool, FastClip]]:
    """The towers of this processor by whether they are exact, the fastest first.

    AMX's numbers are of a fixed point, which a model with large outliers may not bear: the others are for that.
    """
    if has_amx():
        exact = FastClip(weights, NativeKernels("digits3"))
        yield {True: exact, False: exact.sharing(NativeKernels("digits2"))}
    if precision == "float32" or not has_avx512():
        exact = FastClip(weights, NativeKernels("float32") if has_avx512() else TorchKernels())
        yield {True: exact, False: exact}
    else:
        # Beside int16, float32 is for the few near the threshold: torch's products, as fast, take the model's own
        # weights as they are, where ours would pack half a gigabyte of copies.
        exact = FastClip(weights, TorchKernels(join=False))
        yield {True: exact, False: FastClip(weights, NativeKernels("int16"))}


def _on_gpu(
    model: torch.nn.Module,
    device: torch.device,
    precision: str,
    own: Callable[[torch.nn.Module], OwnForward],
    probe: Sequence[Ids],
    side: int,
) -> dict[bool, Forward]:
    """The packed towers on a GPU, as `make_forwards`; nothing where the model is another one, or the GPU cannot.

    That the towers are the model is found out on the CPU: there float32 is float32, where a GPU's convolutions, and
    products if the caller said so, are of TF32 and hide a small difference.
    """
    weights = read_weights(model, device)
    if weights is None:
        return {}
    here = _as(model, torch.float32, torch.device("cpu"))
    known = read_weights(here)
    assert known is not None, "a copy has what the model has"
    truth = TowerForward(FastClip(known, TorchKernels()))
    if not _agree(truth, own(here), probe, side):
        return {}
    forwards: dict[bool, Forward] = {}
    for exact in _WANTED[precision]:
        made = _gpu_tower(weights, torch.float32 if exact else torch.bfloat16, device)
        if not _agree(made, truth, probe, side, _GPU_SAME[made.precision]):
            return {}
        forwards[exact] = made
    return forwards


def _gpu_tower(weights: ClipWeights, dtype: torch.dtype, device: torch.device) -> TowerForward:
    towers = (weights.text, weights.image)
    heads = [(tower.body.heads, len(tower.norm.weight) // tower.body.heads) for tower in towers]
    kernels = choose_gpu_kernels(dtype, device, heads)
    return TowerForward(FastClip(weights, kernels), f", {kernels.attention}")


def _needed(forwards: dict[bool, Forward], precision: str) -> dict[bool, Forward]:
    return {exact: forwards[exact] for exact in _WANTED[precision]}


def _agree(towers: Forward, own: Forward, probe: Sequence[Ids], side: int, same: float = _SAME) -> bool:
    generator = torch.Generator("cpu").manual_seed(0)
    pixels = torch.randn(2, 3, side, side, generator=generator, dtype=torch.float32, device="cpu")
    threads = torch.get_num_threads()
    try:
        pairs = [(f.texts(probe, threads), f.images(pixels, threads)) for f in (towers, own)]
    except (RuntimeError, ValueError, IndexError):  # shapes that do not fit: not the model that it looked like
        return False
    for mine, theirs in zip(*pairs, strict=True):
        difference = torch.nn.functional.normalize(mine, dim=-1) - torch.nn.functional.normalize(theirs, dim=-1)
        if not bool((difference.abs() <= same).all()):  # false for NaN too
            return False
    return True


def _as(model: torch.nn.Module, dtype: torch.dtype, device: torch.device) -> Any:
    weights = list(model.parameters())
    if all(weight.dtype == dtype and weight.device == device for weight in weights):
        return model
    # A copy: the caller's model keeps its own dtype and place.
    return copy.deepcopy(model).to(device=device, dtype=dtype)
