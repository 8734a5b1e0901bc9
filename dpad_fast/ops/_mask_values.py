"""Dense masks as users give them: checks of their sizes and values (bool, 0 and 1, or numbers with a threshold).

Logits, probabilities, 255 for "ignored" and NaN all are "not 0", so reading them as masks would silently give wrong
areas. Bool masks need no check; the ops check bytes while they read them, and other numbers are checked when they
become bool. On a GPU values are not checked, because that would make the stream wait: floats need a threshold there,
and an integer pixel is set where it is not 0.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from dpad_fast._native import extension
from dpad_fast._native.gpu_errors import is_gpu_failure
from dpad_fast.ops._library import register

Dense: TypeAlias = "torch.Tensor | npt.NDArray[Any]"

_BYTES = (torch.uint8, torch.int8)


def as_bytes(name: str, masks: object, threshold: float | None = None) -> torch.Tensor:
    """Bool or byte masks of any shape. Bytes are returned unchecked: ops on the CPU refuse those other than 0 and 1.

    Args:
        name: the argument's name in messages.
        masks: a tensor or an array.
        threshold: masks that are not bool are set above it; None: they must hold 0 and 1.

    Raises:
        ValueError: `masks` is of another type or layout, holds other values (bytes are not checked here), or
            `threshold` does not suit it.
    """
    if threshold is not None:
        threshold = _as_threshold(threshold)
    values = _as_tensor(name, masks, threshold)
    if values.dtype == torch.bool:
        return values
    if values.is_complex():
        raise ValueError(f"{name} must hold real numbers, got {values.dtype}")
    if threshold is None and values.device.type == "cuda" and values.is_floating_point():
        raise ValueError(
            f"{name} must be bool or integers on a GPU, where values are not looked at, got {values.dtype}: compare "
            "first, as masks > 0.5, or give a threshold where the function takes one"
        )
    if threshold is None and values.dtype in _BYTES:
        return values
    if values.requires_grad:
        values = values.detach()
    if threshold is not None and values.is_floating_point() and values.dtype.itemsize == 1:
        values = values.float()  # float8 knows no order
    return _read(values, threshold, name)


def as_dense(name: str, masks: object, threshold: float | None = None, *, or_one: bool = False) -> torch.Tensor:
    """Bool or byte masks [N, H, W], or [H, W] with `or_one`, from a tensor or array."""
    dense = as_bytes(name, masks, threshold)
    if dense.dim() != 3 and not (or_one and dense.dim() == 2):
        raise ValueError(f"{name} must be {'[H, W] or ' if or_one else ''}[N, H, W], got {list(dense.shape)}")
    check_size(name, dense.shape[-2], dense.shape[-1])
    return dense


def as_bools(name: str, values: object) -> torch.Tensor:
    """Bool values of any shape from bool or 0 and 1, which are checked here (on a GPU: 0 or not 0)."""
    found = as_bytes(name, values)
    return found if found.dtype == torch.bool else _read(found, None, name)


def check_bytes(*named: tuple[str, torch.Tensor | None]) -> None:
    """Refuses the first byte that is neither 0 nor 1, by name, place and value.

    Ops call it after they found that one of the named tensors holds such a byte.
    """
    for name, values in named:
        if values is None or values.dtype not in _BYTES or values.numel() == 0:
            continue
        if int(values.view(torch.uint8).numpy().max()) > 1:
            _refuse(name, values, (values == 0) | (values == 1))


def check_size(name: str, height: int, width: int) -> None:
    """Refuses a size that is too large, by name; within a compiled graph only the ops check it, without a name."""
    if torch.compiler.is_compiling():
        return
    if type(height) is not int or type(width) is not int or height >> 62 or width >> 62:
        _check_sides(name, height, width)
    extension.C.check_mask_size(name, height, width)


def _check_sides(name: str, height: Any, width: Any) -> None:
    """Refuses sides that are no whole numbers, or that do not fit into the extension's 64-bit integers."""
    if not hasattr(height, "__index__") or not hasattr(width, "__index__"):
        raise ValueError(f"{name} must be whole numbers, got {height!r:.80} and {width!r:.80}")
    if any(operator.index(side).bit_length() > 62 for side in (height, width)):
        raise ValueError(f"{name} is too large: at most 65535 a side and 2^28 pixels, got {height} x {width}")


def check_one_size(a: Sequence[int], b: Sequence[int]) -> None:
    """Refuses two sizes (height, width) that differ."""
    if tuple(a) != tuple(b):
        raise ValueError(f"a and b must have one size, got {a[0]} x {a[1]} and {b[0]} x {b[1]}")


