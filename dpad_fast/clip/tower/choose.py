"""Choice of an encoder's forward: the fastest towers of this machine that agree with the model, or the model's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from dpad_fast.clip.tokens import Ids
from dpad_fast.clip.tower.captured import CapturedTowers
from dpad_fast.clip.tower.forward import Forward, OwnForward, TowerForward
from dpad_fast.clip.tower.gpu_attention import choose_gpu_products
from dpad_fast.clip.tower.graphs import CudaRecorder, Recorder
from dpad_fast.clip.tower.products import NativeProducts, TorchProducts, has_amx, products_level
from dpad_fast.clip.tower.towers import Towers
from dpad_fast.clip.tower.weights import ClipWeights, read_weights

# The largest accepted difference of unit embeddings between the towers and the model itself. Another order of
# additions makes some 1e-7; a model that differs from its type makes a thousand times more than this.
_SAME = 5e-6
# The forwards that each precision needs: the exact one (True), the reduced one (False), or both.
_WANTED = {"float32": (True,), "bfloat16": (False,), "guarded": (True, False)}
# The integer products that are faster than float32's, by instruction set. NEON alone has none: it multiplies no more
# 16-bit integers at a time than floats. I8MM multiplies eight times as many 8-bit ones: two digits are faster, and the
# eight products of three digits are not.
_REDUCED = {"amx": "int16", "avx512": "int16", "i8mm": "digits2"}
# The same between a GPU's towers and the CPU's, by precision: above what rounding makes, to bfloat16 or to the TF32
# that the caller may have allowed, and far below what wrong weights, masks or rows make.
_GPU_SAME = {"float32": 1e-2, "bfloat16": 5e-2}


def make_forwards(
    model: torch.nn.Module,
    device: torch.device,
    precision: str,
    own: Callable[[torch.nn.Module], OwnForward],
    probe: Sequence[Ids],
    side: int,
) -> dict[bool, Forward]:
    """The forwards that a precision needs, by whether they are exact (float32).

    "guarded" gets both; where nothing on this machine is faster than float32, both are the same forward.

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
        probed = own(_in_dtype(model, torch.float32, device))
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
        forwards[True] = own(_in_dtype(model, torch.float32, device))
    if precision != "float32":
        # Without AMX a bfloat16 product is no faster than float32's on any CPU that this was measured on.
        slow = precision == "guarded" and device.type == "cpu" and not has_amx()
        forwards[False] = forwards[True] if slow else own(_in_dtype(model, torch.bfloat16, device))
    return forwards


def _cpu_towers(weights: ClipWeights, precision: str) -> Iterator[dict[bool, Towers]]:
    """Candidate towers of this processor, by whether they are exact; the fastest candidate first.

    AMX's numbers are in fixed point, which is too coarse for a model with large outliers; later candidates are for it.
    """
    if has_amx():
        exact = Towers(weights, NativeProducts("digits3"))
        yield {True: exact, False: exact.sharing(NativeProducts("digits2"))}
    level = products_level()
    reduced = None if precision == "float32" else _REDUCED.get(level)
    if reduced is None:
        exact = Towers(weights, TorchProducts() if level == "scalar" else NativeProducts("float32"))
        yield {True: exact, False: exact}
    else:
        # Beside integers, float32 is used for the few captions near the threshold. torch's products use the model's own
        # weights, where this package's would pack half a gigabyte of copies, and with AVX-512 they are as fast.
        exact = Towers(weights, TorchProducts(join=False))
        yield {True: exact, False: Towers(weights, NativeProducts(reduced))}


def _on_gpu(
    model: torch.nn.Module,
    device: torch.device,
    precision: str,
    own: Callable[[torch.nn.Module], OwnForward],
    probe: Sequence[Ids],
    side: int,
) -> dict[bool, Forward]:
    """The packed towers on a GPU, as `make_forwards`; empty where the model is another one or the GPU cannot run them.

    The towers are compared with the model on the CPU, in true float32. On a GPU convolutions (and products, if the
    caller allowed it) use TF32, which hides a small difference.
    """
    weights = read_weights(model, device)
    if weights is None:
        return {}
    here = _in_dtype(model, torch.float32, torch.device("cpu"))
    known = read_weights(here)
    assert known is not None, "a copy has what the model has"
    truth = TowerForward(Towers(known, TorchProducts()))
    if not _agree(truth, own(here), probe, side):
        return {}
    forwards: dict[bool, Forward] = {}
    recorder = CudaRecorder(weights.text.tokens.device) if device.type == "cuda" else None
    for exact in _WANTED[precision]:
        made = _gpu_tower(weights, torch.float32 if exact else torch.bfloat16, device, recorder)
        if not _agree(made, truth, probe, side, _GPU_SAME[made.precision]):
            return {}
        forwards[exact] = made
    return forwards


def _gpu_tower(
    weights: ClipWeights, dtype: torch.dtype, device: torch.device, recorder: Recorder | None
) -> TowerForward:
    towers = (weights.text, weights.image)
    heads = [(tower.body.heads, len(tower.norm.weight) // tower.body.heads) for tower in towers]
    products = choose_gpu_products(dtype, device, heads)
    clip = Towers(weights, products)
    if recorder is None:
        return TowerForward(clip, f", {products.attention}")
    return TowerForward(CapturedTowers(clip, recorder), f", {products.attention}, CUDA graphs")


def _needed(forwards: dict[bool, Forward], precision: str) -> dict[bool, Forward]:
    return {exact: forwards[exact] for exact in _WANTED[precision]}


def _agree(towers: Forward, own: Forward, probe: Sequence[Ids], side: int, same: float = _SAME) -> bool:
    generator = torch.Generator("cpu").manual_seed(0)
    pixels = torch.randn(2, 3, side, side, generator=generator, dtype=torch.float32, device="cpu")
    threads = torch.get_num_threads()
    try:
        pairs = [(f.texts(probe, threads).cpu(), f.images(pixels, threads).cpu()) for f in (towers, own)]
    except (RuntimeError, ValueError, IndexError):  # shapes do not fit: the model differs from its type
        return False
    for mine, theirs in zip(*pairs, strict=True):
        difference = torch.nn.functional.normalize(mine, dim=-1) - torch.nn.functional.normalize(theirs, dim=-1)
        if not bool((difference.abs() <= same).all()):  # false for NaN too
            return False
    return True


def _in_dtype(model: torch.nn.Module, dtype: torch.dtype, device: torch.device) -> Any:
    weights = list(model.parameters())
    if all(weight.dtype == dtype and weight.device == device for weight in weights):
        return model
    # A copy: the caller's model keeps its own dtype and place.
    return copy.deepcopy(model).to(device=device, dtype=dtype)
