"""A sample at another size: the picture, and the truth that has to move with it."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dpad_fast import coco_mask
from dpad_fast._mask_geometry import box_of, inscribed_points
from dpad_fast._native.images import as_pixels
from dpad_fast.pictures import data_uri_bytes, decoding, open_picture, upright, upright_size, what_was_said
from dpad_fast.types import BoolMask, Box, ImageLike, Point, Size, Target

LARGEST_SIDE = 16384
_KEPT = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp"}
"""Formats whose bytes are stored as they are where nothing is resized, with the ending of their names."""


@dataclass(frozen=True)
class Sizing:
    """What size pictures become.

    Attributes:
        size: (width, height) of every picture; the ratio of its sides is not kept, as in the released data.
        max_side: the longer side is at most this many pixels, and the ratio is kept; smaller pictures stay as they are.
            With neither, every picture does.
    """

    size: Size | None = None
    max_side: int | None = None

    @classmethod
    def parse(cls, text: str | None) -> Sizing:
        """Reads "WIDTHxHEIGHT", "max-side=N" or "none".

        Raises:
            ValueError: it is none of these, or a side is not 1 to 16384.
        """
        words = re.sub(r"\s", "", (text or "none").lower())
        fixed, longest = re.fullmatch(r"(\d{1,9})x(\d{1,9})", words), re.fullmatch(r"max-side[=:]?(\d{1,9})", words)
        if words == "none":
            return cls()
        sides = [int(side) for found in (fixed, longest) if found for side in found.groups()]
        if not sides or not all(1 <= side <= LARGEST_SIDE for side in sides):
            raise ValueError(
                f"size must be WIDTHxHEIGHT, max-side=N (sides of 1 to {LARGEST_SIDE} pixels) or none, got {text!r:.80}"
            )
        return cls(size=(sides[0], sides[1])) if fixed else cls(max_side=sides[0])

    def __str__(self) -> str:
        if self.size is not None:
            return f"{self.size[0]}x{self.size[1]}"
        return "none" if self.max_side is None else f"max-side={self.max_side}"

    def of(self, size: Size) -> Size:
        """The size that a picture of this (width, height) becomes."""
        if self.size is not None:
            return self.size
        if self.max_side is None or max(size) <= self.max_side:
            return size
        factor = self.max_side / max(size)
        return max(1, math.floor(size[0] * factor + 0.5)), max(1, math.floor(size[1] * factor + 0.5))


@dataclass(frozen=True, eq=False)
class StoredPicture:
    """A picture as a data set holds it.

    Attributes:
        content: the encoded picture.
        path: a name for it, without folder.
        before: (width, height) of the source, upright.
        after: (width, height) of `content`.
    """

    content: bytes
    path: str
    before: Size
    after: Size


def store_picture(source: ImageLike, sizing: Sizing, name: str) -> StoredPicture:
    """Decodes a picture, resizes it (bilinear) and encodes it as PNG, which loses nothing.

    A JPEG, PNG or WebP of the right size that no EXIF tag turns is stored as its own bytes.

    Args:
        source: anything that `Sample.image` may be.
        sizing: what size it becomes.
        name: what messages and the stored path call it where the source has no name.

    Raises:
        ValueError: it cannot be read or decoded; says which.
    """
    raw, path = raw_picture(source, name)
    if raw is None:
        image: Any = source
        stem, called = Path(name).name, name
    else:
        stem, called = Path(path or name).stem if path else Path(name).name, path or name
        image = open_picture(raw, called)
    if isinstance(image, Image.Image):
        with decoding(called):
            image.load()
            size = upright_size(image)
            turned = upright(image) is not image
        kept = _KEPT.get(image.format or "")
        if raw is not None and kept and not turned and sizing.of(size) == size:
            return StoredPicture(raw, stem + kept, size, size)
    pixels = as_pixels(image, called).cpu().numpy()
    large = Image.fromarray(np.ascontiguousarray(pixels))
    after = sizing.of(large.size)
    small = large if after == large.size else large.resize(after, Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return StoredPicture(buffer.getvalue(), stem + ".png", large.size, after)


def raw_picture(source: Any, name: str) -> tuple[bytes | None, str | None]:
    """The encoded bytes and the path of a picture; (None, None) for what is decoded already.

    Raises:
        ValueError: the file cannot be read, or a mapping holds neither bytes nor a path.
    """
    if isinstance(source, Mapping):
        content, path = source.get("bytes"), source.get("path")
        if content is None and path is None:
            raise ValueError(f"{name} holds neither bytes nor a path")
        return (bytes(content), path) if content is not None else raw_picture(path, name)
    if isinstance(source, bytes | bytearray):
        return bytes(source), None
    if isinstance(source, str) and source[:5].lower() == "data:":
        return data_uri_bytes(source, name), None
    if isinstance(source, str | os.PathLike):
        try:
            return Path(source).read_bytes(), os.fspath(source)
        except (OSError, ValueError) as error:
            raise ValueError(f"picture {os.fspath(source)} cannot be read: {what_was_said(error)}") from None
    return None, None


def resize_mask(mask: BoolMask, size: Size) -> BoolMask:
    """Nearest neighbour: each new pixel is the old one in which its centre lies.

    Used for masks even where polygons are known: overlaps, holes, ignored parts and the drawing rule of the source are
    in its mask alone, so drawing the polygons again would give another truth than the one that the source has.

    Args:
        mask: bool [H, W].
        size: (width, height).

    Returns:
        bool [height, width].
    """
    height, width = mask.shape
    columns = (2 * np.arange(size[0]) + 1) * width // (2 * size[0])
    rows = (2 * np.arange(size[1]) + 1) * height // (2 * size[1])
    return np.ascontiguousarray(mask[np.ix_(rows, columns)])


def resize_target(target: Target, before: Size, after: Size) -> Target:
    """The truth in pixels of the resized picture, with what was missing of box and points derived.

    Boxes, polygons and points are scaled (points as the centres of pixels), masks see `resize_mask`. A box that was its
    mask's own stays so, and a point that was in the mask stays so too: it moves to the nearest pixel where scaling
    leaves the mask. Polygons without a mask are drawn, by COCO's rule, at the new size.

    Args:
        target: the truth in pixels of `before`.
        before: (width, height) of the picture.
        after: (width, height) that it becomes.

    Raises:
        ValueError: `image_size` is not `before`, or shrinking leaves the mask without a pixel.
    """
    if target.image_size not in (None, before):
        said = target.image_size
        assert said is not None
        raise ValueError(
            f"the truth belongs to a picture of {said[0]}x{said[1]}, but the picture is {before[0]}x{before[1]}"
        )
    factor = (after[0] / before[0], after[1] / before[1])
    rings = None if target.polygons is None else tuple(ring * np.array(factor) for ring in target.polygons)
    mask = _mask(target, rings, after)
    box = None if target.box is None else _scaled_box(target.box, factor)
    if mask is not None and (box is None or (target.mask is not None and target.box == box_of(target.mask))):
        box = box_of(mask)
    if target.points is not None:
        first, second = (_moved(point, target.mask, mask, factor, after) for point in target.points)
        points: tuple[Point, Point] | None = (first, second)
    else:
        points = None if mask is None else inscribed_points(mask)
    return replace(
        target,
        box=box,
        points=points,
        image_size=after,
        mask=mask,
        polygons=rings,
        ignore=None if target.ignore is None else resize_mask(target.ignore, after),
        objects=tuple((_scaled_box(b, factor), _moved(p, None, None, factor, after)) for b, p in target.objects),
        other_boxes=tuple(_scaled_box(other, factor) for other in target.other_boxes),
        text="",
    )


def _mask(target: Target, rings: tuple[Any, ...] | None, after: Size) -> BoolMask | None:
    if target.mask is not None:
        mask = target.mask if target.mask.shape == after[::-1] else resize_mask(target.mask, after)
        if target.mask.any() and not mask.any():
            raise ValueError(f"the mask of {int(target.mask.sum())} pixels has none left at {after[0]}x{after[1]}")
        return mask
    if not rings:
        return None
    drawn = coco_mask.frPyObjects([ring.ravel().tolist() for ring in rings], after[1], after[0])
    mask = coco_mask.decode(coco_mask.merge(drawn)).astype(bool)
    if not mask.any():
        raise ValueError(f"the polygons hold no pixel at {after[0]}x{after[1]}")
    return np.ascontiguousarray(mask)


def _scaled_box(box: Box, factor: Point) -> Box:
    return box[0] * factor[0], box[1] * factor[1], box[2] * factor[0], box[3] * factor[1]


def _moved(point: Point, old: BoolMask | None, new: BoolMask | None, factor: Point, after: Size) -> Point:
    if factor == (1, 1):
        return point
    x, y = ((value + 0.5) * scale - 0.5 for value, scale in zip(point, factor, strict=True))
    if old is None or new is None or not _holds(old, *point) or _holds(new, x, y):
        return min(max(x, 0.0), after[0] - 1.0), min(max(y, 0.0), after[1] - 1.0)
    ys, xs = np.nonzero(new)
    nearest = int(np.argmin((xs - x) ** 2 + (ys - y) ** 2))
    return float(xs[nearest]), float(ys[nearest])


def _holds(mask: BoolMask, x: float, y: float) -> bool:
    column, row = math.floor(x + 0.5), math.floor(y + 0.5)
    return 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1] and bool(mask[row, column])
