"""Boxes and image numbers of regions as users give them, as int64 tensors on the host."""

from typing import Any

import numpy as np
import torch

WHOLE_IMAGE = -(1 << 62)
"""A row of four of these in a box tensor stands for the whole image, as None does in a list."""

_NO_BOX = (0, 0, 0, 0)
_MANY = 8  # rows that NumPy reads faster than Python does


def as_index(image_index: Any, boxes: Any, count: int) -> torch.Tensor:
    """Image numbers [K], int64 on the CPU."""
    if image_index is None:
        if boxes is not None and len(boxes) != count:
            raise ValueError(f"image_index is needed where boxes ({len(boxes)}) and images ({count}) differ in number")
        return torch.arange(count, device="cpu")
    numbers = image_index if isinstance(image_index, torch.Tensor) else _from_numbers(image_index, "image_index")
    if numbers.numel() == 0:
        return torch.empty(0, dtype=torch.int64, device="cpu")
    if numbers.dim() != 1 or numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
        raise ValueError(f"image_index must be integers [K], got {numbers.dtype} {list(numbers.shape)}")
    return numbers.to(device="cpu", dtype=torch.int64)


def _from_numbers(values: Any, name: str) -> torch.Tensor:
    """A tensor from what NumPy reads as an array of numbers, in any byte order."""
    array = np.array(values, ndmin=1)
    if torch.compiler.is_compiling():  # where arrays are tensors, which have no such dtypes
        return torch.from_numpy(array)
    if array.dtype.kind not in "biufc":
        raise ValueError(f"{name} must be numbers, got an array of {array.dtype}")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))


def as_boxes(boxes: Any, count: int) -> torch.Tensor:
    """Corners [K, 4], int64 on the CPU."""
    if boxes is None:
        return torch.full((count, 4), WHOLE_IMAGE, dtype=torch.int64, device="cpu")
    # An array of objects holds rows, as a list does.
    if isinstance(boxes, np.ndarray) and (torch.compiler.is_compiling() or boxes.dtype != object):
        boxes = _from_numbers(boxes, "boxes")
    if not isinstance(boxes, torch.Tensor):
        rows = list(boxes)
        boxes = None if len(rows) < _MANY or torch.compiler.is_compiling() else _as_rows(rows)
        if boxes is None:
            rows = [_as_row(box, i) for i, box in enumerate(rows)]
            boxes = torch.tensor(rows, dtype=torch.int64, device="cpu").reshape(len(rows), 4)
    if boxes.numel() == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.dim() != 2 or boxes.shape[1] != 4 or boxes.is_complex() or boxes.dtype == torch.bool:
        raise ValueError(f"boxes must be numbers [K, 4], got {boxes.dtype} {list(boxes.shape)}")
    if boxes.shape[0] != count:
        raise ValueError(f"boxes ({boxes.shape[0]}) and image_index ({count}) differ in number")
    if boxes.is_floating_point():
        # NaN and infinities become numbers far outside of what the op accepts, and are refused there.
        boxes = torch.round(boxes.to("cpu", torch.float64)).nan_to_num(2.0**61, 2.0**61, -(2.0**61))
    corners: torch.Tensor = boxes.to(device="cpu", dtype=torch.int64)
    return corners


def _as_rows(rows: list[Any]) -> torch.Tensor | None:
    """All rows at once where they are None or 4 finite numbers; None where a row has to be looked at by itself."""
    whole = [i for i, box in enumerate(rows) if box is None]
    try:
        table = np.array([_NO_BOX if box is None else box for box in rows], dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # RuntimeError: tensors that NumPy cannot read
        return None
    if table.ndim != 2 or table.shape[1] != 4 or not (np.abs(table) < 2**61).all():
        return None
    corners = np.rint(table).astype(np.int64)
    corners[whole] = WHOLE_IMAGE
    return torch.from_numpy(corners)


def _as_row(box: Any, index: int) -> list[int]:
    if box is None:
        return [WHOLE_IMAGE] * 4
    try:
        corners = [float(value) for value in box]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"boxes[{index}] must be None or 4 finite numbers x1, y1, x2, y2, got {box!r:.80}") from None
    if len(corners) != 4 or not all(abs(corner) < 2**61 for corner in corners):
        raise ValueError(f"boxes[{index}] must be None or 4 finite numbers x1, y1, x2, y2, got {tuple(corners)!s:.80}")
    return [round(corner) for corner in corners]
