"""From pictures and regions to model inputs, on the CPU or on the encoder's GPU."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from dpad_fast._native.streams import on_callers_streams
from dpad_fast.clip.gpu_way import GpuWay
from dpad_fast.clip.images import Picture, find_keys
from dpad_fast.clip.preprocess import PixelSource, Preprocess
from dpad_fast.clip.regions import Region
from dpad_fast.clip.tower.forward import torch_threads

Chunk = Sequence[tuple[int, Region]]
# 64 regions of 224 x 224 are 39 MB of input and some 300 MB of ViT-B/32 activations.
REGIONS = 64
# Of the files decoded together, 4 bytes each: 256 MiB, or one larger picture. Such files take longer than the model.
_PIXELS = 1 << 26


def chunked(pictures: Sequence[PixelSource], regions: Sequence[tuple[int, Region]]) -> list[list[tuple[int, Region]]]:
    """Regions in pieces that are worked on one after the other, which bounds memory only.

    Args:
        pictures: M images.
        regions: K pairs (index of the picture, box or None for the whole), by picture.
    """
    chunks: list[list[tuple[int, Region]]] = []
    pixels, last = 0, -1
    for index, box in regions:
        more = pictures[index].new_pixels if index != last else 0
        if not chunks or len(chunks[-1]) == REGIONS or (more and pixels and pixels + more > _PIXELS):
            chunks.append([])
            pixels, more = 0, pictures[index].new_pixels
        chunks[-1].append((index, box))
        pixels, last = pixels + more, index
    return chunks


def content_keys(
    pictures: Sequence[PixelSource], regions: Chunk, threads: int, way: GpuWay | None = None
) -> dict[int, Hashable]:
    """Digests of the pictures in use, on `threads` threads.

    Args:
        pictures: M images.
        regions: pairs (index of the picture, box or None for the whole).
        threads: CPU threads.
        way: whose threads to use; None: threads of this call.
    """
    used = list(dict.fromkeys(index for index, _ in regions))
    find_keys([pictures[index] for index in used], threads)
    # What is left is read or decoded first. Threads cost more than to look up the others.
    rest = [index for index in used if not _is_known(pictures[index])]
    if way is not None:
        list(way.in_threads(lambda index: pictures[index].key, rest, threads))
    elif len(rest) > 1 and threads > 1:
        with ThreadPoolExecutor(threads, "dpad-digest") as pool:
            list(pool.map(on_callers_streams(lambda index: pictures[index].key), rest))
    return {index: pictures[index].key for index in used}


def _is_known(picture: PixelSource) -> bool:
    return not isinstance(picture, Picture) or picture.is_known


def ahead(make: Callable[[Chunk], torch.Tensor], chunks: Sequence[Chunk]) -> Iterator[torch.Tensor]:
    """What `make` gives for each chunk; the next chunk's is made by a thread while the caller works on this one's."""
    if len(chunks) < 2:  # a thread would only be waited for
        yield from map(make, chunks)
        return
    made = on_callers_streams(make)
    with ThreadPoolExecutor(1, "dpad-preprocess") as thread:
        inputs = [thread.submit(made, chunks[0])]
        for following in (*chunks[1:], None):
            # Taken out: one that failed and this frame would keep each other, and the pixels it was at.
            ready = inputs.pop().result()
            if following is not None:
                inputs.append(thread.submit(made, following))
            yield ready


def make_inputs(
    preprocess: Preprocess,
    pictures: Sequence[PixelSource],
    regions: Chunk,
    threads: int,
) -> torch.Tensor:
    """Regions as the model takes them, made on the CPU.

    Args:
        preprocess: the model's own.
        pictures: M images.
        regions: K pairs (index of the picture, box or None for the whole).
        threads: CPU threads of torch's own operations.

    Returns:
        float32 [K, 3, size, size].
    """
    used = _numbered(regions)
    pixels = [preprocess.read(pictures[index]) for index in used]
    boxes, numbers = [box for _, box in regions], [used[index] for index, _ in regions]
    with torch_threads(threads):
        return preprocess(pixels, boxes, numbers)


def send_inputs(
    preprocess: Preprocess, pictures: Sequence[PixelSource], regions: Chunk, threads: int, way: GpuWay
) -> torch.Tensor:
    """As `make_inputs`, on the current stream of a GPU, without waiting for it.

    Pictures are decoded by threads, and their pixels go through the way's pinned memory and its stream for copies.
    """
    device, used = way.gpu.device, _numbered(regions)
    numbers = [used[index] for index, _ in regions]
    files = [index for index in used if pictures[index].new_pixels]  # what is decoded already costs a thread more
    found = dict(
        zip(files, way.in_threads(lambda index: preprocess.read(pictures[index]), files, threads), strict=True)
    )
    pixels = [found[index] if index in found else preprocess.read(pictures[index]) for index in used]
    boxes = [box for _, box in regions]
    with torch_threads(threads):
        there, boxes = way.send(
            [_on(device, image) for image in pixels], list(zip(numbers, boxes, strict=True)), threads
        )
        return preprocess(there, boxes, numbers, device)


def _numbered(regions: Chunk) -> dict[int, int]:
    """The pictures in use, numbered from 0."""
    return {index: place for place, index in enumerate(dict.fromkeys(index for index, _ in regions))}


def _on(device: torch.device, image: Any) -> Any:
    """A picture that is on another GPU, copied to this one: the op takes only the host's and its own GPU's."""
    elsewhere = isinstance(image, torch.Tensor) and image.device.type != "cpu" and image.device != device
    return image.to(device) if elsewhere else image
