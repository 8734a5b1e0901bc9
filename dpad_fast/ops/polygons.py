"""Polygons to masks, and IoU of polygons with masks.

Each rule follows its source to the pixel:

- `coco`: vertices times 5, plus 0.5, cut to integers; outlines on that finer grid; a pixel column changes where the
  outline passes its middle. `frPyObjects`, `merge` and `decode` of pycocotools (`rleFrPoly`). Rings are joined.
- `opencv`: vertices cut to integers; the outline by Bresenham's rule, the inside even-odd over all rings in 16.16 fixed
  point, with OpenCV's clipping. `cv2.fillPoly` on int32 vertices. `cv2.polylines` of thickness 1 draws the same lines
  that `fillPoly` has drawn already, so `outline=True` (how ReasonSeg draws) changes no pixel; it is there to say so.
- `center`: a pixel is inside where its centre is, even-odd over all rings; an edge owns its upper end, and a centre on
  an edge belongs to the pixel right of it, so that polygons that share an edge share no pixel and leave none out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dpad_fast import _extension
from dpad_fast.ops import _masks as ops
from dpad_fast.ops.masks import Dense, PackedMasks, as_packed, ignore_parts, iou_of_counts

RULES = ("coco", "opencv", "center")
OUTPUTS = ("packed", "dense", "rle")


def rasterize_polygons(
    polygons: Any, height: int, width: int, *, rule: str = "coco", outline: bool = False, out: str = "packed"
) -> Any:
    """Draws N objects into masks.

    Args:
        polygons: N objects. An object is one ring or a list of rings; a ring is an array or tensor [n, 2] of (x, y), a
            list of pairs, or a flat x0, y0, x1, y1, ...; coordinates in pixels, inside the image or not. An object
            without rings is empty.
        height: rows of the masks.
        width: columns of the masks.
        rule: "coco", "opencv" or "center"; see this module.
        outline: with "opencv", also draw `cv2.polylines` of thickness 1, which adds nothing (see this module).
        out: "packed", "dense" or "rle".

    Returns:
        `PackedMasks`; or bool [N, height, width]; or N dictionaries in COCO's compressed form.

    Raises:
        ValueError: a ring has fewer than 3 vertices, or a coordinate that is not finite or beyond 1e7 (the message
            names object and ring); a size is negative or too large; or a choice is unknown.
    """
    _check_choice("rule", rule, RULES)
    _check_choice("out", out, OUTPUTS)
    if outline and rule != "opencv":
        raise ValueError(f'outline=True needs rule="opencv", got rule={rule!r}')
    if not torch.compiler.is_compiling():
        _extension.C.check_mask_size("height and width", height, width)
    flat = gather(polygons)
    if out == "dense":
        return ops.draw_dense(*flat, height, width, rule)
    if out == "packed":
        return PackedMasks._of(ops.draw(*flat, height, width, rule), width)
    host = [part.cpu() for part in flat]
    return _extension.C.polygons_to_rle(ops._polygon_args(*host), height, width, rule, torch.get_num_threads())


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
        masks: M masks [M, H, W], or `PackedMasks`.
        rule: "coco", "opencv" or "center"; see this module.
        mask_index: [N], the mask of each object; None: object i belongs to mask i, and N = M.
        ignore: [H, W] or [M, H, W], pixels that count for neither side.
        empty: the IoU where the union is empty.

    Returns:
        float64 [N]; no gradient.

    Raises:
        ValueError: an argument is not as described.
    """
    _check_choice("rule", rule, RULES)
    truth = as_packed("masks", masks)
    flat = gather(polygons)
    index = None if mask_index is None else torch.as_tensor(mask_index, dtype=torch.int64, device=truth.words.device)
    n = flat[2].shape[0] - 1
    if index is None and n != len(truth):
        raise ValueError(f"polygons and masks must be as many unless mask_index is given, got {n} and {len(truth)}")
    if index is not None and index.shape != (n,):
        raise ValueError(f"mask_index must be [N] with N = {n}, got {list(index.shape)}")
    vertices = [part.to(truth.words.device) for part in flat]
    skip = ignore_parts(ignore, truth, "one per mask")
    intersection, union = ops.polygon_counts(*vertices, truth.parts, index, skip, truth.width, rule)
    return iou_of_counts(intersection, union, empty)


def gather(polygons: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vertices float64 [V, 2], ring starts [R + 1] and object starts [N + 1] of objects given as in the functions."""
    if torch.compiler.is_compiling():
        return _gather_tensors(polygons)
    if isinstance(polygons, torch.Tensor | np.ndarray):
        polygons = list(polygons)
    if not isinstance(polygons, list | tuple):
        raise ValueError(f"polygons must be a list of objects, got {type(polygons).__name__}")
    vertices, rings, objects = _extension.C.gather_polygons(polygons)
    return torch.from_numpy(vertices).view(-1, 2), torch.from_numpy(rings), torch.from_numpy(objects)


def _gather_tensors(polygons: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same within torch.compile, where an object is a tensor [n, 2] or a list of such tensors."""
    objects = [[item] if isinstance(item, torch.Tensor) else list(item) for item in polygons]
    rings = [ring.reshape(-1, 2).to(torch.float64) for item in objects for ring in item]
    vertices = torch.cat(rings) if rings else torch.zeros((0, 2), dtype=torch.float64)
    ring_starts, object_starts = [0], [0]
    for ring in rings:
        ring_starts.append(ring_starts[-1] + ring.shape[0])
    for item in objects:
        object_starts.append(object_starts[-1] + len(item))
    return vertices, torch.tensor(ring_starts), torch.tensor(object_starts)


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
