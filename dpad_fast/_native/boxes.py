"""Boxes on their way into C++."""

from __future__ import annotations

from typing import Any

import torch


def host_boxes(boxes: Any, image_index: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes [K, 4] and image numbers [K], contiguous int64 on the host, as which C++ reads their addresses.

    A caller of the registered op may give whole numbers of any type on any device.

    Raises:
        ValueError: their shapes do not fit.
    """
    corners, numbers = _int64(boxes), _int64(image_index)
    if numbers.dim() != 1 or corners.shape != (*numbers.shape, 4):
        shapes = list(corners.shape), list(numbers.shape)
        raise ValueError(f"boxes must be [K, 4] and image_index [K], got {shapes[0]} and {shapes[1]}")
    return corners, numbers


def _int64(values: Any) -> torch.Tensor:
    if not (isinstance(values, torch.Tensor) and values.dtype == torch.int64 and values.is_cpu):
        values = torch.as_tensor(values, dtype=torch.int64, device="cpu")
    found: torch.Tensor = values.contiguous()
    return found
