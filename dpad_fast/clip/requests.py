"""Checks of the inputs to embed: captions become token ids, and images with boxes become pictures and regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from dpad_fast import _target as fields
from dpad_fast.clip.images import Picture, find_pictures
from dpad_fast.clip.regions import EmptyRegion, Region, region_of
from dpad_fast.clip.tokens import Ids, Tokens
from dpad_fast.types import Size


def read_texts(tokens: Tokens, texts: Sequence[str], truncate: bool) -> list[Ids]:
    """Token ids that fit the context.

    Raises:
        ValueError: a caption is no string, no valid Unicode or too long; names its index.
    """
    if isinstance(texts, str):
        raise ValueError("texts must be a list of strings, got one string")
    texts = fields.entries(texts, "texts", "strings")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"texts[{i}] must be a string, got {type(text).__name__}")
    rows = []
    for i, ids in enumerate(tokens.encode(texts)):
        if isinstance(ids, str):
            raise ValueError(f"texts[{i}] cannot be embedded: {ids}")
        if not truncate and not tokens.fits(ids):
            raise ValueError(
                f"texts[{i}] has {len(ids)} tokens, and the model takes {tokens.context}; truncate=True cuts it"
            )
        rows.append(tokens.truncate(ids))
    return rows


def read_images(
    images: Sequence[Any], boxes: Sequence[Sequence[float] | None] | None
) -> tuple[Sequence[Picture], list[tuple[int, Region]]]:
    """Distinct pictures, and per image the index of its picture with the region.

    Raises:
        ValueError: an image cannot be read or a box has no pixel; names the index.
    """
    if isinstance(images, Image.Image):
        raise ValueError("images must be a sequence of pictures, got one picture")
    # By place: a data frame's column is indexed by its labels.
    images = fields.entries(images, "images", "pictures")
    boxes = None if boxes is None else fields.entries(boxes, "boxes", "boxes")
    if boxes is not None and len(boxes) != len(images):
        raise ValueError(f"boxes has {len(boxes)} entries for {len(images)} images")
    pictures, index = find_pictures(images, None)
    for picture in pictures:
        picture.check()
    regions = [
        (place, _region(None if boxes is None else boxes[i], pictures[place].size, i)) for i, place in enumerate(index)
    ]
    return pictures, regions


def _region(box: Sequence[float] | None, size: Size, i: int) -> Region:
    if box is None:
        return None
    numbers = _numbers(box, f"boxes[{i}]")
    try:
        region_of(numbers, size, clip=True)  # some of it must be on the image
        return region_of(numbers, size)
    except EmptyRegion:
        raise ValueError(f"boxes[{i}] has no pixel of images[{i}], which is {size}: {numbers}") from None


def _numbers(box: Any, name: str) -> tuple[float, ...]:
    try:
        found = fields.numbers(box, 4, name)
    except ValueError:
        found = ()
    if len(found) != 4 or not all(abs(value) < 1e9 for value in found):
        raise ValueError(f"{name} must be four finite numbers (x1, y1, x2, y2), got {fields.short(box)}")
    return found


def check_ids(tokens: Tokens, ids: Sequence[Ids]) -> None:
    """Raises a `ValueError` naming the index of a list that is empty, beyond the context, or holds what is no token."""
    for i, row in enumerate(ids):
        if not row:
            raise ValueError(f"ids[{i}] has no token")
        if not tokens.fits(row):
            raise ValueError(f"ids[{i}] has {len(row)} tokens, and the model's context {tokens.context}")
        low, high = min(row), max(row)
        if low < 0 or (tokens.rows is not None and high >= tokens.rows):
            raise ValueError(f"ids[{i}] goes from {low} to {high}, and the model knows 0 to {(tokens.rows or 0) - 1}")
