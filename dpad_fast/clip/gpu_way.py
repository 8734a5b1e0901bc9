"""`GpuWay`: an encoder's way to its GPU: threads that decode, pinned memory, and a stream of its own for copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from threading import Lock
from typing import Any

import torch

from dpad_fast._native.arena import PinnedArena
from dpad_fast._native.streams import Given, Gpu, Result, on_callers_streams
from dpad_fast._native.upload import PackedImages
from dpad_fast.clip.regions import Region

# Of one copy; more pictures than that go up in several, so that the second is put together while the first travels.
_BYTES = 128 << 20


class GpuWay:
    """What an encoder keeps from step to step for the copies to its GPU. Safe to use from several threads.

    Args:
        gpu: streams, events and memory.
    """

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self._arena = PinnedArena(gpu)
        self._copying = gpu.stream()
        self._lock = Lock()
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def in_threads(self, function: Callable[[Given], Result], items: Iterable[Given], threads: int) -> Iterator[Result]:
        """`map` on up to `threads` threads, which work on the streams of this one."""
        todo = list(items)
        if threads < 2 or len(todo) < 2:
            return map(function, todo)
        return self._threads(threads).map(on_callers_streams(function), todo)

    def send(
        self, images: Sequence[Any], regions: Sequence[tuple[int, Region]], threads: int
    ) -> tuple[list[Any], list[Region]]:
        """Host pictures on the GPU, by one copy where they are not hundreds of megabytes, and the boxes in them.

        Of a picture only the rectangle around its regions goes up. This thread's stream waits for the copies; the work
        that it has been given before does not delay them.

        Args:
            images: M pictures, uint8 [3, H, W]; one that is on a GPU, or is no tensor, stays what it is.
            regions: K pairs (number of the picture, box or None for the whole).
            threads: that fill the pinned memory.
        """
        found, boxes = list(images), [box for _, box in regions]
        pending: list[tuple[int, torch.Tensor]] = []
        for number, image in enumerate(images):
            if not isinstance(image, torch.Tensor) or image.device.type != "cpu":
                continue
            rows = [row for row, (place, _) in enumerate(regions) if place == number]
            piece, moved = _only_needed(image.permute(1, 2, 0), [boxes[row] for row in rows])
            for row, box in zip(rows, moved, strict=True):
                boxes[row] = box
            if pending and sum(part.numel() for _, part in pending) + piece.numel() > _BYTES:
                self._send(pending, found, threads)
                pending = []
            pending.append((number, piece))
        if pending:
            self._send(pending, found, threads)
        return found, boxes

    def _send(self, pending: Sequence[tuple[int, torch.Tensor]], found: list[Any], threads: int) -> None:
        """Replaces the pictures of those numbers in `found`."""
        gpu, packed = self.gpu, PackedImages([piece for _, piece in pending])
        stream = gpu.current()
        with self._arena.block(packed.size) as block:
            packed.fill(block.memory, threads)
            with gpu.on(self._copying):
                there = gpu.empty(packed.size)
                gpu.copy(there, block.memory[: packed.size])
                block.copied = gpu.record(self._copying)
            gpu.after(stream, block.copied)
        gpu.lend(there, stream)
        for (number, _), view in zip(pending, packed.views(there), strict=True):
            found[number] = view.permute(2, 0, 1)

    def _threads(self, count: int) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None or self._pool[0] != count:
                self._pool = count, ThreadPoolExecutor(count, "dpad-pictures")
            return self._pool[1]


def way_to(device: torch.device) -> GpuWay | None:
    """The way to a device; None where inputs are made on the CPU: no GPU, or none with Triton."""
    if device.type != "cuda" or find_spec("triton") is None:
        return None
    return GpuWay(Gpu(device))


def _only_needed(image: torch.Tensor, boxes: Sequence[Region]) -> tuple[torch.Tensor, list[Region]]:
    """The rectangle of a picture [H, W, 3] around its regions, and the regions in it.

    What a region has outside of the picture it has outside of the rectangle too, so that it stays black.
    """
    height, width, _ = image.shape
    known = [box for box in boxes if box is not None]
    if len(known) < len(boxes) or not known:
        return image, list(boxes)
    left, top = (min(max(min(box[i] for box in known), 0), side - 1) for i, side in ((0, width), (1, height)))
    right = max(min(max(box[2] for box in known), width), left + 1)
    bottom = max(min(max(box[3] for box in known), height), top + 1)
    moved = [(x1 - left, y1 - top, x2 - left, y2 - top) for x1, y1, x2, y2 in known]
    return image[top:bottom, left:right], list(moved)
