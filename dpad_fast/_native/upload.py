"""Copies from the host to a GPU, through pinned memory and without waiting; and the choice of the GPU for launches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from dpad_fast._native import extension

_HOST = torch.device("cpu")
_HERE = nullcontext()


def upload(parts: tuple[torch.Tensor, ...], device: torch.device) -> list[torch.Tensor]:
    """Copies host tensors of 64-bit elements to `device`, in one copy from pinned memory, without waiting for it."""
    flat = [_words(part) for part in parts]
    sizes = [len(words) for words in flat]
    staged = torch.empty(sum(sizes), dtype=torch.int64, device="cpu", pin_memory=device.type == "cuda")
    torch.cat(flat, out=staged)
    there = torch.split(staged.to(device, non_blocking=True), sizes)
    return [_like(part, words) for part, words in zip(parts, there, strict=True)]


# A view takes a microsecond even where it changes nothing.


def _words(part: torch.Tensor) -> torch.Tensor:
    words = part if part.dtype is torch.int64 else part.contiguous().view(torch.int64)
    return words if words.dim() == 1 else words.reshape(-1)


def _like(part: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
    same = words if part.dtype is torch.int64 else words.view(part.dtype)
    return same if part.dim() == 1 else same.view(part.shape)


def upload_images(images: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """Images [H, W, 3] on `device`, all in one copy from pinned memory and without waiting for it.

    Three bytes a pixel go up, one where a grey plane is repeated: Pillow's fourth byte and what a view leaves out stay
    behind. Images that are there already are passed through, as all are where `device` is the host.

    Raises:
        ValueError: an image is already on another device than that.
    """
    places = [image.device for image in images]
    found = dict.fromkeys(places)
    for there in found:
        if there.type != "cpu" and (there.type != device.type or device.index not in (None, there.index)):
            raise ValueError(f"images[{places.index(there)}] is on {there}, expected {device} or the host")
    if device.type == "cpu" or _HOST not in found:
        return list(images)
    here = [image for image, there in zip(images, places, strict=True) if there == _HOST]
    packed = PackedImages(here)
    staged = torch.empty(packed.size, dtype=torch.uint8, device="cpu", pin_memory=device.type == "cuda")
    packed.fill(staged, torch.get_num_threads())
    views = iter(packed.views(staged.to(device, non_blocking=True)))
    return [next(views) if there == _HOST else image for image, there in zip(images, places, strict=True)]


class PackedImages:
    """Images one behind the other in one piece of memory: three bytes a pixel, or one where it is grey.

    Args:
        images: uint8 [H, W, 3] on the host, with any strides.

    Attributes:
        size: bytes of all of them.
    """

    def __init__(self, images: Sequence[torch.Tensor]) -> None:
        self._images = images
        self._strides = [_packed_strides(image) for image in images]
        self._starts = [0]
        for image, (_, _, channel) in zip(images, self._strides, strict=True):
            height, width, _ = image.shape
            self._starts.append(self._starts[-1] + height * width * (1 if channel == 0 else 3))
        self.size = self._starts.pop()

    def fill(self, memory: torch.Tensor, threads: int) -> None:
        """Copies all images to their places in `memory`, uint8 [size or more] on the host, on `threads` threads."""
        assert memory.is_contiguous()
        extension.C.pack_pictures(
            [
                (image.data_ptr(), *image.shape[:2], *image.stride(), start)
                for image, start in zip(self._images, self._starts, strict=True)
            ],
            memory.data_ptr(),
            threads,
        )

    def views(self, memory: torch.Tensor) -> list[torch.Tensor]:
        """The images, [H, W, 3] each, in `memory` on any device."""
        return [self._view(i, memory) for i in range(len(self._images))]

    def _view(self, i: int, memory: torch.Tensor) -> torch.Tensor:
        return memory.as_strided(self._images[i].shape, self._strides[i], memory.storage_offset() + self._starts[i])


def _packed_strides(image: torch.Tensor) -> tuple[int, int, int]:
    height, width, _ = image.shape
    _, pixel, channel = image.stride()
    if channel == 0:
        return width, 1, 0
    planes = pixel == 1 and channel != 1
    return (width, 1, height * width) if planes else (3 * width, 3, 1)


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Makes a GPU the current one, to which Triton and others launch, whatever their arguments' addresses say."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return _HERE
    return torch.cuda.device(device)
