"""The contest of preprocessing: regions of pictures that lie on the device, to what CLIP takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from bench.registry import Build, Contest, Provider, call
from dpad_fast.ops import roi_clip_preprocess
from dpad_fast.ops.roi_clip_preprocess import CLIP_MEAN, CLIP_STD

SIZE = 224
Box = tuple[int, int, int, int]
Crop = tuple[int, Box]


def contests(device: str, count: int, height: int, width: int) -> Iterable[Contest]:
    """Of each of `count` pictures [height, width] a box of its own, and the whole."""
    generator = torch.Generator().manual_seed(0)
    host = [torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8) for _ in range(count)]
    images = [image.to(device) for image in host]
    planes = [image.permute(2, 0, 1).contiguous() for image in images]
    boxes = [box for i in range(count) for box in (_box(i, height, width), None)]
    index = [i for i in range(count) for _ in range(2)]
    crops = [(i, box or (0, 0, width, height)) for i, box in zip(index, boxes, strict=True)]
    std = torch.tensor(CLIP_STD, device=device).view(3, 1, 1)

    def levels(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[str, bool]:
        far = ((ours.float() - theirs.float()).abs() * std * 255).max().item()
        return ("equal", True) if far < 1e-3 else (f"up to {far:.1f} grey levels", False)

    def ours(sources: list[torch.Tensor], **options: Any) -> Build:
        return call(lambda: roi_clip_preprocess(sources, boxes, index, size=SIZE, device=device, **options))

    peers = (
        Provider("torchvision v2, crop by crop", lambda threads: torchvision(planes, crops, device), "close"),
        Provider("torchvision v2, crops of one size at once", lambda threads: by_size(planes, crops, device), "close"),
        Provider("transformers' fast processor", lambda threads: processor(planes, crops, device), "close"),
        Provider("kornia", lambda threads: kornia(planes, crops, device), "other"),
        Provider("CV-CUDA, crop by crop", lambda threads: cvcuda(images, crops, device), "other"),
        Provider("CV-CUDA, one batch", lambda threads: cvcuda_batch(images, crops, device), "other"),
    )
    mine = (
        Provider("dpad_fast", ours(images)),
        Provider("dpad_fast, planar", ours(planes)),
        Provider("dpad_fast, channels-last", ours(images, memory_format=torch.channels_last)),
        Provider("dpad_fast, bfloat16", ours(images, dtype=torch.bfloat16), "close"),
        Provider("dpad_fast, float16", ours(images, dtype=torch.float16), "close"),
        Provider("dpad_fast, from host memory", ours(host)),
    )
    yield Contest("preprocess", f"{2 * count} crops of {height} x {width}", mine, peers, levels)


def _box(number: int, height: int, width: int) -> Box:
    """Of a size of its own, as the boxes of a training set are."""
    left, top = width // 20 + number % 7 * width // 60, height // 20 + number % 5 * height // 60
    return left, top, left + width // 2 + number * 3 % (width // 4), top + height // 2 + number * 5 % (height // 4)


def _resized(height: int, width: int) -> tuple[int, int]:
    """The size to which a crop is resized: the shorter side to `SIZE`."""
    short = min(height, width)
    return max(height * SIZE // short, SIZE), max(width * SIZE // short, SIZE)


def _finish(batch: torch.Tensor, device: str) -> torch.Tensor:
    """The centre [N, 3, SIZE, SIZE] of each, as the model takes it."""
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return batch.float().div_(255).sub_(mean).div_(std)


def _centre(image: torch.Tensor) -> torch.Tensor:
    top, left = (image.shape[-2] - SIZE) // 2, (image.shape[-1] - SIZE) // 2
    return image[..., top : top + SIZE, left : left + SIZE]


def _cut(planes: list[torch.Tensor], crops: list[Crop]) -> list[torch.Tensor]:
    return [planes[i][:, top:bottom, left:right] for i, (left, top, right, bottom) in crops]


def torchvision(planes: list[torch.Tensor], crops: list[Crop], device: str) -> Callable[[], torch.Tensor]:
    """What users write first."""
    from torchvision.transforms.v2 import functional as F

    def run() -> torch.Tensor:
        found = [F.resize(c, [SIZE], interpolation=F.InterpolationMode.BICUBIC) for c in _cut(planes, crops)]
        return _finish(torch.stack([_centre(image) for image in found]), device)

    return run


def by_size(planes: list[torch.Tensor], crops: list[Crop], device: str) -> Callable[[], torch.Tensor]:
    """What a careful user writes: crops of one size are resized in one call."""
    from torchvision.transforms.v2 import functional as F

    def run() -> torch.Tensor:
        groups: dict[torch.Size, list[int]] = {}
        cut = _cut(planes, crops)
        for i, crop in enumerate(cut):
            groups.setdefault(crop.shape, []).append(i)
        out = torch.empty(len(cut), 3, SIZE, SIZE, dtype=torch.uint8, device=device)
        for members in groups.values():
            batch = torch.stack([cut[i] for i in members])
            out[members] = _centre(F.resize(batch, [SIZE], interpolation=F.InterpolationMode.BICUBIC))
        return _finish(out, device)

    return run


def processor(planes: list[torch.Tensor], crops: list[Crop], device: str) -> Callable[[], torch.Tensor]:
    """The processor of transformers, on the device."""
    from transformers import CLIPImageProcessor

    made = CLIPImageProcessor()

    def run() -> torch.Tensor:
        out: torch.Tensor = made(_cut(planes, crops), return_tensors="pt", device=device)["pixel_values"]
        return out

    return run


def kornia(planes: list[torch.Tensor], crops: list[Crop], device: str) -> Callable[[], torch.Tensor]:
    """Kornia's resize blurs before it samples, which is another filter."""
    import kornia.geometry as geometry

    def run() -> torch.Tensor:
        options = {"interpolation": "bicubic", "side": "short", "antialias": True}
        found = [geometry.resize(crop[None].float(), SIZE, **options)[0] for crop in _cut(planes, crops)]
        return _finish(torch.stack([_centre(image) for image in found]), device)

    return run