def check_one_device(names: str, a: torch.Tensor, b: torch.Tensor) -> None:
    """Refuses two devices; with one tensor on "meta" torch would call the fake and return uninitialised memory."""
    if a.device != b.device:
        raise ValueError(f"{names} must be on one device, got {a.device} and {b.device}")


def _as_threshold(threshold: Any) -> float:
    try:
        number = float(threshold)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # RuntimeError: a tensor of several numbers
        if is_gpu_failure(error):
            raise
        number = math.nan
    if isinstance(threshold, bool | str | bytes) or not math.isfinite(number):
        raise ValueError(f"threshold must be finite, got {threshold!r:.80}")
    return number


def _as_tensor(name: str, masks: object, threshold: float | None) -> torch.Tensor:
    if isinstance(masks, torch.Tensor):
        if masks.layout is not torch.strided:
            raise ValueError(f"{name} must be a dense tensor, got {masks.layout}")
        return masks
    if not isinstance(masks, np.ndarray) or masks.dtype.kind not in "biuf":
        what = f"an array of {masks.dtype}" if isinstance(masks, np.ndarray) else type(masks).__name__
        raise ValueError(f"{name} must be a tensor or an array of numbers, got {what}")
    if type(masks) is not np.ndarray and np.ma.is_masked(masks):
        raise ValueError(f"{name} is a masked array with entries left out; fill them, as masks.filled(False)")
    # from_numpy warns of arrays that must not be written, and takes neither negative strides nor bytes in another
    # order, numbers of more than 8 bytes, or fields of records; a comparison makes an array that it takes.
    itemsize = masks.dtype.itemsize
    plain = masks.flags.writeable and masks.dtype.isnative and itemsize <= 8
    plain = plain and all(stride >= 0 and stride % itemsize == 0 for stride in masks.strides)
    if plain:
        return torch.from_numpy(masks)
    return torch.from_numpy(np.asarray(masks != 0 if masks.dtype == bool else _compared(name, masks, threshold)))


def _compared(name: str, values: Any, threshold: float | None) -> Any:
    """A bool tensor or array that says where `values` is set."""
    if threshold is None:
        ones, set_ = values == 1, values != 0
        same = torch.equal(ones, set_) if isinstance(ones, torch.Tensor) else np.array_equal(ones, set_)
        if not same:
            _refuse(name, values, ones == set_)
        return ones
    if isinstance(values, torch.Tensor) and not values.is_floating_point() and values.dtype.itemsize > 1:
        # torch compares large integers as float32, and some unsigned ones not at all; NumPy takes float64.
        return torch.from_numpy(_compared(name, values.numpy(), threshold))
    floating = values.is_floating_point() if isinstance(values, torch.Tensor) else values.dtype.kind == "f"
    above = values > threshold
    if floating:
        numbers = values == values  # false for NaN
        if not bool(numbers.all()):
            _refuse(name, values, numbers)
    elif threshold < 0:
        raise ValueError(f"{name} holds integers, so threshold must not be negative, got {threshold}")
    elif threshold >= 1 and bool((values == 1).any()) and not bool((values > 1).any()):
        raise ValueError(f"{name} holds only 0 and 1, of which none is above threshold {threshold}: give it as bool")
    return above


def _refuse(name: str, values: Any, known: Any) -> None:
    place = [int(i) for i in np.argwhere(~np.asarray(known))[0]]
    value = values[tuple(place)].item()
    if value != value:
        hint = "a mask has no NaN"
    elif value > 1 and value == value // 1:
        hint = "expected 0 and 1: compare first, as masks != 0 or masks == label"
    else:
        hint = "expected 0 and 1: compare first, as masks > 0.5, or give a threshold where the function takes one"
    raise ValueError(f"{name}{place} is {value}; {hint}")


def _read_cpu(masks: torch.Tensor, threshold: float | None, name: str) -> torch.Tensor:
    compared: torch.Tensor = _compared(name, masks, threshold)
    return compared


def _read_cuda(masks: torch.Tensor, threshold: float | None, name: str) -> torch.Tensor:
    return masks != 0 if threshold is None else masks > threshold


def _read_fake(masks: torch.Tensor, threshold: float | None, name: str) -> torch.Tensor:
    return torch.empty_like(masks, dtype=torch.bool)


_read = register(
    "mask_read",
    "(Tensor masks, float? threshold, str name) -> Tensor",
    cpu=_read_cpu,
    cuda=_read_cuda,
    fake=_read_fake,
)
