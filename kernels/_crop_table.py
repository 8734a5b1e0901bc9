"""What the kernels of `roi_clip_preprocess` are told of each image; the extension's `crop_table` adds its regions."""

from collections.abc import Sequence

import torch

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
