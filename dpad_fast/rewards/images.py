"""What users hold as images, as `Picture`s; equal ones are found by key, path, identity and content."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from dpad_fast.ops._images import as_pixels, content_digest
from dpad_fast.rewards.row_errors import RowErrors, given_error
from dpad_fast.types import Size


class Picture:
    """One image: its size is known without decoding, its pixels and content key are made when first asked for."""

    def __init__(self, source: Any, name: str) -> None:
        self.name = name
        self._source = source
        self._key: Hashable | None = None
        self._size: Size | None = None

    @property
    def size(self) -> Size:
        """(width, height)."""
        if self._size is None:
            if isinstance(self._source, Image.Image):
                self._size = self._source.size
            elif isinstance(self._source, str | bytes):
                with self._open() as image:
                    self._size = image.size
            else:
                pixels = self.pixels()
                self._size = int(pixels.shape[1]), int(pixels.shape[0])
        return self._size

    def check(self) -> None:
        """Raises a `ValueError` where this is no image; a file is opened but not decoded."""
        width, height = self.size
        if width < 1 or height < 1:
            raise ValueError(f"{self.name} has no pixel: its size is {(width, height)}")

    @property
    def key(self) -> Hashable:
        """A digest of the content: of the file's bytes, or of the pixels."""
        if self._key is None:
            if isinstance(self._source, str | bytes):
                content = self._source if isinstance(self._source, bytes) else self._read()
                self._key = ("file", hashlib.sha256(content).digest()[:16])
            else:
                pixels = self.pixels()
                self._key = ("pixels", tuple(pixels.shape), content_digest(pixels))
        return self._key

    def pixels(self) -> torch.Tensor:
        """uint8 [H, W, 3]; files are decoded each time, so that a large batch holds only what it works on."""
        if isinstance(self._source, str | bytes):
            with self._open() as image:
                try:
                    return _colours(as_pixels(image, self.name))
                except OSError as error:  # a file cut short shows only when it is decoded
                    raise ValueError(f"{self.name} cannot be decoded: {error}") from None
        return _colours(as_pixels(self._source, self.name))

    def _read(self) -> bytes:
        try:
            return Path(self._source).read_bytes()
        except OSError as error:
            raise ValueError(f"{self.name} cannot be read: {error}") from None

    def _open(self) -> Image.Image:
        try:
            return Image.open(io.BytesIO(self._source) if isinstance(self._source, bytes) else self._source)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise ValueError(f"{self.name} cannot be opened as an image: {error}") from None


class MaskedPicture:
    """A picture in which some pixels are black."""

    def __init__(self, picture: Picture, keep: torch.Tensor, label: Hashable) -> None:
        self._picture, self._keep = picture, keep
        self.key: Hashable = ("masked", picture.key, label)

    def pixels(self) -> torch.Tensor:
        """uint8 [H, W, 3]."""
        pixels = self._picture.pixels()
        return torch.where(self._keep[..., None].to(pixels.device), pixels, torch.zeros((), dtype=torch.uint8))


def find_pictures(
    images: Sequence[Any],
    keys: Sequence[Hashable] | None,
    errors: RowErrors | None = None,
    *,
    contents: bool = True,
) -> tuple[list[Picture], list[int]]:
    """Distinct pictures of N images, and which of them each image is.

    Args:
        images: PIL images, paths, encoded bytes, {"bytes", "path"} dictionaries, arrays or tensors.
        keys: N keys; images of equal keys must be equal. None entries have no key.
        errors: takes the rows without a picture; their index is -1. None: they raise.
        contents: look whether images of equal keys are equal, once per distinct object; False: whether their sizes are.

    Returns:
        The distinct pictures (by key, path or identity; content is compared by `Picture.key`), and [N] indices.

    Raises:
        ValueError: an image is of no known kind, or another than one before it that has the same key, unless `errors`
            keeps it; names its index.
    """
    if keys is not None and len(keys) != len(images):
        raise ValueError(f"image_keys has {len(keys)} entries for {len(images)} images")
    errors = errors or RowErrors()
    pictures: list[Picture] = []
    places: dict[Hashable, int] = {}
    equal: set[tuple[int, Hashable]] = set()  # (place, identity) of what was compared
    index = []
    for i, image in enumerate(images):
        key = keys[i] if keys is not None else None
        try:
            source = _source(image, f"images[{i}]")
            identity = _identity(source)
            known = identity if key is None else _known(key, i)
            place = places.setdefault(known, len(pictures))
            if place == len(pictures):
                pictures.append(Picture(source, f"images[{i}]"))
            elif key is not None and (place, identity) not in equal:
                _check_equal(pictures[place], Picture(source, f"images[{i}]"), key, contents)
            equal.add((place, identity))
            index.append(place)
        except ValueError as error:
            errors.add(i, error)
            index.append(-1)
    return pictures, index


def _known(key: Hashable, i: int) -> Hashable:
    try:
        hash(key)
    except TypeError:
        raise ValueError(f"image_keys[{i}] cannot be hashed: {str(key)[:80]!r}") from None
    return ("key", key)


def _check_equal(first: Picture, other: Picture, key: Hashable, contents: bool) -> None:
    """Two images under one key: one embedding would stand for both."""
    same = first.size == other.size
    if same and contents and first.key != other.key:
        # One picture may come as a file here and decoded there, or in two encodings.
        same = content_digest(first.pixels()) == content_digest(other.pixels())
    if not same:
        raise ValueError(
            f"{other.name} is another picture than {first.name}, though both have the key {str(key)[:80]!r}"
        )


def _colours(pixels: torch.Tensor) -> torch.Tensor:
    # A fourth byte here is Pillow's padding; passed on it would be taken for alpha.
    return pixels[..., :3]


def _source(image: Any, name: str) -> Any:
    given_error(image, name)
    if isinstance(image, Mapping):
        content, path = image.get("bytes"), image.get("path")
        if content is None and path is None:
            raise ValueError(f"{name} is a dictionary with neither bytes nor path")
        image = content if content is not None else path
    if isinstance(image, os.PathLike):
        return os.fspath(image)
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | bytes | Image.Image | np.ndarray | torch.Tensor):
        return image
    kinds = "a PIL image, a path, encoded bytes, a {'bytes', 'path'} dictionary, an array or a tensor"
    raise ValueError(f"{name} must be {kinds}, got {type(image).__name__}")


def _identity(source: Any) -> Hashable:
    if isinstance(source, str):
        return ("path", source)
    if isinstance(source, bytes):
        return ("bytes", source)
    return ("object", id(source))
