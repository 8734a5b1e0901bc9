"""The table of boxes of `roi_clip_preprocess`: what the kernels are told of each region, worked out on the host."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def facts_of(images: Sequence[torch.Tensor]) -> np.ndarray[Any, Any]:
    """What the table says of M uint8 tensors [H, W, 3 or more] on one device, with any strides: int64 [M, 7].

    Address, strides of a column, a row and a colour, width, height, and the bytes of a pixel where it is read in words.
    """
    flat: list[int] = []
    for image in images:
        (height, width, _), (stride_y, stride_x, stride_c) = image.shape, image.stride()
        facts = image.data_ptr(), stride_x, stride_y, stride_c, width, height
        flat += (*facts, _pixel(*facts))
    return np.array(flat, dtype=np.int64).reshape(-1, 7)


def _pixel(pointer: int, stride_x: int, stride_y: int, stride_c: int, width: int, height: int) -> int:
    """Bytes of a pixel where an image can be read in aligned words, all of whose bytes are the image's; 0 elsewhere."""
    if stride_c != 1 or not 3 <= stride_x <= 4 or pointer % 4 or stride_y < width * stride_x:
        return 0
    end = pointer + (height - 1) * stride_y + width * stride_x
    return stride_x if end % 4 == 0 and (stride_x == 3 or stride_y % 4 == 0) else 0


def fill(
    table: np.ndarray[Any, Any],
    facts: np.ndarray[Any, Any],
    boxes: np.ndarray[Any, Any],
    size: int,
    resize: str,
    interpolation: str,
    center: str,
    order: str,
) -> tuple[int, int, int]:
    """Fills the table, int64 [K, columns], from the facts [K, 7] of each box's image.

    Returns:
        How many weights and bytes between the passes the boxes need in all, and lines of the first pass one needs.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    source = high - low  # [K, 2]: width and height of the crop
    target = _target_sizes(source, size, resize)
    margin = target - size
    offset = margin // 2 if center == "floor" else np.rint(margin / 2.0).astype(np.int64)
    if resize == "longest":  # nothing else leaves a side shorter than `size`
        offset = np.where(margin < 0, -(-margin // 2), offset)
    scale = source / target
    reach = np.maximum(scale, 1.0)
    taps = np.ceil(2.0 * reach if interpolation == "bicubic" else reach).astype(np.int64) * 2 + 1
    weights = taps.ravel() * size
    ends = weights.cumsum()
    first = _vertical_first(source, target, order)
    # Lines of the first pass: what of the crop lies in the image, across that pass's axis.
    seen = np.maximum(np.minimum(high, facts[:, 4:6]) - np.maximum(low, 0), 0)
    lines = np.where(first, seen[:, 0], seen[:, 1])
    planes = 3 * np.where(first, size * -(-lines // 16), lines * -(-size // 16))  # in 16 bytes
    between = planes.cumsum()
    one_by_one = np.stack((first, lines, between - planes, facts[:, 6]), axis=1)
    pairs = (low, source, target, offset, scale.view(np.int64), taps, (ends - weights).reshape(-1, 2))
    np.concatenate((facts[:, :6], *pairs, one_by_one), axis=1, out=table)
    return int(ends[-1]), int(16 * between[-1]), int(lines.max())


def _vertical_first(source: np.ndarray[Any, Any], target: np.ndarray[Any, Any], order: str) -> np.ndarray[Any, Any]:
    """Whether Pillow's first pass is the vertical one: bool [K]."""
    if order == "horizontal":
        return np.zeros(len(source), dtype=bool)
    lost = (source - target)[:, 1]
    if order == "pillow-13":
        return (lost > 0) & (lost > 2 * (source - target)[:, 0])
    return (lost > 0) & (source[:, 1] > 100 * source[:, 0])


def _target_sizes(source: np.ndarray[Any, Any], size: int, resize: str) -> np.ndarray[Any, Any]:
    """Width and height [K, 2] after the resize, rounded as the processors round them."""
    if resize == "squash":
        return np.full_like(source, size)
    if resize == "shortest":
        shorter = source.min(axis=1, keepdims=True)
        return np.where(source == shorter, size, (size * source / shorter).astype(np.int64))
    ratio = (source / size).max(axis=1, keepdims=True)
    return np.maximum(np.rint(source / ratio).astype(np.int64), 1)
