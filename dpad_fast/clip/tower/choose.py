"""An encoder's forwards: the fastest towers of this machine that agree with the model, or the model's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from dpad_fast.clip.tokens import Ids
from dpad_fast.clip.tower.forward import Forward, OwnForward, TowerForward
from dpad_fast.clip.tower.gpu_attention import GpuProducts, capability_of, choose_gpu_products
from dpad_fast.clip.tower.graphs import CudaRecorder
from dpad_fast.clip.tower.products import NativeProducts, TorchProducts, has_amx, products_level
from dpad_fast.clip.tower.towers import Towers
from dpad_fast.clip.tower.weights import ClipWeights, read_weights, sizes_fit

# The largest accepted difference of unit embeddings between the towers and the model itself. Another order of
# additions makes some 1e-7; a model that differs from its type makes a thousand times more than this.
_SAME = 5e-6
# The forwards that each precision needs: the exact one (True), the reduced one (False), or both.
_WANTED = {"float32": (True,), "bfloat16": (False,), "guarded": (True, False)}
# The integer products that are faster than float32's, by instruction set. NEON alone has none: it multiplies no more
# 16-bit integers at a time than floats. I8MM multiplies eight times as many 8-bit ones: two digits are faster, and the
# eight products of three digits are not.
_REDUCED = {"amx": "int16", "avx512": "int16", "i8mm": "digits2"}
# The same between a GPU's towers and the CPU's: above what rounding makes, of bfloat16 where reduced, and far below
# what wrong weights, masks or rows make.
_GPU_SAME, _GPU_SAME_REDUCED = 1e-4, 5e-2
_HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def _as_it_is(forward: Forward) -> Forward:
    return forward


@dataclass(frozen=True)
class Candidate:
    """A reduced forward that a GPU could run first.

    Attributes:
        precision: of its products.
        make: makes it; None where it does not compute what the model does.
        again: makes it without looking whether it does, and holds no weights until then.
    """

    precision: str
    make: Callable[[], Forward | None]
    again: Callable[[], Forward]


@dataclass(frozen=True)
class Forwards:
    """What can embed here.

    Attributes:
        exact: float32's; None where no precision but the reduced one was asked for.
        reduced: the reduced one; None where it is to be chosen among candidates, or is not wanted.
        candidates: on a GPU, those for the reduced one.
        finish: what is done to a forward once it is chosen.
    """

    exact: Forward | None
    reduced: Forward | None = None
    candidates: tuple[Candidate, ...] = ()
    finish: Callable[[Forward], Forward] = _as_it_is


def make_forwards(
    model: torch.nn.Module,
    device: torch.device,
    precision: str,
    own: Callable[[torch.nn.Module], OwnForward],
    probe: Sequence[Ids],
    side: int,
    rows_at_once: int | None = None,
) -> Forwards:
    """The forwards that a precision needs.

    "guarded" needs both; where nothing on a CPU is faster than float32, both are the same forward. On a GPU the reduced
    one is chosen by its error on the model, for which "bfloat16" has the exact one too.

    Args:
        model: the caller's; it is left as it is.
        device: where to run.
        precision: "float32", "bfloat16" or "guarded".
        own: makes the model's own forward of a copy.
        probe: captions to compare the towers with the model on.
        side: of a preprocessed image.
        rows_at_once: see `Towers`.

    Raises:
        ValueError: one text or picture has more rows than `rows_at_once`.
    """
    if device.type == "cuda":
        return gpu_forwards(model, device, precision, own, probe, side, rows_at_once)
    weights = read_weights(model) if device.type == "cpu" else None
    if weights is not None and sizes_fit(weights, side):
        probed = own(_in_dtype(model, torch.float32, device))
        for towers in _cpu_towers(weights, precision, rows_at_once):
            made = {exact: TowerForward(clip) for exact, clip in towers.items()}
            if _agree(made[True], probed, probe, side):
                wanted = _WANTED[precision]
                return Forwards(made[True] if True in wanted else None, made[False] if False in wanted else None)
    exact = None if precision == "bfloat16" else own(_in_dtype(model, torch.float32, device))
    # Without AMX a bfloat16 product is no faster than float32's on any CPU that this was measured on.
    if precision == "guarded" and device.type == "cpu" and not has_amx():
        return Forwards(exact, exact)
    return Forwards(exact, None if precision == "float32" else own(_in_dtype(model, torch.bfloat16, device)))


def _cpu_towers(weights: ClipWeights, precision: str, rows: int | None = None) -> Iterator[dict[bool, Towers]]:
    """Candidate towers of this processor, by whether they are exact; the fastest candidate first.

    AMX's numbers are in fixed point, which is too coarse for a model with large outliers; later candidates are for it.
    """
    if has_amx():
        exact = Towers(weights, NativeProducts("digits3"), rows)
        yield {True: exact, False: exact.sharing(NativeProducts("digits2"))}
    level = products_level()
    reduced = None if precision == "float32" else _REDUCED.get(level)
    if reduced is None:
        exact = Towers(weights, TorchProducts() if level == "scalar" else NativeProducts("float32"), rows)
        yield {True: exact, False: exact}
    else:
        # Beside integers, float32 is used for the few captions near the threshold. torch's products use the model's own
        # weights, where this package's would pack half a gigabyte of copies, and with AVX-512 they are as fast.
        exact = Towers(weights, TorchProducts(join=False), rows)
        yield {True: exact, False: Towers(weights, NativeProducts(reduced), rows)}


def gpu_forwards(
    model: torch.nn.Module,
    device: torch.device,
    precision: str,
    own: Callable[[torch.nn.Module], OwnForward],
    probe: Sequence[Ids],
    side: int,
    rows_at_once: int | None = None,
) -> Forwards:
    """As `make_forwards`, on a GPU: packed towers, or the model's own forward where it is another model.

    The towers are compared with the model on the CPU first, where float32 has one meaning, and each tower on the GPU
    with the CPU's, up to rounding.
    """
    kinds = reduced_kinds(device, precision)
    known = read_weights(model)
    if known is not None and sizes_fit(known, side):
        here = _in_dtype(model, torch.float32, torch.device("cpu"))
        truth = TowerForward(Towers(known, TorchProducts()))
        exact = _gpu_tower(model, device, "float32", rows_at_once)
        if _agree(truth, own(here), probe, side) and _agree(exact, truth, probe, side, _GPU_SAME):
            makes = {kind: partial(_gpu_tower, model, device, kind, rows_at_once) for kind in kinds}
            checked = {kind: partial(_agreeing, make, truth, probe, side) for kind, make in makes.items()}
            towers = tuple(Candidate(kind, checked[kind], makes[kind]) for kind in kinds)
            return Forwards(exact, None, towers, _capturing(device))
    owns = {kind: partial(_own_in, model, device, kind, own) for kind in kinds if kind in _HALF}
    made = tuple(Candidate(kind, make, make) for kind, make in owns.items())
    return Forwards(own(_in_dtype(model, torch.float32, device)), None, made)


def reduced_kinds(device: torch.device, precision: str) -> tuple[str, ...]:
    """The reduced precisions to measure on a GPU for an encoder's precision, the preferred one first."""
    if precision != "guarded":
        return () if precision == "float32" else tuple(_HALF)
    capability = capability_of(device)
    if capability is not None and capability < (8, 0):
        return ("float16",)  # neither of the others has fast products there
    tf32 = torch.version.hip is None and torch.backends.cudnn.is_available()  # type: ignore[no-untyped-call]
    return (*_HALF, *(("tf32",) if tf32 else ()))


