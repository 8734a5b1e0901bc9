"""Segmentations as COCO writes them, and as the field's files repeat them: polygons and run lengths, read and drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpad_fast import coco_mask
from dpad_fast._native import extension
from dpad_fast._target import short
from dpad_fast.types import BoolMask, Ring, Size


def read_json(file: Path) -> Any:
    """A JSON file, the outlines in its `segmentation` lists as float64 arrays.

    Raises:
        ValueError: it cannot be read, or is no JSON; names the file.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
        return json.loads(text, object_hook=_packed)
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not valid JSON: {error!s:.160}") from None


def _packed(entry: dict[str, Any]) -> dict[str, Any]:
    rings = entry.get("segmentation")
    if isinstance(rings, list):
        entry["segmentation"] = [_array(ring) for ring in rings]
    return entry


def _array(ring: Any) -> Any:
    """The ring as an array where it is a flat list of numbers; else as it is, for a message."""
    if not isinstance(ring, list) or not set(map(type, ring)) <= {float, int}:
        return ring
    try:
        return np.array(ring, np.float64)
    except OverflowError:  # an integer of hundreds of digits
        return ring


def mask_of(segmentation: Any, size: Size, where: str) -> BoolMask | None:
    """The mask bool [H, W] that COCO's rule draws of polygons or run lengths; None where there is no segmentation.

    Args:
        segmentation: a list of flat polygons x0, y0, x1, y1, ...; or {"size": [height, width], "counts": ...} with
            compressed (text) or plain (list) run lengths; or None or an empty list.
        size: (width, height) of the picture.
        where: what to call it in an error.

    Raises:
        ValueError: it is none of these, or its size is not the picture's.
    """
    width, height = size
    if segmentation is None or (isinstance(segmentation, list) and not segmentation):
        return None
    try:
        if isinstance(segmentation, dict):
            said = segmentation.get("size")
            if said != [height, width]:
                raise ValueError(f"size is {short(said)}, but the picture's [height, width] is {[height, width]}")
            decoded = coco_mask.decode(segmentation)
        else:
            return _drawn(rings_of(segmentation), height, width)
    except ValueError as error:
        raise ValueError(f"{where}: {error!s:.300}") from None
    return np.ascontiguousarray(decoded.view(np.bool_))


def _drawn(rings: list[Ring], height: int, width: int) -> BoolMask:
    """What `frPyObjects`, `merge` and `decode` make of the rings, by rows at once."""
    held = extension.C.Polygons([rings])
    extension.C.check_mask_size("height and width", height, width)
    mask = np.zeros((height, width), np.bool_)
    extension.C.draw_polygons_dense(held.args, height, width, "coco", 1, True, mask.ctypes.data)
    return mask


def rings_of(segmentation: Any) -> list[Ring]:
    """The polygons of a segmentation, each float64 [n, 2] of (x, y).

    Raises:
        ValueError: it is no list of flat polygons of at least three vertices.
    """
    if not isinstance(segmentation, list):
        raise ValueError(f"must be a list of polygons or run lengths, got {short(segmentation)}")
    rings = []
    for i, flat in enumerate(segmentation):
        if not isinstance(flat, np.ndarray):
            flat = _array(flat)
        if not isinstance(flat, np.ndarray) or len(flat) < 6 or len(flat) % 2:
            shown = flat.tolist() if isinstance(flat, np.ndarray) else flat
            raise ValueError(
                f"polygon {i} must be a flat list x0, y0, x1, y1, ... of 3 vertices or more, got {short(shown)}"
            )
        if not np.isfinite(flat).all():
            raise ValueError(f"polygon {i} must hold finite numbers, got {short(flat.tolist())}")
        rings.append(flat.reshape(-1, 2))
    return rings


def union_of(masks: Sequence[BoolMask | None], size: Size) -> BoolMask | None:
    """All together; None where one of them is only a box."""
    if not masks:
        return np.zeros((size[1], size[0]), np.bool_)
    found = [mask for mask in masks if mask is not None]
    if len(found) < len(masks):
        return None
    return found[0] if len(found) == 1 else np.logical_or.reduce(found)
