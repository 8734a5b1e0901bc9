"""Memory on the CPU for results; that of large ones is kept between calls (`dpad_fast.ops.memory`)."""

from __future__ import annotations

import math

import torch

from dpad_fast._native import extension

LARGE = 1 << 22
"""The memory of an output of at least so many bytes is kept between calls."""


def new_output(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Memory on the CPU that is not set yet, for a result that is written once."""
    return new_output_or_zeros(shape, dtype)[0]


def new_output_or_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[torch.Tensor, bool]:
    """As `new_output`, and whether the memory is all 0 already, as memory from the operating system is.

    A large one is kept for the next call when its last tensor dies (`dpad_fast.ops.memory`).
    """
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        return torch.empty(shape, dtype=dtype, device="cpu"), False
    output = extension.C.Output(size)
    return torch.frombuffer(output, dtype=dtype).view(shape), output.zeros
