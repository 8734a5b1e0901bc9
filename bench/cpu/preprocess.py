"""roi_clip_preprocess against what users call today: 16 photographs of 640 x 480, one box and one whole image each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from bench.registry import Build, Contest, Provider
from dpad_fast.ops import roi_clip_preprocess
from dpad_fast.ops.roi_clip_preprocess import CLIP_MEAN, CLIP_STD

SIZE = 224
WIDTH, HEIGHT, COUNT = 640, 480, 16
INDEX = [i for i in range(COUNT) for _ in range(2)]
BOXES: list[tuple[int, int, int, int] | None] = [
    (60 + 9 * i, 40 + 5 * i, 460 + 2 * i, 390 + 3 * i) if k == 0 else None for i in range(COUNT) for k in range(2)
]


@functools.cache
def photographs() -> list[np.ndarray[Any, Any]]:
    """Smooth pictures with noise, seeded: resizing costs the same whatever is on them."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    out = []
    for i in range(COUNT):
        waves = [128 + 90 * np.sin(x / (40 + i + 9 * c)) * np.cos(y / (35 + i)) for c in range(3)]
        noise = rng.normal(0, 12, (HEIGHT, WIDTH, 3))
        out.append(np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8))
    return out


@functools.cache
def pictures() -> list[Image.Image]:
    """The photographs as PIL images."""
    return [Image.fromarray(photograph) for photograph in photographs()]


def compare(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[str, bool]:
    """Grey levels between two normalised results, and whether they are the same to 1 ulp."""
    difference = (ours - theirs).abs() * torch.tensor(CLIP_STD).view(3, 1, 1) * 255
    levels = difference.max().item()
    if levels < 1e-3:
        return "equal", True
    return f"up to {levels:.1f} grey levels, {difference.mean().item():.3f} on average", False


def ours(images: Sequence[Any], **options: Any) -> Build:
    return lambda threads: lambda: roi_clip_preprocess(images, BOXES, INDEX, **options)


def crops_of_pictures() -> list[Image.Image]:
    whole = pictures()
    return [whole[i] if box is None else whole[i].crop(box) for i, box in zip(INDEX, BOXES, strict=True)]


def crops_of_arrays() -> list[np.ndarray[Any, Any]]:
    crops = []
    for i, box in zip(INDEX, BOXES, strict=True):
        x1, y1, x2, y2 = box or (0, 0, WIDTH, HEIGHT)
        crops.append(photographs()[i][y1:y2, x1:x2])
    return crops


def processor(name: str, crops: Callable[[], list[Any]]) -> Build:
    def build(threads: int) -> Callable[[], torch.Tensor]:
        import transformers
        from transformers.models.clip import image_processing_clip, image_processing_pil_clip

        transformers.logging.set_verbosity_error()
        module = image_processing_pil_clip if name.endswith("Pil") else image_processing_clip
        made = getattr(module, name)()
        return lambda: made(crops(), return_tensors="pt")["pixel_values"]

    return build


def rust(crops: Callable[[], list[Any]]) -> Build:
    def build(threads: int) -> Callable[[], torch.Tensor]:
        import hf_processors_rs

        config = {"image_processor_type": "CLIPImageProcessor", "crop_size": SIZE, "size": {"shortest_edge": SIZE}}
        made = hf_processors_rs.ImageProcessor.from_dict(config, backend="pil")

        def call() -> torch.Tensor:
            batch = [np.ascontiguousarray(crop) if isinstance(crop, np.ndarray) else crop for crop in crops()]
            pixels = made(batch, num_threads=threads)
            return torch.from_numpy(pixels["pixel_values"] if isinstance(pixels, dict) else pixels)

        return call

    return build


def open_clip(threads: int) -> Callable[[], torch.Tensor]:
    import open_clip

    transform = open_clip.image_transform(SIZE, is_train=False)
    return lambda: torch.stack([transform(crop) for crop in crops_of_pictures()])


def torchvision_functional(threads: int) -> Callable[[], torch.Tensor]:
    """The fastest that a user can write: bytes until the batch is made, then floats in place."""
    from torchvision.transforms.v2 import functional as F

    tensors = [torch.from_numpy(photograph).permute(2, 0, 1) for photograph in photographs()]  # channels last in memory
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (CLIP_MEAN, CLIP_STD))

    def one(i: int, box: tuple[int, int, int, int] | None) -> torch.Tensor:
        image = tensors[i] if box is None else tensors[i][:, box[1] : box[3], box[0] : box[2]]
        image = F.resize(image, [SIZE], interpolation=F.InterpolationMode.BICUBIC, antialias=True)
        top, left = (image.shape[1] - SIZE) // 2, (image.shape[2] - SIZE) // 2
        return image[:, top : top + SIZE, left : left + SIZE]

    def call() -> torch.Tensor:
        batch = torch.stack([one(i, box) for i, box in zip(INDEX, BOXES, strict=True)])
        return batch.to(torch.float32, memory_format=torch.contiguous_format).sub_(mean).div_(std)

    return call


