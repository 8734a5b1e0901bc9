"""The `objects` column of ms-swift: {"ref", "bbox": [[x1, y1, x2, y2] or [x, y], ..], "bbox_type", "image_id"}."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpad_fast import _target as fields
from dpad_fast._row_values import missing, plain

_TYPES = {"real": "pixel", "norm1": "0-1"}


@dataclass(frozen=True)
class Grounding:
    """What the column holds, in its own coordinates.

    Attributes:
        boxes: entries of four numbers.
        points: entries of two.
        space: a space of `Columns`, or None where the column does not say one.
    """

    boxes: tuple[tuple[float, ...], ...]
    points: tuple[tuple[float, ...], ...]
    space: str | None


def is_grounding(value: Any) -> bool:
    """Whether a value is ms-swift's `objects`."""
    return isinstance(value, Mapping) and "bbox" in value


def read_grounding(value: Mapping[str, Any]) -> Grounding:
    """Reads the column.

    Raises:
        ValueError: an entry is neither a box nor a point, several boxes have not a point each, the coordinates are of a
            kind that is not known, or they belong to another picture than the first; begins with `objects`.
    """
    kind = plain(value.get("bbox_type"))
    if not missing(kind) and kind not in _TYPES:
        raise ValueError(f"objects.bbox_type must be one of {', '.join(_TYPES)}, got {kind!r:.80}")
    pictures = [] if missing(value.get("image_id")) else list(plain(value["image_id"]))
    for i, picture in enumerate(pictures):
        if plain(picture) != 0:
            raise ValueError(f"objects.image_id[{i}] is {picture!r:.40}, but a row is scored on one picture, number 0")
    entries = [plain(entry) for entry in fields.entries(plain(value["bbox"]), "objects.bbox", "boxes and points")]
    found: dict[int, list[tuple[float, ...]]] = {2: [], 4: []}
    for i, entry in enumerate(entries):
        length = len(fields.entries(entry, f"objects.bbox[{i}]", "two or four numbers"))
        if length not in found:
            raise ValueError(f"objects.bbox[{i}] must hold four numbers or two, got {fields.short(entry)}")
        found[length].append(fields.numbers(entry, length, f"objects.bbox[{i}]"))
    boxes, points = found[4], found[2]
    if not entries:
        raise ValueError("objects.bbox is empty")
    one = (len(boxes), len(points)) in ((1, 0), (1, 2), (0, 2))
    if not one and len(boxes) != len(points):
        raise ValueError(
            f"objects.bbox holds {len(boxes)} boxes and {len(points)} points, expected one box, one box with two "
            "points, or a point for each box"
        )
    return Grounding(tuple(boxes), tuple(points), None if missing(kind) else _TYPES[kind])
