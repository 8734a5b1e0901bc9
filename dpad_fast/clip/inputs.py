"""From pictures and regions to model inputs, on the CPU or on the encoder's GPU."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from importlib.util import find_spec

import torch

from dpad_fast.clip.preprocess import PixelSource, Preprocess
from dpad_fast.clip.regions import Region
from dpad_fast.clip.tower.forward import torch_threads

# 64 regions of 224 x 224 are 39 MB of input and some 300 MB of ViT-B/32 activations.
_REGIONS = 64
# Of the files decoded together, 4 bytes each: 256 MiB, or one larger picture. Such files take longer than the model.
_PIXELS = 1 << 26


def input_stream(device: torch.device) -> torch.cuda.Stream | None:
    """The stream that inputs are made on; None where they are made on the CPU: no GPU, or none with Triton."""
    on_gpu = device.type == "cuda" and find_spec("triton") is not None
    return torch.cuda.current_stream(device) if on_gpu else None


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
        if not chunks or len(chunks[-1]) == _REGIONS or (more and pixels and pixels + more > _PIXELS):
            chunks.append([])
            pixels, more = 0, pictures[index].new_pixels
        chunks[-1].append((index, box))
        pixels, last = pixels + more, index
    return chunks


def make_inputs(
    preprocess: Preprocess,
    pictures: Sequence[PixelSource],
    regions: Sequence[tuple[int, Region]],
    threads: int,
    stream: torch.cuda.Stream | None,
) -> torch.Tensor:
    """Regions as the model takes them.

    Args:
        preprocess: the model's own.
        pictures: M images.
        regions: K pairs (index of the picture, box or None for the whole).
        threads: CPU threads of torch's own operations.
        stream: see `input_stream`.

    Returns:
        float32 [K, 3, size, size], on the stream's GPU or the CPU.
    """
    used = {index: place for place, index in enumerate(dict.fromkeys(index for index, _ in regions))}
    pixels = [preprocess.read(pictures[index]) for index in used]
    boxes, numbers = [box for _, box in regions], [used[index] for index, _ in regions]
    with torch_threads(threads), nullcontext() if stream is None else torch.cuda.stream(stream):
        if stream is None:
            return preprocess(pixels, boxes, numbers)
        # Pictures on another GPU are copied too, since the op takes only the host's and its own GPU's.
        elsewhere = [isinstance(image, torch.Tensor) and image.device.type != "cpu" for image in pixels]
        pixels = [image.to(stream.device) if there else image for image, there in zip(pixels, elsewhere, strict=True)]
        return preprocess(pixels, boxes, numbers, stream.device)
