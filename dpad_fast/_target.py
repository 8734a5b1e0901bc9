"""How the fields of a `Target` are read and checked, and how a solution string is read."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dpad_fast._native.gpu_errors import raise_gpu_failure
from dpad_fast.pictures import decoding, upright

BOX_FORMATS = ("xyxy", "xywh", "cxcywh")

_NUMBER = r"\s*([+-]?\d+(?:\.\d+)?)\s*"
_PAIRS = r"\(" + _NUMBER + "," + _NUMBER + r"\)\s*,\s*\(" + _NUMBER + "," + _NUMBER + r"\)"
_TAGS = {tag: re.compile(f"<{tag}>{_PAIRS}</{tag}>") for tag in ("box", "points")}
_WRITTEN = {"box": "<box>(x1,y1),(x2,y2)</box>", "points": "<points>(x,y),(x,y)</points>"}

_NO_SEQUENCE = (str, bytes, bytearray, memoryview, dict, set, frozenset)
_NO_NUMBER = (str, bytes, bool, np.bool_)

Corners = tuple[float, float, float, float]
Pair = tuple[float, float]


def numbers(value: Any, count: int, name: str) -> tuple[float, ...]:
    """`count` finite numbers as floats; strings (of which "1234" would be four) and booleans are none."""
    found: tuple[float, ...] | None = None
    if not isinstance(value, _NO_SEQUENCE):
        try:
            # To Python's numbers first: float() warns of tensors with a gradient and drops the imaginary part.
            items = tuple(map(_plain, value.tolist() if hasattr(value, "tolist") else value))
            if not any(isinstance(item, _NO_NUMBER) for item in items):
                found = tuple(map(float, items))
        except (
            TypeError,
            ValueError,
            OverflowError,
            RuntimeError,
        ) as error:  # RuntimeError: tensors of several elements
            raise_gpu_failure(error)
            found = None
    if found is None:
        raise ValueError(f"{name} must hold {count} numbers, got {short(value)}")
    if len(found) != count or not all(math.isfinite(item) for item in found):
        raise ValueError(f"{name} must hold {count} finite numbers, got {short(value)}")
    return found


def _plain(item: Any) -> Any:
    return item if isinstance(item, float | int) or not hasattr(item, "item") else item.item()


def size(value: Any) -> tuple[int, int]:
    """(width, height) in whole pixels."""
    width, height = numbers(value, 2, "image_size")
    if width < 1 or height < 1 or width != int(width) or height != int(height):
        raise ValueError(f"image_size must be (width, height) in whole pixels, got {short(value)}")
    return int(width), int(height)


def corners(value: Any, box_format: str, name: str) -> Corners:
    """A box in one of `BOX_FORMATS` as (x1, y1, x2, y2)."""
    a, b, c, d = numbers(value, 4, name)
    if box_format == "xyxy":
        return a, b, c, d
    if not (c > 0 and d > 0):
        raise ValueError(
            f"{name} has no area (width and height above 0 expected, box_format={box_format!r}): {(a, b, c, d)}"
        )
    box = (a, b, a + c, b + d) if box_format == "xywh" else (a - c / 2, b - d / 2, a + c / 2, b + d / 2)
    if not all(map(math.isfinite, box)):
        raise ValueError(f"{name} has corners beyond any number (box_format={box_format!r}): {(a, b, c, d)}")
    return box


def ordered(box: Corners, name: str) -> Corners:
    """The box, where it has an area."""
    if not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"{name} has no area (x1 < x2 and y1 < y2 expected): {box}")
    return box


def entries(value: Any, name: str, kind: str) -> tuple[Any, ...]:
    """The entries of a sequence field."""
    if not isinstance(value, _NO_SEQUENCE):
        try:
            return tuple(value)
        except TypeError:
            pass
    raise ValueError(f"{name} must be a sequence of {kind}, got {short(value)}")


def objects(value: Any, box_format: str) -> tuple[tuple[Corners, Pair], ...]:
    """The ((box, point), ...) of the multi-object form."""
    found = []
    for i, item in enumerate(entries(value, "objects", "(box, point) pairs")):
        pair = entries(item, f"objects[{i}]", "a box and a point")
        if len(pair) != 2:
            raise ValueError(f"objects[{i}] must be (box, point), got {short(item)}")
        box = ordered(corners(pair[0], box_format, f"objects[{i}].box"), f"objects[{i}].box")
        x, y = numbers(pair[1], 2, f"objects[{i}].point")
        found.append((box, (x, y)))
    return tuple(found)


def mask(value: Any, name: str) -> NDArray[np.bool_]:
    """A mask as bool [H, W]. Of numbers, only 0 and 1 say which pixels are set; a picture may have 0 and 255 as well.

    Args:
        value: an array, tensor or nested list of booleans or of 0 and 1, or a picture of mode "1" or "L" with 0 and one
            of 1 and 255.
        name: the field, for messages.
    """
    if isinstance(value, Image.Image):
        return _picture_mask(value, name)
    if hasattr(value, "detach"):
        value = _of_tensor(value, name)
    if np.ma.is_masked(value):
        raise ValueError(f"{name} is a masked array with entries left out; fill them (filled) or say ignore=")
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be [height, width], got rows of several lengths") from None
    if array.ndim != 2:
        raise ValueError(f"{name} must be [height, width], got {array.ndim} dimensions")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold booleans, or 0 and 1, got {array.dtype} values")
    return _as_bool(array, 1, name)


def _of_tensor(value: Any, name: str) -> NDArray[Any]:
    try:
        value = value.detach().cpu()

        array: NDArray[Any] = (value.double() if value.is_floating_point() else value).numpy()
    except (TypeError, RuntimeError) as error:  # sparse, quantised, or without values
        raise_gpu_failure(error)
        kind = f"{str(value.layout).removeprefix('torch.')} tensor of {value.dtype} on {value.device}"
        raise ValueError(f"{name} must be a dense tensor of plain numbers, got a {kind}") from None
    return array


def _picture_mask(image: Image.Image, name: str) -> NDArray[np.bool_]:
    if image.mode not in ("1", "L"):
        raise ValueError(f"{name} is a picture of mode {image.mode!r}; a mask has mode '1' or 'L'")
    with decoding(name):
        array = np.asarray(upright(image))  # as the picture that it belongs to is turned
    return _as_bool(array, 255 if array.dtype == np.uint8 and not (array == 1).any() else 1, name)


def _as_bool(array: NDArray[Any], high: int, name: str) -> NDArray[np.bool_]:
    if 0 in array.shape:
        raise ValueError(f"{name} has no pixel: {array.shape[1]}x{array.shape[0]}")
    if array.dtype == np.bool_:
        # torch takes neither negative strides nor, without a warning, memory that must not be written to.
        return np.ascontiguousarray(array) if array.flags.writeable else array.copy()
    found: NDArray[np.bool_] = array == high
    other = ~found & (array != 0)
    if other.any():
        row, column = (int(place[0]) for place in np.nonzero(other))
        message = f"{name}[{row}, {column}] is {array[row, column]}, expected booleans, or 0 and {high} alone"
        if array[row, column] == 255:
            message += (
                "; where 255 marks pixels to ignore give mask=m == 1 and ignore=m == 255, where it marks the object "
                "mask=m == 255"
            )
        raise ValueError(message)
    return found


def rings(value: Any) -> tuple[NDArray[np.float64], ...]:
    """Polygon rings, each float64 [n, 2] of finite (x, y)."""
    found = []
    for i, ring in enumerate(entries(value, "polygons", "rings")):
        try:
            array = _of_tensor(ring, f"polygons[{i}]") if hasattr(ring, "detach") else np.asarray(ring)
        except (ValueError, TypeError):
            array = np.zeros(0)
        if array.ndim != 2 or array.shape[1] != 2 or not len(array):
            raise ValueError(f"polygons[{i}] must be a ring [n, 2] of (x, y), got {short(ring)}")
        if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            raise ValueError(f"polygons[{i}] must hold finite numbers, got {short(ring)}")
        found.append(array.astype(np.float64, copy=False))
    return tuple(found)


def check_sizes(
    image_size: tuple[int, int] | None, fields: Mapping[str, NDArray[np.bool_] | None], polygons: Sequence[Any] | None
) -> tuple[int, int] | None:
    """The size that masks, polygons and `image_size` agree on, or None where nothing says it."""
    said_by = "image_size"
    for name, array in fields.items():
        if array is None:
            continue
        found = (array.shape[1], array.shape[0])
        if image_size is None:
            image_size, said_by = found, name
        elif found != image_size:
            turns = said_by == "image_size" and found == image_size[::-1]
            turned = f"; {said_by} is (width, height), masks are [height, width]" if turns else ""
            raise ValueError(
                f"{name} is {_size_text(found)} but {said_by} is {_size_text(image_size)} (width x height){turned}"
            )
    if image_size is not None and polygons:
        low = np.min([ring.min(axis=0) for ring in polygons], axis=0)
        high = np.max([ring.max(axis=0) for ring in polygons], axis=0)
        if not ((high >= 0).all() and (low <= image_size).all()):
            raise ValueError(
                f"polygons lie outside of the {_size_text(image_size)} picture that {said_by} says: they span "
                f"x {low[0]:g} to {high[0]:g} and y {low[1]:g} to {high[1]:g}"
            )
        if (high <= 1).all() and max(image_size) > 1:
            raise ValueError(
                f"polygons lie within one pixel of the {_size_text(image_size)} picture that {said_by} says: "
                "coordinates are pixels, so multiply what is in 0..1 by the picture's width and height"
            )
    return image_size


def read_solution(text: str, box_format: str) -> dict[str, Any]:
    """The fields of a `Target` that a solution string holds; see `Target.parse`."""
    if not isinstance(text, str):
        raise ValueError(f"text must be a string, got {type(text).__name__}")
    # Under another format the digits of the text are no corners, so nothing may read them as corners.
    kept = text if box_format == "xyxy" else ""
    box, points = (_tagged(tag, text) for tag in ("box", "points"))
    if box is None and points is None:
        if not text.lstrip().startswith("["):
            raise ValueError(f"text holds no <box>, no <points> and no JSON list of objects: {short(text)}")
        return {"objects": _listed(text), "text": kept}
    return {"box": box, "points": None if points is None else (points[:2], points[2:]), "text": kept}


def _tagged(tag: str, text: str) -> tuple[float, ...] | None:
    """The four numbers of the one `<tag>` of the text, None where it has none."""
    opened, closed = text.count(f"<{tag}>"), text.count(f"</{tag}>")
    if not opened and not closed:
        return None
    if opened > 1:
        raise ValueError(
            f"text holds {opened} <{tag}>, expected one; several objects are a JSON list of "
            f'{{"bbox_2d": [4], "point_2d": [2]}}: {short(text)}'
        )
    match = _TAGS[tag].search(text)
    if match is None or closed > 1:
        raise ValueError(f"text holds a <{tag}> that is not {_WRITTEN[tag]}: {short(text)}")
    return tuple(float(value) for value in match.groups())


def _listed(text: str) -> tuple[tuple[Any, Any], ...]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"text looks like a JSON list of objects but is not valid JSON: {short(text)}") from None
    if not items:
        raise ValueError(f"text holds an empty list of objects: {short(text)}")
    for i, item in enumerate(items):
        if not isinstance(item, dict) or "bbox_2d" not in item or "point_2d" not in item:
            raise ValueError(f"objects[{i}] must have bbox_2d and point_2d, got {short(item)}")
    return tuple((item["bbox_2d"], item["point_2d"]) for item in items)


def _size_text(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"


def short(value: object, limit: int = 80) -> str:
    """A value's repr, cut for messages."""
    try:
        shown = repr(value[:limit] if isinstance(value, str) else value)
    except ValueError:  # Python spells no number of more than 4300 digits
        return "a number of thousands of digits"
    return shown if len(shown) <= limit + 20 else shown[:limit] + "..."
