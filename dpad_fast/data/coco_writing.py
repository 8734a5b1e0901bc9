"""What writers of COCO's annotations share: the entries of pictures and annotations that give a target again."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from dpad_fast import coco_mask
from dpad_fast.data.coco_file import POINTS_KEY, around
from dpad_fast.data.picture_files import PictureWriter
from dpad_fast.types import BoolMask, Box, Sample, Size, Target


class CocoWriter:
    """Collects the pictures and annotations of samples.

    Every target gets a picture entry of its own (several may name one file), as other boxes and ignored pixels are
    told by a picture's annotations and are a target's own here.

    Args:
        folder: where pictures are copied to.
        images: the folder that already holds them; None: they are copied.
    """

    def __init__(self, folder: Path, images: str | os.PathLike[str] | None) -> None:
        self._store = PictureWriter(folder, images)
        self._pictures: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, sample: Sample, *, together: bool = False) -> tuple[int, list[int]]:
        """Adds a sample's picture and annotations.

        Args:
            sample: with ground truth.
            together: one annotation, even where the target lists objects.

        Returns:
            The id of the picture, and those of the target's annotations, none where its mask has no pixel.

        Raises:
            ValueError: it has no ground truth, its picture cannot be opened, or is of another size than the target's.
        """
        where = f"sample {sample.id!r:.80}"
        target = sample.target
        name, size = self._store.keep(sample.image, sample.id, where)
        if target.image_size is not None and target.image_size != size:
            raise ValueError(f"{where}: image_size is {target.image_size}, but its picture is {size}")
        number = len(self._pictures) + 1
        self._pictures.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        annotations = [self._add(number, **entry) for entry in _entries(target, size, where, together)]
        for box in target.other_boxes:
            self._add(number, bbox=xywh(box), segmentation=[])
        if target.ignore is not None:
            self._add(number, segmentation=rle_of(target.ignore), bbox=None, ignore=1)
        return number, annotations

    def _add(self, picture: int, **entry: Any) -> int:
        number = len(self._annotations) + 1
        entry = {key: value for key, value in entry.items() if value is not None}
        self._annotations.append(
            {"id": number, "image_id": picture, "category_id": 1, "iscrowd": 0, "area": _area(entry), **entry}
        )
        return number

    def annotation(self, number: int) -> dict[str, Any]:
        """The entry of an annotation, to be added to."""
        return self._annotations[number - 1]

    def name_of(self, picture: int) -> str:
        """The file name of a picture."""
        return str(self._pictures[picture - 1]["file_name"])

    def content(self) -> dict[str, Any]:
        """The COCO file."""
        categories = [{"id": 1, "name": "object", "supercategory": "object"}]
        return {"images": self._pictures, "annotations": self._annotations, "categories": categories}


def rle_of(mask: BoolMask) -> dict[str, Any]:
    """Compressed run lengths as JSON takes them."""
    rle = coco_mask.encode(mask)
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def xywh(box: Box) -> list[float]:
    """[x, y, width, height] that `corners_of` turns back into the same numbers where that is possible."""
    x1, y1, x2, y2 = box
    return [x1, y1, _side(x1, x2), _side(y1, y2)]


def _side(low: float, high: float) -> float:
    """The length that added to `low` gives `high`: their difference, or a neighbour of it where that was rounded."""
    side = high - low
    for near in (side, float(np.nextafter(side, np.inf)), float(np.nextafter(side, -np.inf))):
        if low + near == high:
            return near
    return side


def mask_to_write(target: Target, size: Size) -> BoolMask | None:
    """The target's mask, else what COCO's rule draws of its polygons; None where it has neither."""
    return target.mask if target.mask is not None else _drawn(target, size)


def _drawn(target: Target, size: Size) -> BoolMask | None:
    rings = [ring.ravel() for ring in target.polygons or ()]
    if not rings or any(len(ring) < 6 for ring in rings):
        return None
    merged = coco_mask.merge(coco_mask.frPyObjects(rings, size[1], size[0]))
    drawn: BoolMask = coco_mask.decode(merged).view(np.bool_)
    return drawn


def _entries(target: Target, size: Size, where: str, together: bool) -> list[dict[str, Any]]:
    """The annotations of a target: one, one for each of its objects, or none where it has no pixel."""
    mask, rings = mask_to_write(target, size), None
    if target.polygons is not None and mask is not None:
        drawn = _drawn(target, size)
        if drawn is not None and np.array_equal(drawn, mask):
            rings = [ring.ravel().tolist() for ring in target.polygons]
    box = target.box
    if target.objects:
        if not together:
            return _listed(target, mask)
        box = box or around([box for box, _ in target.objects])
    if mask is None and box is None:
        raise ValueError(f"{where}: its target has neither mask, polygons, box nor objects")
    if mask is not None and box is None and not mask.any():
        return []
    segmentation: Any = []
    if mask is not None:
        segmentation = rings or rle_of(mask)
    points = None if target.points is None else [list(point) for point in target.points]
    return [{"segmentation": segmentation, "bbox": None if box is None else xywh(box), POINTS_KEY: points}]


def _listed(target: Target, mask: BoolMask | None) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    left = None if mask is None else mask.copy()
    for box, point in target.objects:
        entry: dict[str, Any] = {"bbox": xywh(box), POINTS_KEY: [list(point), list(point)], "segmentation": []}
        if mask is not None and left is not None:
            inside = np.zeros_like(mask)
            x1, y1, x2, y2 = (max(math.floor(v), 0) if i < 2 else max(math.ceil(v), 0) for i, v in enumerate(box))
            inside[y1:y2, x1:x2] = mask[y1:y2, x1:x2]
            left &= ~inside
            entry["mask"] = inside
        entries.append(entry)
    if left is not None:
        entries[0]["mask"] |= left
        for entry in entries:
            entry["segmentation"] = rle_of(entry.pop("mask"))
    return entries


def _area(entry: dict[str, Any]) -> float:
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, dict):
        return int(coco_mask.area(segmentation))
    box = entry.get("bbox")
    return 0 if box is None else box[2] * box[3]
