"""The shapes of labelme's files: a polygon's ring as it stands, every other kind as the pixels that labelme draws.

labelme (`utils/shape.py`, 3.0 to 6.3) draws with Pillow: a rectangle with both corners inside, a circle as an ellipse
around its centre through its second point, lines 10 pixels wide, a point as a circle of radius 5; a mask is the PNG
that the file holds, placed by its box. Kinds that labelme itself does not draw (`points`) are refused.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from dpad_fast.types import BoolMask, Ring

Region: TypeAlias = "Ring | BoolMask"
"""A ring float [n, 2] of (x, y), or the shape's own pixels, bool [H, W]."""

LINE_WIDTH, POINT_RADIUS = 10, 5
_COUNTS = {
    "polygon": (1, "at least 1 point"),  # ReasonSeg draws those of 1 and 2 as well
    "rectangle": (2, "2 corners (or 4)"),
    "oriented_rectangle": (4, "4 corners"),
    "circle": (2, "2 points, its centre and one of its rim"),
    "line": (2, "2 points"),
    "linestrip": (2, "at least 2 points"),
    "point": (1, "1 point"),
    "mask": (2, "2 points, the corners of its box"),
}
"""How many points each kind has: the number, and the words of the message."""
_FARTHEST = 1e7  # as the rasteriser
_LARGEST = 1 << 17  # Pillow's time grows with the radius, seen or not


@dataclass(frozen=True, eq=False)
class LabelledShape:
    """One labelled shape.

    Attributes:
        label: as in the file.
        kind: labelme's `shape_type`; "polygon" where the file has none.
        points: float64 [n, 2] of (x, y) in pixels.
        where: what messages call it.
        png: the PNG of a `mask`.
    """

    label: str
    kind: str
    points: Ring
    where: str
    png: bytes = b""

    @property
    def ring(self) -> Ring | None:
        """The shape's outline where that is all there is to it: polygons and rectangles."""
        if self.kind == "rectangle" and len(self.points) == 2:
            (x1, y1), (x2, y2) = self.points
            return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
        return self.points if self.kind in ("polygon", "rectangle", "oriented_rectangle") else None

    def region(self, height: int, width: int) -> Region:
        """The ring, or what labelme draws on a picture of this size.

        Raises:
            ValueError: a mask is no PNG, or does not fit its box or the picture.
        """
        ring = self.ring
        if ring is not None:
            return ring
        if self.kind == "mask":
            return self._placed(height, width)
        canvas = Image.new("L", (width, height))
        draw = ImageDraw.Draw(canvas)
        points = [(float(x), float(y)) for x, y in self.points]
        if self.kind in ("line", "linestrip"):
            draw.line(points, fill=1, width=LINE_WIDTH)
        else:
            (x, y), far = points[0], points[-1]
            radius = POINT_RADIUS if self.kind == "point" else math.dist((x, y), far)
            if radius > _LARGEST:
                raise ValueError(f"{self.where}.points: a circle of radius {radius:g} is larger than any picture")
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1, outline=1)
        pixels: BoolMask = np.asarray(canvas) != 0
        return pixels

    def _placed(self, height: int, width: int) -> BoolMask:
        (x1, y1), (x2, y2) = self.points.astype(np.int64)
        size = (int(x2 - x1) + 1, int(y2 - y1) + 1)
        if not (0 <= x1 <= x2 < width and 0 <= y1 <= y2 < height):
            raise ValueError(
                f"{self.where}.points: the mask's box {self.points.tolist()} is not in the picture, {width} x {height}"
            )
        try:
            with Image.open(io.BytesIO(self.png), formats=["PNG"]) as image:
                if image.size != size or len(image.getbands()) != 1:
                    raise ValueError(
                        f"{self.where}.mask is {image.mode} of {image.width} x {image.height}, expected one channel of "
                        f"the box's {size[0]} x {size[1]}"
                    )
                pixels = np.asarray(image) != 0
        except (OSError, SyntaxError) as error:
            raise ValueError(f"{self.where}.mask is not a readable PNG: {error}") from None
        out = np.zeros((height, width), bool)
        out[y1 : y2 + 1, x1 : x2 + 1] = pixels
        return out


def read(shape: object, where: str) -> LabelledShape:
    """Checks an entry of a file's `shapes`.

    Args:
        shape: the entry as JSON has it.
        where: the file and the place, for messages.

    Raises:
        ValueError: a field is missing or malformed, or labelme does not draw this kind; names `where` and the field.
    """
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
        raise ValueError(f"{where}.label must be a string")
    kind = shape.get("shape_type")
    kind = "polygon" if kind is None else kind
    if not isinstance(kind, str) or kind not in _COUNTS:
        raise ValueError(f"{where}.shape_type must be one of {', '.join(_COUNTS)}, got {kind!r:.80}")
    points = _points(shape.get("points"), where)
    count, words = _COUNTS[kind]
    open_ended = kind in ("polygon", "linestrip") and len(points) > count
    if len(points) != count and not open_ended and not (kind == "rectangle" and len(points) == 4):
        raise ValueError(f"{where}.points: a {kind} has {words}, got {len(points)}")
    return LabelledShape(shape["label"], kind, points, where, _png(shape, where) if kind == "mask" else b"")


def _points(points: object, where: str) -> Ring:
    if not isinstance(points, list) or not points:
        raise ValueError(f"{where}.points must be a list of [x, y], got {points!r:.80}")
    for j, point in enumerate(points):
        if not _is_point(point):
            raise ValueError(f"{where}.points[{j}] must be two finite numbers, got {point!r:.80}")
    return np.asarray(points, np.float64)


def _is_point(point: object) -> bool:
    return (
        isinstance(point, list)
        and len(point) == 2
        and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= _FARTHEST for v in point)
        and all(math.isfinite(v) for v in point)
    )


def _png(shape: dict[str, Any], where: str) -> bytes:
    content = shape.get("mask")
    try:
        return base64.b64decode(content if isinstance(content, str) else b"!", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{where}.mask must be a PNG in base64, got {content!r:.40}") from None
