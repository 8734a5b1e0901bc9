"""Which errors say that the GPU failed: they are raised as they are, and choose no other way of computing."""

from __future__ import annotations

import torch

_TYPES = (torch.OutOfMemoryError, *filter(None, (getattr(torch, "AcceleratorError", None),)))  # the second since 2.8
# How CUDA's libraries and Triton begin what they raise as a RuntimeError.
_BEGINNINGS = ("CUDA error", "CUDA out of memory", "CUDA driver error", "cuDNN", "HIP error", "Triton Error")
# CUDA's words where an installation was built for other GPUs. Nothing has run then, and the GPU can be used.
_NO_KERNEL = ("no kernel image is available", "invalid device function")


def is_gpu_failure(error: BaseException) -> bool:
    """Whether the GPU failed (no memory, an illegal access, a launch), and not what it was given."""
    return isinstance(error, _TYPES) or (isinstance(error, RuntimeError) and str(error).startswith(_BEGINNINGS))


def has_no_kernel(error: BaseException) -> bool:
    """Whether a library has no machine code for this GPU, which is known before anything runs."""
    return is_gpu_failure(error) and any(words in str(error) for words in _NO_KERNEL)
