"""Polygons to masks, and IoU of polygons with masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dpad_fast.ops.masks import PackedMasks, iou_of_counts
from dpad_fast.reference import masks as reference_masks
from dpad_fast.reference.polygons import rasterize


def rasterize_polygons(
    polygons: Any, height: int, width: int, *, rule: str = "coco", outline: bool = False, out: str = "packed"
) -> Any:
    """Draws N objects, each one ring [n, 2] or several, into masks [N, height, width]."""
    dense = [rasterize([np.asarray(r, float).reshape(-1, 2) for r in _rings(p)], height, width, rule) for p in polygons]
    masks = np.stack(dense) if dense else np.zeros((0, height, width), bool)
    if out == "dense":
        return torch.from_numpy(masks)
    packed = PackedMasks.from_dense(masks)
    return packed if out == "packed" else packed.to_rle()


def polygon_iou(
    polygons: Any, masks: Any, *, rule: str = "coco", mask_index: Any = None, ignore: Any = None, empty: float = 0.0
) -> torch.Tensor:
    """IoU, float64 [N], of object i with masks[i], or with masks[mask_index[i]]."""
    truth = masks.to_dense() if isinstance(masks, PackedMasks) else torch.as_tensor(masks)
    height, width = truth.shape[1:]
    drawn = rasterize_polygons(polygons, height, width, rule=rule, out="dense").numpy()
    chosen = truth if mask_index is None else truth[torch.as_tensor(mask_index)]
    skip = None if ignore is None else np.asarray(ignore, bool)
    counts = reference_masks.counts(drawn, chosen.numpy().astype(bool), skip)
    return iou_of_counts(torch.from_numpy(counts[0]), torch.from_numpy(counts[1]), empty)


def _rings(polygon: Any) -> list[Any]:
    if isinstance(polygon, np.ndarray | torch.Tensor) and polygon.ndim == 2:
        return [polygon]
    return [polygon] if np.ndim(polygon[0]) == 0 or (np.ndim(polygon[0]) == 1 and len(polygon[0]) == 2) else polygon
