"""What the kernels of `roi_clip_preprocess` need besides pixels, worked out on the host and copied in one piece."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from dpad_fast._native import extension
from dpad_fast._native.boxes import host_boxes

COLUMN, COLUMNS = extension.C.gpu_crop_columns()
"""Where each number of a box is in its row of the table, by name, and how many they are; csrc/core/crops/gpu_plan.h."""

Facts = tuple[int, int, int, int, int, int, int]


def facts_of(images: Sequence[torch.Tensor]) -> list[Facts]:
    """Of uint8 tensors [H, W, 3 or more] on one device, with any strides.

    Address, strides of a column, a row and a colour, width, height, and the bytes of a pixel where it is read in words.
    """
    found = []
    for image in images:
        (height, width, _), (stride_y, stride_x, stride_c) = image.shape, image.stride()
        facts = image.data_ptr(), stride_x, stride_y, stride_c, width, height
        found.append((*facts, _pixel(*facts)))
    return found


def _pixel(pointer: int, stride_x: int, stride_y: int, stride_c: int, width: int, height: int) -> int:
    """Bytes of a pixel where an image can be read in aligned words, all of whose bytes are the image's; 0 elsewhere."""
    if stride_c != 1 or not 3 <= stride_x <= 4 or pointer % 4 or stride_y < width * stride_x:
        return 0
    end = pointer + (height - 1) * stride_y + width * stride_x
    return stride_x if end % 4 == 0 and (stride_x == 3 or stride_y % 4 == 0) else 0


@dataclass(frozen=True)
class Plan:
    """The kernels' inputs besides pixels, on the device; it is valid as long as the images stay at their addresses."""

    table: torch.Tensor
    normal: torch.Tensor
    weights: int
    between: int
    lines: int
    size: int
    bicubic: bool


def prepare(
    images: Sequence[torch.Tensor],
    boxes: torch.Tensor | np.ndarray[Any, Any],
    image_index: torch.Tensor | np.ndarray[Any, Any],
    *,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
    resize: str,
    interpolation: str,
    center: str,
    order: str,
    mean: Sequence[float],
    std: Sequence[float],
) -> Plan:
    """Do the host's part and copy it to the device; a CUDA graph captures `run` alone.

    Args:
        images: M uint8 tensors [H, W, 3 or more] on one device, with any strides.
        boxes: [K, 4], whole numbers; four times -(1 << 62) stands for the whole image. Best int64 on the host: from a
            GPU it is waited for.
        image_index: [K], likewise.
        size: side of the result.
        dtype: of the result.
        device: of the images and the result.
        resize: `shortest`, `squash` or `longest`.
        interpolation: `bicubic` or `bilinear`.
        center: `floor` or `round`.
        order: `horizontal`, `pillow-12.3` or `pillow-13`: which pass is first.
        mean: 3 numbers.
        std: 3 numbers.

    Raises:
        ValueError: a box or an image number is not as the op describes it.
    """
    boxes, image_index = host_boxes(boxes, image_index)
    shape = (len(boxes), COLUMNS)
    staged = torch.empty(shape, dtype=torch.int64, device="cpu", pin_memory=device.type == "cuda")
    weights, between, lines = extension.C.gpu_crop_table(
        facts_of(images), boxes.data_ptr(), image_index.data_ptr(), len(boxes), size, resize, interpolation, center,
        order, staged.data_ptr(),
    )  # fmt: skip
    there, normal = staged.to(device, non_blocking=True), _normal(tuple(mean), tuple(std), dtype, device)
    return Plan(there, normal, weights, between, lines, size, interpolation == "bicubic")


@lru_cache(maxsize=16)
def _normal(mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """What each byte becomes in each channel, [3, 256], uploaded once."""
    scaled = (np.arange(256) * (1 / 255)).astype(np.float32)
    rows = [(scaled - np.float32(m)) / np.float32(s) for m, s in zip(mean, std, strict=True)]
    return torch.from_numpy(np.stack(rows)).to(dtype).to(device)
