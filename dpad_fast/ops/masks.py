"""Masks as bits, and IoU of masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dpad_fast.reference import masks as reference
from dpad_fast.reference import rle as reference_rle


def iou_of_counts(intersection: torch.Tensor, union: torch.Tensor, empty: float) -> torch.Tensor:
    """float64 intersection / union, `empty` where the union is empty."""
    ratio = intersection.to(torch.float64) / union.clamp(min=1).to(torch.float64)
    return torch.where(union == 0, torch.as_tensor(empty, dtype=torch.float64), ratio)


def mask_iou(a: Any, b: Any, *, ignore: Any = None, empty: float = 0.0) -> torch.Tensor:
    """Paired IoU, float64 [N], of masks [N, H, W]."""
    return torch.from_numpy(reference.mask_iou(_dense(a), _dense(b), _maybe(ignore), empty))


def mask_iou_matrix(a: Any, b: Any, *, ignore: Any = None, empty: float = 0.0) -> torch.Tensor:
    """All-pairs IoU, float64 [N, M]."""
    return torch.from_numpy(reference.mask_iou_matrix(_dense(a), _dense(b), _maybe(ignore), empty))


class PackedMasks:
    """N masks [height, width] as bits."""

    def __init__(self, words: torch.Tensor, height: int, width: int) -> None:
        self.words, self.height, self.width = words, height, width

    @classmethod
    def from_dense(cls, masks: Any) -> PackedMasks:
        """Packs bool or integer masks [N, H, W]; anything but 0 is in the mask."""
        array = np.asarray(masks).astype(bool)
        return cls(torch.from_numpy(reference.pack(array)), array.shape[1], array.shape[2])

    def __len__(self) -> int:
        return len(self.words)

    def to_dense(self) -> torch.Tensor:
        """Bool [N, H, W]."""
        return torch.from_numpy(reference.unpack(self.words.numpy(), self.width))

    def to_rle(self) -> list[dict[str, Any]]:
        """N COCO RLE dictionaries, counts as bytes."""
        return [
            {
                "size": [self.height, self.width],
                "counts": reference_rle.string_from_counts(reference_rle.counts_from_mask(mask)),
            }
            for mask in self.to_dense().numpy()
        ]


def _dense(masks: Any) -> Any:
    return (masks.to_dense().numpy() if isinstance(masks, PackedMasks) else np.asarray(masks)).astype(bool)


def _maybe(masks: Any) -> Any:
    return None if masks is None else _dense(masks)
