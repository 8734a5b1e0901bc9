"""Lists of whole numbers as tensors."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import torch


def int64(values: Iterable[int]) -> torch.Tensor:
    """Int64 [N] on the CPU, in a third of the time of `torch.tensor`, which looks at each number's type."""
    found = array("q", values)
    if not found:  # torch takes no empty buffer
        return torch.empty(0, dtype=torch.int64, device="cpu")
    return torch.frombuffer(found, dtype=torch.int64)
