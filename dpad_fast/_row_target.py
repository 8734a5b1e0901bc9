"""The fields of a `Target` from a row of any data set; see `Target.from_row`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpad_fast import _target as fields
from dpad_fast import coco_mask
from dpad_fast._mask_geometry import box_of, inscribed_points
from dpad_fast._row_columns import TRUTH, Columns, nothing_found
from dpad_fast._row_grounding import is_grounding, read_grounding
from dpad_fast._row_values import as_mapping, depth, from_text, look, missing, plain
from dpad_fast.pictures import data_uri_bytes, open_picture, upright_size

Size = tuple[int, int]
_MOST_PIXELS = 1 << 28  # of a mask, as the extension; run lengths of a few bytes may ask for any number
_SCALES = {"0-1000": 1000.0, "0-1": 1.0}


def read_row(row: Any, columns: Columns | None, image_size: Any, *, points: bool = True) -> dict[str, Any]:
    """The arguments of a `Target`; with `points=False` missing points are not derived, which takes most of the time."""
    row = as_mapping(row)
    columns = Columns.taken(columns)
    guessed = columns is None
    if columns is None:
        columns = Columns.guess(row)
    else:
        columns.check(row)
    return _Row(row, columns, image_size).read(guessed, points)


class _Row:
    def __init__(self, row: Mapping[str, Any], columns: Columns, image_size: Any) -> None:
        self._row, self._columns = row, columns
        self._size = self._said_size() if image_size is None else fields.size(image_size)
        self._format = columns.box_format
        self._moved = columns.space != "pixel"

    def read(self, guessed: bool, points: bool) -> dict[str, Any]:
        given = {name: self._value(name) for name in TRUTH}
        if all(value is None for value in given.values()):
            if guessed:
                raise nothing_found(self._row)
            named = [f"{name}={getattr(self._columns, name)!r}" for name in TRUTH if getattr(self._columns, name)]
            raise ValueError(
                f"row has no ground truth: columns names {', '.join(named) or 'none of ' + ', '.join(TRUTH)}"
            )
        found: dict[str, Any] = {"objects": ()}
        if given["solution"] is not None:
            found |= self._solution(given["solution"])
        if given["objects"] is not None:
            for name, value in self._stated(given["objects"]).items():
                self._add(found, name, value, "objects")
        if given["box"] is not None:
            self._add(found, "box", self._box(given["box"], "box"))
        if given["points"] is not None:
            self._add(found, "points", self._points(given["points"]))
        found |= self._regions(given)
        found["ignore"] = self._mask("ignore", self._value("ignore"))
        boxes = self._value("other_boxes")
        if boxes is not None:
            boxes = fields.entries(_listed(boxes, "other_boxes"), "other_boxes", "boxes")
            found["other_boxes"] = tuple(self._box(box, f"other_boxes[{i}]") for i, box in enumerate(boxes))
        if not found["objects"]:
            self._derive(found, points)
        found["image_size"] = self._size
        return found

    def _value(self, role: str) -> Any:
        name = getattr(self._columns, role)
        if name is None:
            return None
        if not isinstance(name, str):
            values = [look(self._row, one) for one in name]
            return (
                None if all(map(missing, values)) else [self._number(*pair) for pair in zip(values, name, strict=True)]
            )
        value = look(self._row, name)
        return None if missing(value) else plain(value)

    @staticmethod
    def _number(value: Any, name: str) -> float:
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                pass
        return fields.numbers([plain(value)], 1, name)[0]

    def _said_size(self) -> Size | None:
        columns = self._columns
        if columns.width is None or columns.height is None:
            return self._decoded_size()
        width, height = (look(self._row, name) for name in (columns.width, columns.height))
        if missing(width) or missing(height):
            return self._decoded_size()
        return fields.size([self._number(width, columns.width), self._number(height, columns.height)])

    def _decoded_size(self) -> Size | None:
        """Of a picture that is held open; nothing is read for it."""
        value = None if self._columns.image is None else look(self._row, self._columns.image)
        return upright_size(value) if isinstance(value, Image.Image) else None

    def _needed_size(self, why: str) -> Size:
        """The size of the picture, which is opened where nothing else says it."""
        if self._size is None and self._columns.image is not None:
            from dpad_fast.row_images import images_from, size_of

            images = images_from(self._row, self._columns.image)
            if len(images) == 1:
                self._size = size_of(images[0], self._columns.image)
        if self._size is None:
            raise ValueError(f"image_size is needed, or columns width and height, or one picture: {why}")
        return self._size

    def _solution(self, text: Any) -> dict[str, Any]:
        if isinstance(text, list):
            return {"objects": self._objects(text)}
        read = fields.read_solution(text, self._format)
        if self._moved:
            read["text"] = ""  # its digits are no pixels, so nothing may read them as such
        if "objects" in read:
            return {"objects": self._objects(list(read["objects"])), "text": read["text"]}
        found = {"objects": (), "text": read["text"]}
        if read["box"] is not None:
            found["box"] = self._box(read["box"], "box")
        if read["points"] is not None:
            found["points"] = self._points(read["points"])
        return found

    def _add(self, found: dict[str, Any], name: str, value: Any, role: str | None = None) -> None:
        """A field beside the solution's text, which may repeat it but not contradict it."""
        if found.get(name) and value != found[name]:
            column = getattr(self._columns, role or name)
            raise ValueError(
                f"{name} is {fields.short(value)} (column {column!r}) but the solution's text "
                f"says {fields.short(found[name])}"
            )
        found[name] = value

    def _box(self, value: Any, name: str) -> tuple[float, ...]:
        box = fields.corners(_listed(value, name), self._format, name)
        if not self._moved:
            return box
        return (*self._moved_point(box[:2]), *self._moved_point(box[2:]))

    def _points(self, value: Any) -> tuple[tuple[float, float], ...]:
        value = _listed(value, "points")
        flat = value.ndim == 1 if isinstance(value, np.ndarray) else depth(value) == 1 and _is_number(value)
        if flat:
            numbers = fields.numbers(value, 4, "points")
            value = (numbers[:2], numbers[2:])
        points = fields.entries(value, "points", "two (x, y) points")
        if len(points) != 2:
            raise ValueError(f"points must hold two (x, y) points, got {len(points)}: {fields.short(value)}")
        return tuple(self._point(point, f"points[{i}]") for i, point in enumerate(points))

    def _point(self, value: Any, name: str) -> tuple[float, float]:
        x, y = fields.numbers(plain(value), 2, name)
        return self._moved_point((x, y)) if self._moved else (x, y)

    def _moved_point(self, point: Any) -> tuple[float, float]:
        scale = _SCALES[self._columns.space]
        width, height = self._needed_size(f"coordinates are in {self._columns.space}")
        return point[0] / scale * width, point[1] / scale * height

    def _objects(self, value: Any) -> tuple[Any, ...]:
        value = _listed(value, "objects")
        if isinstance(value, Mapping):  # a column of lists, as `datasets` and Arrow may store a list of dictionaries
            value = _from_columns(value)
        found = []
        for i, item in enumerate(fields.entries(value, "objects", "(box, point) pairs")):
            item = plain(item)
            pair = (item.get("bbox_2d"), item.get("point_2d")) if isinstance(item, Mapping) else item
            pair = fields.entries(pair, f"objects[{i}]", "a box and a point")
            if len(pair) != 2 or any(map(missing, pair)):
                raise ValueError(f"objects[{i}] must have bbox_2d and point_2d, got {fields.short(item)}")
            box = self._box(pair[0], f"objects[{i}].box")
            found.append((box, self._point(_listed(pair[1], f"objects[{i}].point"), f"objects[{i}].point")))
        return tuple(found)

    def _stated(self, value: Any) -> dict[str, Any]:
        """The fields that the column `objects` holds: the list of objects, or a box and points in ms-swift's form."""
        value = _listed(value, "objects")
        if not is_grounding(value):
            return {"objects": self._objects(value)}
        read = read_grounding(value)
        row = self
        if read.space is not None:  # ms-swift says that these are corners, and what they are in
            row = _Row(self._row, replace(self._columns, space=read.space, box_format="xyxy"), self._size)
        boxes = [row._box(box, f"objects.bbox[{i}]") for i, box in enumerate(read.boxes)]
        points = [row._point(point, f"objects.points[{i}]") for i, point in enumerate(read.points)]
        self._size = row._size
        if len(boxes) == len(points):
            return {"objects": tuple(zip(boxes, points, strict=True))}
        found: dict[str, Any] = {"box": boxes[0]} if boxes else {}
        return found | ({"points": tuple(points)} if points else {})

    def _regions(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The mask and the polygons; a column of polygons (COCO's `segmentation`) may hold run lengths instead."""
        polygons, mask = given["polygons"], given["mask"]
        if isinstance(polygons, str):
            polygons = from_text(polygons, "polygons")
        if isinstance(polygons, Mapping):
            if mask is not None:
                raise ValueError(f"polygons are run lengths, but there is a mask too (column {self._columns.mask!r})")
            polygons, mask = None, polygons
        read: dict[str, Any] = {"mask": self._mask("mask", mask), "polygons": None}
        if read["mask"] is not None and self._size is None:
            self._size = (read["mask"].shape[1], read["mask"].shape[0])
        if polygons is not None:
            rings = fields.rings(_rings(polygons))
            if self._moved:
                size = self._needed_size(f"polygons are in {self._columns.space}")
                rings = tuple(ring / _SCALES[self._columns.space] * size for ring in rings)
            read["polygons"] = rings
        return read

    def _mask(self, name: str, value: Any) -> NDArray[np.bool_] | None:
        return None if value is None else read_mask(value, name)

    def _derive(self, found: dict[str, Any], points: bool) -> None:
        """Box and points that are missing, from the mask, or else from the polygons drawn as COCO draws them."""
        wanted: dict[str, Callable[[NDArray[np.bool_]], Any]] = {"box": box_of}
        if points:
            wanted["points"] = inscribed_points
        lacking = [name for name in wanted if found.get(name) is None]
        mask = found["mask"]
        if not lacking or (mask is None and found["polygons"] is None):
            return
        if mask is None:
            size = self._needed_size("box and points are derived from polygons")
            fields.check_sizes(size, {}, found["polygons"])  # before anything is drawn
            mask = drawn(found["polygons"], size)
        for name in lacking:
            found[name] = wanted[name](mask)


def read_mask(value: Any, name: str) -> NDArray[np.bool_]:
    """A mask as bool [H, W], from whatever a row holds.

    Args:
        value: what `Target` takes; a path, bytes, data URI or {"bytes", "path"} of a picture; COCO's run lengths as a
            dictionary or as JSON text.
        name: what messages call it.

    Raises:
        ValueError: it is none of these, or cannot be read; begins with `name`.
    """
    if isinstance(value, str):
        if value.lstrip()[:1] in ("{", "["):
            value = from_text(value, name)
        elif value[:5].lower() == "data:":
            value = data_uri_bytes(value, name)
    if isinstance(value, Mapping):
        if "counts" in value:
            return _run_lengths(dict(value), name)
        content, path = value.get("bytes"), value.get("path")
        value = path if content is None else content
        if value is None:
            raise ValueError(f"{name} is a dictionary with neither counts, bytes nor path")
    if isinstance(value, bytearray | memoryview):
        value = bytes(value)
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str | bytes):
        with open_picture(value, name) as image:
            return fields.mask(image, name)
    return fields.mask(value, name)


def _run_lengths(rle: dict[str, Any], name: str) -> NDArray[np.bool_]:
    rle = {"size": _plain_list(rle.get("size")), "counts": _plain_list(rle["counts"])}
    try:
        height, width = fields.numbers(rle["size"], 2, "size")
        if height * width > _MOST_PIXELS:
            raise ValueError(f"size is too large: at most 2^28 pixels, got {rle['size']}")
        if height < 1 or width < 1:
            raise ValueError(f"size has no pixel: {rle['size']}")
        pixels = coco_mask.decode(coco_mask.frPyObjects(rle, int(height), int(width)))
    except (ValueError, TypeError) as error:
        said = str(error).removeprefix("pyobj[0]: ").removeprefix("rleObjs[0]: ").replace("pyobj[0]", "it")
        raise ValueError(f"{name} has run lengths that cannot be read: {said}") from None
    return np.ascontiguousarray(pixels).view(np.bool_)


def _plain_list(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def drawn(rings: Any, size: Size) -> NDArray[np.bool_]:
    """Rings [n, 2] as one mask bool [H, W] of a picture (width, height), as COCO draws them.

    Raises:
        ValueError: the picture is larger than a mask may be, or a vertex is farther than 1e7.
    """
    width, height = size
    parts = coco_mask.frPyObjects(
        [np.repeat(ring, 1 + 2 * (len(ring) == 2), axis=0).ravel() for ring in rings], height, width
    )
    return np.ascontiguousarray(coco_mask.decode(coco_mask.merge(parts))).view(np.bool_)


def _listed(value: Any, name: str) -> Any:
    value = plain(value)
    return from_text(value, name) if isinstance(value, str) else value


def _is_number(values: Any) -> bool:
    return len(values) > 0 and isinstance(values[0], int | float | np.number) and not isinstance(values[0], bool)


def _rings(value: Any) -> list[Any]:
    """Rings [n, 2], from COCO's flat lists, or from one ring alone."""
    if isinstance(value, np.ndarray):
        value = list(value) if value.ndim > 1 else [value]
    value = list(fields.entries(value, "polygons", "rings"))
    if not value:
        raise ValueError("polygons holds no ring")
    if _is_number(value):
        value = [value]
    elif isinstance(first := _plain_list(plain(value[0])), list | tuple) and len(first) == 2 and _is_number(first):
        value = [value]  # one ring of (x, y)
    rings = []
    for i, ring in enumerate(value):
        ring = _plain_list(plain(ring))
        flat = isinstance(ring, list | tuple) and _is_number(ring)
        if flat and len(ring) % 2:
            raise ValueError(f"polygons[{i}] holds {len(ring)} numbers, expected x, y, x, y, ...: {fields.short(ring)}")
        if flat:
            ring = np.asarray(fields.numbers(ring, len(ring), f"polygons[{i}]")).reshape(-1, 2)
        elif isinstance(ring, list | tuple):
            ring = [_plain_list(plain(point)) for point in ring]
        rings.append(ring)
    return rings


def _from_columns(value: Mapping[str, Any]) -> list[Any]:
    if not {"bbox_2d", "point_2d"} <= value.keys():
        raise ValueError(f"objects must have bbox_2d and point_2d, got the keys {', '.join(map(repr, value))}"[:300])
    boxes, points = (_plain_list(plain(value[key])) for key in ("bbox_2d", "point_2d"))
    pairs = [fields.entries(entries, "objects", "boxes and points") for entries in (boxes, points)]
    if len(pairs[0]) != len(pairs[1]):
        raise ValueError(f"objects has {len(pairs[0])} bbox_2d but {len(pairs[1])} point_2d")
    return list(zip(*pairs, strict=True))
