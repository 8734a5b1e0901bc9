"""`Launched`: Triton kernels whose compiled form is found again without Triton's own search."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import triton

_MOST = 256  # compiled forms that are remembered for a kernel
# Before 3.3 a compiled kernel was called without its constants, and for AMD Triton asks how large a tensor's memory is.
_REMEMBERS = tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 3) and torch.version.hip is None


def kinds(arguments: Iterable[Any]) -> list[Any]:
    """What Triton may compile a kernel differently for, of each argument; finer than any of its versions asks.

    For a tensor that is its dtype and what its address is divisible by. Triton knows a whole number by whether it is 1,
    whether 16 divides it, and whether it needs an int32, an int64 or a uint64. Here 0 and 1 stand for themselves, other
    int32 and int64 for the power of 2 up to 512 that divides them, and rarer numbers, which Triton may refuse, for
    themselves. It is one expression because a call for each of 20 arguments would take as long as the launch.
    """
    return [
        (
            value
            if 0 <= value <= 1
            else ~(value & -value & 1023)
            if -(2**31) <= value < 2**31
            else ("int64", value & -value & 1023)
            if -(2**63) <= value < 2**63
            else (int, value)
        )
        if type(value) is int
        else (value.dtype, value.data_ptr() & 127)
        if isinstance(value, torch.Tensor)
        else float
        if type(value) is float
        else (type(value), value)
        for value in arguments
    ]


class Launched:
    """A Triton kernel, to be used as a decorator above `triton.jit` and launched as any other: `kernel[grid](...)`.

    Triton examines every argument, option and global of each launch to find what it has compiled, which takes longer
    than most of our kernels run. Here a tuple is looked up that tells apart all that Triton may compile differently:
    dtypes, what addresses and whole numbers are divisible by, and constants. What is not known yet goes through Triton.

    The first argument is a tensor on the current GPU. A launch has all arguments of the kernel that are no constants by
    place, and all constants and options by name.
    """

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self._known: dict[Any, tuple[Any, tuple[Any, ...]]] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        return partial(self._launch, grid)

    def _launch(self, grid: tuple[int, ...], *arguments: Any, **named: Any) -> Any:
        device = arguments[0].get_device()
        if device < 0 or not _REMEMBERS:  # Triton's interpreter, or compiled for a GPU that is not here
            return self.kernel[grid](*arguments, **named)
        key = (device, *kinds(arguments), *named.items())
        known = self._known.get(key)
        if known is not None:
            compiled, constants = known
            return compiled[(*grid, 1, 1)[:3]](*arguments, *constants)
        compiled = self.kernel[grid](*arguments, **named)
        if compiled is not None:  # as Triton's hooks may have it
            if len(self._known) >= _MOST:
                self._known.clear()
            names = self.kernel.arg_names[len(arguments) :]
            self._known[key] = compiled, tuple(named[name] for name in names)
        return compiled
