"""Crop, resize, centre crop and normalise, one step after the other, in the integer arithmetic of Pillow's resize."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # [H, W, 3]
Box = tuple[float, float, float, float]

PRECISION_BITS = 22  # 32 bits less 8 of the pixel and 2 for weights that are negative or sum above 1


def roi_clip_preprocess(
    images: Sequence[Pixels],
    boxes: Sequence[Box | None],
    image_index: Sequence[int],
    *,
    size: int = 224,
    resize: str = "shortest",
    interpolation: str = "bicubic",
    center: str = "floor",
    order: str = "pillow-13",
    mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073),
    std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711),
) -> npt.NDArray[np.float32]:
    """Compute what `dpad_fast.ops.roi_clip_preprocess` describes, in float32 and for RGB arrays [H, W, 3]."""
    out = [
        normalised(picture(images[index], box, size, resize, interpolation, center, order), mean, std)
        for box, index in zip(boxes, image_index, strict=True)
    ]
    return np.stack(out) if out else np.empty((0, 3, size, size), np.float32)


def picture(
    image: Pixels, box: Box | None, size: int, resize: str, interpolation: str, center: str, order: str
) -> Pixels:
    """Everything before normalisation: uint8 [size, size, 3]."""
    cropped = image if box is None else crop(image, box)
    height, width = resized_size(cropped.shape[0], cropped.shape[1], size, resize)
    resized = resample(cropped, height, width, interpolation, order)
    return center_crop_or_pad(resized, size, center)


def crop(image: Pixels, box: Box) -> Pixels:
    """Do what `PIL.Image.crop` does: corners rounded half to even, black outside the image."""
    x1, y1, x2, y2 = (round(value) for value in box)
    out = np.zeros((y2 - y1, x2 - x1, 3), np.uint8)
    height, width = image.shape[:2]
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    if left < right and top < bottom:
        out[top - y1 : bottom - y1, left - x1 : right - x1] = image[top:bottom, left:right]
    return out


def resized_size(height: int, width: int, size: int, resize: str) -> tuple[int, int]:
    """Height and width after the resize and before the centre crop."""
    if resize == "squash":
        return size, size
    if resize == "shortest":  # transformers get_resize_output_image_size, torchvision Resize(int)
        if width <= height:
            return int(size * height / width), size
        return size, int(size * width / height)
    ratio = max(height / size, width / size)  # open_clip ResizeKeepRatio(longest=1)
    return max(round(height / ratio), 1), max(round(width / ratio), 1)


def resample(image: Pixels, height: int, width: int, interpolation: str, order: str) -> Pixels:
    """Do what `PIL.Image.resize` does: two passes with 8 bits between them."""
    columns = weights(image.shape[1], width, interpolation)
    rows = weights(image.shape[0], height, interpolation)
    if vertical_first(image.shape[0], image.shape[1], height, width, order):
        return one_pass(one_pass(image, rows).swapaxes(0, 1), columns).swapaxes(0, 1)
    return one_pass(one_pass(image.swapaxes(0, 1), columns).swapaxes(0, 1), rows)


def vertical_first(height: int, width: int, new_height: int, new_width: int, order: str) -> bool:
    """Which pass Pillow runs first: it changed in 12.3 (for very tall images) and again in 13.0."""
    lost = height - new_height
    if order == "pillow-13":
        return lost > 0 and lost > 2 * (width - new_width)
    return order == "pillow-12.3" and lost > 0 and height > 100 * width


def one_pass(image: Pixels, rows: list[tuple[int, list[int]]]) -> Pixels:
    """Weight the rows of an image: [H, W, 3] to [len(rows), W, 3]."""
    out = np.empty((len(rows), *image.shape[1:]), np.uint8)
    for i, (first, taps) in enumerate(rows):
        window = image[first : first + len(taps)].astype(np.int64)
        total = (window * np.array(taps)[:, None, None]).sum(axis=0) + (1 << (PRECISION_BITS - 1))
        out[i] = np.clip(total >> PRECISION_BITS, 0, 255)
    return out


def weights(source: int, target: int, interpolation: str) -> list[tuple[int, list[int]]]:
    """For each of `target` outputs the first source pixel and the 22-bit weights: precompute_coeffs in Resample.c."""
    scale = source / target
    filter_scale = max(scale, 1.0)
    support = (2.0 if interpolation == "bicubic" else 1.0) * filter_scale
    out = []
    for i in range(target):
        centre = (i + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        last = min(int(centre + support + 0.5), source)
        # Multiplied by the reciprocal, not divided by the scale: the last bit differs, and Pillow multiplies.
        raw = [kernel((x - centre + 0.5) * (1.0 / filter_scale), interpolation) for x in range(first, last)]
        total = 0.0
        for value in raw:  # in order: sum() compensates from Python 3.12 on
            total += value
        out.append((first, [fixed_point(value / total if total != 0.0 else value) for value in raw]))
    return out


def kernel(x: float, interpolation: str) -> float:
    """The triangle, or Keys' cubic with a = -0.5."""
    x = abs(x)
    if interpolation == "bilinear":
        return max(1.0 - x, 0.0)
    a = -0.5
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    if x < 2.0:
        return (((x - 5) * x + 8) * x - 4) * a
    return 0.0


def fixed_point(value: float) -> int:
    """Round half away from zero to 22 fractional bits."""
    return math.trunc(value * (1 << PRECISION_BITS) + (-0.5 if value < 0 else 0.5))


def center_crop_or_pad(image: Pixels, size: int, center: str) -> Pixels:
    """Cut the middle [size, size]; a side that is shorter is padded with black, the odd pixel after it."""
    out = np.zeros((size, size, 3), np.uint8)
    top, left = (center_offset(side - size, center) for side in image.shape[:2])
    source = image[max(top, 0) : max(top, 0) + size, max(left, 0) : max(left, 0) + size]
    y, x = max(-top, 0), max(-left, 0)
    out[y : y + source.shape[0], x : x + source.shape[1]] = source
    return out


def center_offset(margin: int, center: str) -> int:
    """Where the centre crop starts; negative where the picture is padded instead."""
    if margin < 0:
        return -(-margin // 2)
    return margin // 2 if center == "floor" else round(margin / 2.0)


def normalised(image: Pixels, mean: Sequence[float], std: Sequence[float]) -> npt.NDArray[np.float32]:
    """Scale, subtract and divide with a float32 rounding after each, as the processors do: [3, size, size]."""
    scaled = (image.astype(np.float64) * (1 / 255)).astype(np.float32)
    result: npt.NDArray[Any] = (scaled - np.array(mean, np.float32)) / np.array(std, np.float32)
    return np.ascontiguousarray(result.transpose(2, 0, 1))
