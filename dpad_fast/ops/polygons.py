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

from dpad_fast._native import extension
from dpad_fast._native.upload import upload
from dpad_fast.ops import _masks as ops
from dpad_fast.ops.masks import Dense, PackedMasks, as_packed, check_size, ignore_parts, iou_of_counts

RULES = ("coco", "opencv", "center")
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
            list of pairs, or a flat x0, y0, x1, y1, ...; coordinates in pixels, inside the image or not. An object
            without rings is empty.
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
    _check_choice("rule", rule, RULES)
    _check_choice("out", out, OUTPUTS)
    if outline and rule != "opencv":
        raise ValueError(f'outline=True needs rule="opencv", got rule={rule!r:.80}')
    check_size("height and width", height, width)
    held = _read(polygons, None if device is None else torch.device(device))
    if held is not None and out == "rle":
        return extension.C.polygons_to_rle(held.args, height, width, rule, torch.get_num_threads())
    if held is not None:
        if out == "dense":
            return ops.draw_dense_here(held.args, height, width, rule)
        return PackedMasks._of(ops.draw_here(held.args, height, width, rule), width)
    flat = gather(polygons, device)
    if out == "dense":
        return ops.draw_dense(*flat, height, width, rule)
    packed = PackedMasks._of(ops.draw(*flat, height, width, rule), width)
    return packed if out == "packed" else packed.to_rle()


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
    _check_choice("rule", rule, RULES)
    truth = as_packed("masks", masks)
    flat = gather(polygons, truth.words.device)
    index = None if mask_index is None else _as_index(mask_index, truth)
    n = flat[2].shape[0] - 1
    if index is None and n != len(truth):
        raise ValueError(f"polygons and masks must be as many unless mask_index is given, got {n} and {len(truth)}")
    if index is not None and index.shape != (n,):
        raise ValueError(f"mask_index must be [N] with N = {n}, got {list(index.shape)}")
    skip = ignore_parts(ignore, truth, "one per mask")
    intersection, union = ops.polygon_counts(*flat, truth.parts, index, skip, truth.width, rule)
    return iou_of_counts(intersection, union, empty)


def gather(polygons: Any, device: torch.device | str | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vertices float64 [V, 2], ring starts [R + 1] and object starts [N + 1] of objects given as in the functions.

    Args:
        polygons: the objects. Those on the host are checked there before they are copied to a GPU.
        device: where the result shall be; None: where the vertices are.
    """
    target = None if device is None else torch.device(device)
    if torch.compiler.is_compiling():
        return _gather_tensors(polygons, target)
    objects = _as_objects(polygons)
    if _first_device(objects).type != "cpu":
        return _gather_tensors(objects, target)
    held = extension.C.Polygons(objects)
    vertices, rings, starts = (torch.from_numpy(array) for array in held.arrays())
    flat = vertices, rings, starts
    if target is None or target.type == "cpu":
        return flat
    extension.C.check_polygons(ops._polygon_args(*flat))
    there = upload(flat, target)
    return there[0], there[1], there[2]


def _read(polygons: Any, device: torch.device | None) -> Any:
    """The objects, where they are on the host and drawn there; None in graphs and wherever tensors are not plain."""
    if torch.compiler.is_compiling() or type(torch.empty(0, device="cpu")) is not torch.Tensor:
        return None
    objects = _as_objects(polygons)
    here = (device is None or device.type == "cpu") and _first_device(objects).type == "cpu"
    return extension.C.Polygons(objects) if here else None


def _as_objects(polygons: Any) -> list[Any] | tuple[Any, ...]:
    if isinstance(polygons, torch.Tensor | np.ndarray):
        polygons = list(polygons)
    if not isinstance(polygons, list | tuple):
        raise ValueError(f"polygons must be a list of objects, got {type(polygons).__name__}")
    return polygons


def _first_device(polygons: Sequence[Any]) -> torch.device:
    """The device of the first ring, which all must share; looking at all of them would cost more than drawing them."""
    first = polygons[0] if len(polygons) else None
    if isinstance(first, list | tuple) and first:
        first = first[0]
    return first.device if isinstance(first, torch.Tensor) else torch.device("cpu")


def _gather_tensors(
    polygons: Any, device: torch.device | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same where an object is a tensor [n, 2] or a list of such tensors: on a GPU, or within torch.compile."""
    objects = [[item] if isinstance(item, torch.Tensor) else list(item) for item in polygons]
    ring_starts, object_starts, rings = [0], [0], []
    for i, item in enumerate(objects):
        object_starts.append(object_starts[-1] + len(item))
        for k, ring in enumerate(item):
            if not isinstance(ring, torch.Tensor):
                raise ValueError(
                    f"polygons[{i}], ring {k} must be a tensor as the first one, got {type(ring).__name__}"
                )
            rings.append(_as_vertices(ring, i, k))
            ring_starts.append(ring_starts[-1] + rings[-1].shape[0])
    vertices = torch.cat(rings) if rings else torch.zeros((0, 2), dtype=torch.float64, device="cpu")
    if device is not None:
        if vertices.device.type != "cpu" and device.type != vertices.device.type:
            raise ValueError(f"polygons are on {vertices.device}, expected {device}")
        vertices = vertices.to(device)
    starts = torch.tensor(ring_starts, device="cpu"), torch.tensor(object_starts, device="cpu")
    if vertices.device.type == "cpu" or torch.compiler.is_compiling():
        return vertices, starts[0].to(vertices.device), starts[1].to(vertices.device)
    there = upload(starts, vertices.device)
    return vertices, there[0], there[1]


def _as_vertices(ring: torch.Tensor, number: int, place: int) -> torch.Tensor:
    """A ring [n, 2] or flat [2 n] as float64 [n, 2]; its shape, unlike its values, is known without waiting."""
    flat = ring.dim() == 1 and ring.shape[0] % 2 == 0
    if not flat and not (ring.dim() == 2 and ring.shape[1] == 2):
        raise ValueError(f"polygons[{number}], ring {place} must be [n, 2] or flat [2 n], got {list(ring.shape)}")
    vertices = ring.reshape(-1, 2).to(torch.float64)
    if vertices.shape[0] < 3:
        raise ValueError(f"polygons[{number}], ring {place} has {vertices.shape[0]} vertices, expected at least 3")
    return vertices


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


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r:.80}")
