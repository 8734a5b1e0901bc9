"""Which errors say that the GPU failed: they are raised as they are, and choose no other way of computing."""

from __future__ import annotations

# How CUDA's libraries and Triton begin what they raise as a RuntimeError.
_BEGINNINGS = ("CUDA error", "CUDA out of memory", "CUDA driver error", "cuDNN", "HIP error", "Triton Error")
# CUDA's words where an installation was built for other GPUs. Nothing has run then, and the GPU can be used.
_NO_KERNEL = ("no kernel image is available", "invalid device function")


def is_gpu_failure(error: BaseException) -> bool:
    """Whether the GPU failed (no memory, an illegal access, a launch), and not what it was given."""
    if not isinstance(error, RuntimeError):
        return False
    import torch  # here: what reads plain values does without it

    types = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))  # the second since 2.8
    return isinstance(error, types) or str(error).startswith(_BEGINNINGS)


def raise_gpu_failure(error: BaseException) -> None:
    """Raises the error again where the GPU failed, before it is answered as a mistake of whoever gave a value."""
    if is_gpu_failure(error):
        raise error


def has_no_kernel(error: BaseException) -> bool:
    """Whether a library has no machine code for this GPU, which is known before anything runs."""
    return is_gpu_failure(error) and any(words in str(error) for words in _NO_KERNEL)
