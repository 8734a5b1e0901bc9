"""Where the extension finds a tensor's memory."""

from __future__ import annotations

import torch


def address(tensor: torch.Tensor | None) -> int:
    """Address of the tensor's first element, which the caller keeps alive; 0, a null pointer, for None."""
    return 0 if tensor is None else tensor.data_ptr()