def cvcuda(images: list[torch.Tensor], crops: list[Crop], device: str) -> Callable[[], torch.Tensor]:
    """CV-CUDA's resize with antialiasing, a call for each crop."""
    import cvcuda

    def one(i: int, box: Box) -> torch.Tensor:
        left, top, right, bottom = box
        crop = cvcuda.as_tensor(images[i][top:bottom, left:right].contiguous(), "HWC")
        size = _resized(bottom - top, right - left)
        there = cvcuda.hq_resize(crop, size, antialias=True, interpolation=cvcuda.Interp.CUBIC)
        return torch.as_tensor(there.cuda(), device=device).permute(2, 0, 1)

    return lambda: _finish(torch.stack([_centre(one(i, box)) for i, box in crops]), device)


def cvcuda_batch(images: list[torch.Tensor], crops: list[Crop], device: str) -> Callable[[], torch.Tensor]:
    """The same with one call for all crops, which are regions of interest of their pictures."""
    import cvcuda

    sizes = [_resized(bottom - top, right - left) for _, (left, top, right, bottom) in crops]
    regions = [(top, left, bottom, right) for _, (left, top, right, bottom) in crops]

    def run() -> torch.Tensor:
        batch = cvcuda.as_tensors([images[i] for i, _ in crops], cvcuda.TensorLayout.HWC)
        options = {"antialias": True, "interpolation": cvcuda.Interp.CUBIC, "roi": regions}
        there = cvcuda.hq_resize(batch, sizes, **options)
        found = [torch.as_tensor(image.cuda(), device=device).permute(2, 0, 1) for image in there]
        return _finish(torch.stack([_centre(image) for image in found]), device)

    return run