def _capturing(device: torch.device) -> Callable[[Forward], Forward]:
    """Makes a tower's calls replays of CUDA graphs. Only of those in use: graphs that share a recorder end together."""
    if device.type != "cuda":
        return _as_it_is
    recorder = CudaRecorder(device)
    return lambda forward: forward.captured(recorder) if isinstance(forward, TowerForward) else forward


def _agreeing(make: Callable[[], Forward], truth: Forward, probe: Sequence[Ids], side: int) -> Forward | None:
    made = make()
    return made if _agree(made, truth, probe, side, _GPU_SAME_REDUCED) else None


def _own_in(
    model: torch.nn.Module, device: torch.device, kind: str, own: Callable[[torch.nn.Module], OwnForward]
) -> Forward:
    return own(_in_dtype(model, _HALF[kind], device))


def _gpu_tower(model: torch.nn.Module, device: torch.device, kind: str, rows: int | None) -> TowerForward:
    weights = read_weights(model, device)
    assert weights is not None, "the model was read before"
    towers = (weights.text, weights.image)
    heads = [(tower.body.heads, len(tower.norm.weight) // tower.body.heads) for tower in towers]
    if kind == "tf32":
        products = GpuProducts(torch.float32, tf32=True)
    else:
        products = choose_gpu_products(_HALF.get(kind, torch.float32), device, heads)
    return TowerForward(Towers(weights, products, rows), f", {products.attention}")


def _agree(towers: Forward, own: Forward, probe: Sequence[Ids], side: int, same: float = _SAME) -> bool:
    """Whether two forwards give the same embeddings; what either raises is raised."""
    generator = torch.Generator("cpu").manual_seed(0)
    pixels = torch.randn(2, 3, side, side, generator=generator, dtype=torch.float32, device="cpu")
    threads = torch.get_num_threads()
    pairs = [(f.texts(probe, threads).cpu(), f.images(pixels, threads).cpu()) for f in (towers, own)]
    for mine, theirs in zip(*pairs, strict=True):
        if mine.shape != theirs.shape:
            return False
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
