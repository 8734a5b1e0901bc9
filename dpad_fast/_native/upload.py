"""Copies from the host to a GPU, through pinned memory and without waiting; and the choice of the GPU for launches."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def upload(parts: tuple[torch.Tensor, ...], device: torch.device) -> list[torch.Tensor]:
    """Copies host tensors of 64-bit elements to `device`, in one copy from pinned memory, without waiting for it."""
    flat = [part.contiguous().view(torch.int64).reshape(-1) for part in parts]
    staged = torch.empty(sum(map(len, flat)), dtype=torch.int64, pin_memory=device.type == "cuda")
    torch.cat(flat, out=staged)
    there = torch.split(staged.to(device, non_blocking=True), [part.numel() for part in parts])
    return [piece.view(part.dtype).view(part.shape) for piece, part in zip(there, parts, strict=True)]


def upload_image(pixels: torch.Tensor, device: torch.device, name: str) -> torch.Tensor:
    """The same view of an image [H, W, 3] on `device`, through pinned memory and without waiting for the copy.

    What lies between the pixels (Pillow's fourth byte) goes along, a repeated grey plane goes once; only a view of a
    much larger picture is put together first.

    Raises:
        ValueError: the image is already on another device than that.
    """
    if pixels.device.type != "cpu":
        if pixels.device.type != device.type or device.index not in (None, pixels.device.index):
            raise ValueError(f"{name} is on {pixels.device}, expected {device} or the host")
        return pixels
    if device.type == "cpu":
        return pixels
    extent = [(size, stride) for size, stride in zip(pixels.shape, pixels.stride(), strict=True) if stride > 0]
    span = 1 + sum((size - 1) * stride for size, stride in extent)
    if span > 1.5 * math.prod(size for size, _ in extent):
        grey = pixels.stride(2) == 0
        pixels = pixels[..., :1].contiguous().expand(-1, -1, 3) if grey else pixels.contiguous()
        span = pixels.shape[0] * pixels.shape[1] * (1 if grey else 3)
    staged = torch.empty(span, dtype=torch.uint8, device="cpu", pin_memory=device.type == "cuda")
    staged.copy_(pixels.as_strided((span,), (1,)))
    return staged.to(device, non_blocking=True).as_strided(pixels.shape, pixels.stride())


def on_device_of(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Makes the tensor's GPU the current one, to which Triton launches, whatever its arguments' addresses say."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()
