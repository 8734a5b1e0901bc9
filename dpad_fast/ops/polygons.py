"""Polygons to masks, and IoU of polygons with masks.

Each rule follows its source to the pixel:

- `coco`: vertices times 5, plus 0.5, cut to integers; outlines on that finer grid; a pixel column changes where the
  outline passes its middle. `frPyObjects`, `merge` and `decode` of pycocotools (`rleFrPoly`). Rings are joined.
- `opencv`: vertices cut to integers; the outline by Bresenham's rule, the inside even-odd over all rings in 16.16 fixed
  point, with OpenCV's clipping. `cv2.fillPoly` on int32 vertices. `cv2.polylines` of thickness 1 draws the same lines
  that `fillPoly` has drawn already, so `outline=True` (how ReasonSeg draws) changes no pixel; it is there to say so.
- `center`: a pixel is inside where its centre is, even-odd over all rings; an edge owns its upper end, and a centre on
  an edge counts as right of the edge, so that polygons that share an edge share no pixel and leave none out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dpad_fast._native import extension
from dpad_fast._native.upload import upload
from dpad_fast.ops import _mask_ops as ops
from dpad_fast.ops._mask_values import Dense, check_size
from dpad_fast.ops._polygon_input import RULES as RULES
from dpad_fast.ops._polygon_input import check_choice, check_rule, read_on_host
from dpad_fast.ops._polygon_input import gather as gather
from dpad_fast.ops.packed_masks import PackedMasks, as_packed, ignore_parts

OUTPUTS = ("packed", "dense", "rle")


def rasterize_polygons(
    polygons: Any,
    height: int,
    width: int,
    *,
    rule: str = "coco",
    outline: bool = False,
    out: str = "packed",
    device: torch.device | str | None = None,
) -> Any:
    """Draws N objects into masks, on a GPU where the vertices are there or `device` says so.

    Args:
        polygons: N objects. An object is one ring or a list of rings; a ring is an array or tensor [n, 2] of (x, y), a
            list of pairs, or a flat x0, y0, x1, y1, ...; coordinates in pixels, inside the image or not. On the host
            an object has at least one ring; an empty list beside tensors that are on a GPU is an empty mask.
        height: rows of the masks.
        width: columns of the masks.
        rule: "coco", "opencv" or "center"; see this module.
        outline: with "opencv", also draw `cv2.polylines` of thickness 1, which adds nothing (see this module).
        out: "packed", "dense" or "rle".
        device: where to draw; None: where the vertices are.

    Returns:
        `PackedMasks`; or bool [N, height, width]; or N dictionaries in COCO's compressed form.

    Raises:
        ValueError: a ring has fewer than 3 vertices, or a coordinate that is not finite or beyond 1e7 (the message
            names object and ring; where vertices are already on a GPU, finding out would stall the stream, and the
            object is drawn as empty); a size is negative or too large; or a choice is unknown.
    """
    check_rule(rule, outline)
    check_choice("out", out, OUTPUTS)
    check_size("height and width", height, width)
    if out == "packed":
        return PackedMasks._drawn(polygons, height, width, rule, device)
    held = read_on_host(polygons, device)
    if held is not None and out == "rle":
        return extension.C.polygons_to_rle(held.args, height, width, rule, torch.get_num_threads())
    if held is not None:
        return ops.draw_dense_on_cpu(held.args, height, width, rule)
    flat = gather(polygons, device)
    if out == "dense":
        return ops.draw_dense(*flat, height, width, rule)
    return PackedMasks._from_parts(ops.draw(*flat, height, width, rule), width).to_rle()


def polygon_iou(
    polygons: Any,
    masks: Dense | PackedMasks,
    *,
    rule: str = "coco",
    mask_index: torch.Tensor | Sequence[int] | None = None,
    ignore: Dense | PackedMasks | None = None,
    empty: float = 0.0,
) -> torch.Tensor:
    """IoU of polygons with masks; no mask of a polygon is made.

    Args:
        polygons: N objects, as in `rasterize_polygons`.
        masks: M masks [M, H, W], bool or 0 and 1, or `PackedMasks` (which takes logits and probabilities).
        rule: "coco", "opencv" or "center"; see this module.
        mask_index: [N], the mask of each object; None: object i belongs to mask i, and N = M. One outside of [0, M) is
            a ValueError; in a tensor on a GPU, where finding out would stall the stream, it is an empty union.
        ignore: [H, W] or [M, H, W], bool or 0 and 1, pixels that count for neither side.
        empty: the IoU where the union is empty.

    Returns:
        float64 [N]; no gradient.

    Raises:
        ValueError: an argument is not as described.
    """
    check_rule(rule)
    truth = as_packed("masks", masks)
    flat = gather(polygons, truth.words.device)
    index = None if mask_index is None else _as_index(mask_index, truth)
    n = flat[2].shape[0] - 1
    if index is None and n != len(truth):
        raise ValueError(f"polygons and masks must be as many unless mask_index is given, got {n} and {len(truth)}")
    if index is not None and index.shape != (n,):
        raise ValueError(f"mask_index must be [N] with N = {n}, got {list(index.shape)}")
    skip = ignore_parts(ignore, truth, "one per mask")
    return ops.iou_of_counts(ops.polygon_counts(*flat, truth.parts, index, skip, truth.width, rule), empty)


def _as_index(mask_index: torch.Tensor | Sequence[int], masks: PackedMasks) -> torch.Tensor:
    """Mask numbers on the masks' device; what comes from the host is checked there on its way to a GPU."""
    device = masks.words.device
    index = mask_index if isinstance(mask_index, torch.Tensor) else torch.as_tensor(mask_index, device="cpu")
    if index.numel() > 0 and (index.is_floating_point() or index.is_complex() or index.dtype == torch.bool):
        raise ValueError(f"mask_index must be integers [N], got {index.dtype} {list(index.shape)}")
    index = index.to(torch.int64)
    if device.type == "cpu" or index.device == device or torch.compiler.is_compiling():
        return index.to(device)
    for i in ((index < 0) | (index >= len(masks))).nonzero().flatten().tolist():
        raise ValueError(f"mask_index[{i}] is {int(index[i])}, expected 0 to {len(masks) - 1}")
    return upload((index,), device)[0]