def kornia(threads: int) -> Callable[[], torch.Tensor]:
    import kornia.geometry as geometry

    mean, std = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)

    def one(crop: np.ndarray[Any, Any]) -> torch.Tensor:
        image = torch.from_numpy(crop).permute(2, 0, 1).float()[None] / 255
        image = geometry.resize(image, SIZE, interpolation="bicubic", side="short", antialias=True)[0]
        top, left = (image.shape[1] - SIZE) // 2, (image.shape[2] - SIZE) // 2
        return (image[:, top : top + SIZE, left : left + SIZE] - mean) / std

    return lambda: torch.stack([one(crop) for crop in crops_of_arrays()])


def opencv(threads: int) -> Callable[[], torch.Tensor]:
    import cv2

    cv2.setNumThreads(threads)
    mean, std = np.array(CLIP_MEAN, np.float32) * 255, np.array(CLIP_STD, np.float32) * 255

    def one(crop: np.ndarray[Any, Any]) -> torch.Tensor:
        height, width = crop.shape[:2]
        scale = SIZE / min(height, width)
        resized = cv2.resize(
            crop, (max(int(width * scale), SIZE), max(int(height * scale), SIZE)), interpolation=cv2.INTER_CUBIC
        )
        top, left = (resized.shape[0] - SIZE) // 2, (resized.shape[1] - SIZE) // 2
        pixels = (resized[top : top + SIZE, left : left + SIZE] - mean) / std
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32))

    return lambda: torch.stack([one(crop) for crop in crops_of_arrays()])


def contests() -> Iterable[Contest]:
    """From arrays, from PIL images, and from PIL images with torchvision's centre."""
    arrays = (
        Provider("transformers, Pillow", processor("CLIPImageProcessorPil", crops_of_arrays)),
        Provider("hf-processors-rs", rust(crops_of_arrays)),
        Provider("transformers, torchvision", processor("CLIPImageProcessor", crops_of_arrays), "close"),
        Provider("torchvision v2, channels last", torchvision_functional, "close"),
        Provider("kornia", kornia, "close"),
        Provider("OpenCV cubic, no antialias", opencv, "other"),
    )
    planar = [torch.from_numpy(photograph).permute(2, 0, 1).contiguous() for photograph in photographs()]
    mine = (
        Provider("dpad_fast, arrays", ours(photographs())),
        Provider("dpad_fast, planar tensors", ours(planar)),
    )
    yield Contest("preprocess", "arrays", mine, arrays, compare, {"exact": 3.0, "any": 2.0})
    peers = (
        Provider("transformers, Pillow", processor("CLIPImageProcessorPil", crops_of_pictures)),
        Provider("hf-processors-rs", rust(crops_of_pictures)),
        Provider("transformers, torchvision", processor("CLIPImageProcessor", crops_of_pictures), "close"),
    )
    yield Contest("preprocess", "PIL", (Provider("dpad_fast, PIL", ours(pictures())),), peers, compare, {"any": 4.0})
    rounded = (Provider("dpad_fast, PIL, center=round", ours(pictures(), center="round")),)
    peers = (Provider("open_clip", open_clip),)
    yield Contest("preprocess", "PIL, open_clip's centre", rounded, peers, compare, {"any": 4.0})
