"""`Picture`: a user's image; `find_pictures` finds equal ones by key, path, identity and content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dpad_fast._native.images import as_pixels, content_digest, content_digests, in_own_mode, pixels_within
from dpad_fast.pictures import (
    data_uri_bytes,
    decoding,
    file_size,
    is_decoded,
    open_picture,
    upright,
    upright_size,
    what_was_said,
)
from dpad_fast.row_errors import RowErrors, given_error
from dpad_fast.types import Size


class KeptBytes(bytes):
    """Encoded bytes that are scored in many batches: their key and size are found once.

    Without bytes but with a key it stands for a picture that is elsewhere, and of which only the size counts.

    Attributes:
        key: `Picture.key` of a picture of these bytes, None: not found yet.
        size: the same for `Picture.size`.
        fault: why there is no picture, an error where anything of it is asked for; None: there is one.
    """

    key: Hashable | None = None
    size: Size | None = None
    fault: str | None = None


class Picture:
    """One image of a caller, upright: its size is known without decoding, its pixels and key when first asked for.

    A decoded image is made RGB once, and kept as long as this object; files are decoded each time, so that a large
    batch holds only the pictures that it works on.
    """

    def __init__(self, source: Any, name: str) -> None:
        self.name = name
        self._source = source
        self._pixels: torch.Tensor | None = None
        self._own_mode: torch.Tensor | Image.Image | None = None
        kept = isinstance(source, KeptBytes)
        self._key: Hashable | None = source.key if kept else None
        self._size: Size | None = source.size if kept else None

    @property
    def size(self) -> Size:
        """(width, height), after the picture was turned as its EXIF says."""
        if self._size is None:
            if isinstance(self._source, KeptBytes) and self._source.fault is not None:
                raise ValueError(self._source.fault)
            if isinstance(self._source, Image.Image):
                with decoding(self.name):
                    self._size = upright_size(self._source)
            elif isinstance(self._source, str | bytes):
                self._size = file_size(self._source, self.name)
                if isinstance(self._source, KeptBytes):
                    self._source.size = self._size
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
        """A digest of the content: of the file's bytes, of the pixels, or of an image that is neither RGB nor grey."""
        if self._key is None:
            if isinstance(self._source, str | bytes):
                content = self._source if isinstance(self._source, bytes) else self._read()
                self._key = file_key(hashlib.sha256(content).digest())
                if isinstance(self._source, KeptBytes):
                    self._source.key = self._key
            else:
                self._key = _content_key(self.in_own_mode())
        return self._key

    @property
    def is_known(self) -> bool:
        """Whether `key` is known, so that asking for it costs nothing."""
        return self._key is not None

    def at_hand(self) -> torch.Tensor | None:
        """What a key that is not known yet is a digest of; None where that is not pixels in host memory already."""
        if self._key is not None or isinstance(self._source, str | bytes):
            return None
        if isinstance(self._source, Image.Image) and not is_decoded(self._source):
            return None
        content = self.in_own_mode()
        return content if isinstance(content, torch.Tensor) and content.device.type == "cpu" else None

    def known_by(self, key: Hashable) -> None:
        """Says what `key` is, so that it need not be found."""
        self._key = key

    @property
    def new_pixels(self) -> int:
        """How many pixels come into memory when it is read: all of a file, none of what was given decoded."""
        width, height = self.size if isinstance(self._source, str | bytes) else (0, 0)
        return width * height

    def pixels(self) -> torch.Tensor:
        """uint8 [H, W, 3]."""
        if isinstance(self._source, str | bytes):
            plain = self._pixels_within()
            if plain is not None:
                return plain
            with open_picture(self._source, self.name) as image:
                return _colours(as_pixels(image, self.name))
        if self._pixels is None:
            self._pixels = _colours(as_pixels(self._source, self.name))
        return self._pixels

    def in_own_mode(self) -> torch.Tensor | Image.Image:
        """`pixels()` where the picture is RGB or grey, else a decoded PIL image in its own mode."""
        if isinstance(self._source, str | bytes):
            plain = self._pixels_within()
            if plain is not None:
                return plain
            with open_picture(self._source, self.name) as image:
                found = in_own_mode(image, self.name)
            return found if isinstance(found, Image.Image) else _colours(found)
        if self._own_mode is None:
            self._own_mode = in_own_mode(self._source, self.name)
            if isinstance(self._own_mode, torch.Tensor):
                self._own_mode = self._pixels = _colours(self._own_mode)
        return self._own_mode

    def decoded(self) -> Picture:
        """The same picture, held decoded, and known by its content instead of by its file."""
        if not isinstance(self._source, str | bytes):
            return self
        with open_picture(self._source, self.name) as image, decoding(self.name):
            image.load()
            return Picture(upright(image), self.name)

    def _pixels_within(self) -> torch.Tensor | None:
        """Pixels that stand in the file as they are; the usual form of decoded pictures on their way to a server."""
        return pixels_within(self._source) if isinstance(self._source, bytes) else None

    def _read(self) -> bytes:
        try:
            return Path(self._source).read_bytes()
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.name} cannot be read: {what_was_said(error)}") from None


class MaskedPicture:
    """A picture in which some pixels are black; it is made RGB first, by the encoder's rule."""

    def __init__(self, picture: Picture, keep: torch.Tensor, label: Hashable) -> None:
        self._picture, self._keep = picture, keep
        self.key: Hashable = ("masked", picture.key, label)
        self.new_pixels = keep.numel()

    def pixels(self) -> torch.Tensor:
        """uint8 [H, W, 3]."""
        return self._masked(self._picture.pixels())

    def in_own_mode(self) -> torch.Tensor:
        """uint8 [H, W, 3], converted from the picture's own mode without alpha."""
        found = self._picture.in_own_mode()
        if isinstance(found, Image.Image):
            found = found.convert("RGB")
            found.info = {}  # a transparent colour would be laid over white
            found = _colours(as_pixels(found, "picture"))
        return self._masked(found)

    def _masked(self, pixels: torch.Tensor) -> torch.Tensor:
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
        images: PIL images, paths, data URIs in base64, encoded bytes, {"bytes", "path"} dictionaries, arrays or
            tensors.
        keys: N keys; images of equal keys must be equal. None entries have no key.
        errors: takes the rows without a picture; their index is -1. None: they raise.
        contents: compare the contents of images with equal keys, once per distinct object; False: only their sizes.

    Returns:
        The distinct pictures (by key, path or identity; content is compared by `Picture.key`), and [N] indices.

    Raises:
        ValueError: an image is of no known kind, or another than one before it that has the same key, unless `errors`
            keeps it; names its index.
    """
    if keys is not None and len(keys) != len(images):
        raise ValueError(f"image_keys has {len(keys)} entries for {len(images)} images")
    errors = errors or RowErrors()
    known_as = [None] * len(images) if keys is None else list(keys)  # by place, not by a data frame's labels
    pictures: list[Picture] = []
    places: dict[Hashable, int] = {}
    equal: set[tuple[int, Hashable]] = set()  # (place, identity) of what was compared
    held: dict[int, int] = {}  # by identity of what came without a key and is held here, so that nothing else gets it
    index: list[int] = []
    for i, image in enumerate(images):
        key = known_as[i]
        if key is None and id(image) in held:  # the rows of a group share a picture
            index.append(held[id(image)])
            continue
        try:
            source = source_of(image, f"images[{i}]")
            identity = _identity(source)
            known = identity if key is None else _known(key, i)
            place = places.setdefault(known, len(pictures))
            if place == len(pictures):
                pictures.append(Picture(source, f"images[{i}]"))
                if key is None and source is image:
                    held[id(image)] = place
            elif key is not None and (place, identity) not in equal:
                _check_equal(pictures[place], Picture(source, f"images[{i}]"), key, contents)
            equal.add((place, identity))
            index.append(place)
        except ValueError as error:
            errors.add(i, error)
            index.append(-1)
    return pictures, index


def find_keys(pictures: Iterable[Any], threads: int) -> None:
    """Finds the keys of those whose pixels lie in host memory, all by one call; the others' are found when asked for.

    Raises:
        ValueError: a picture cannot be decoded.
    """
    waiting = [(picture, picture.at_hand()) for picture in pictures if isinstance(picture, Picture)]
    found = [(picture, content) for picture, content in waiting if content is not None]
    for (picture, content), digest in zip(found, content_digests([one for _, one in found], threads), strict=True):
        picture.known_by(_pixels_key(content, digest))


def file_key(sha256: bytes) -> Hashable:
    """`Picture.key` of encoded bytes with this digest."""
    # Not "file": embeddings under that name were made before pictures were turned.
    return ("upright", sha256[:16])


def _known(key: Hashable, i: int) -> Hashable:
    try:
        hash(key)
    except TypeError:
        raise ValueError(f"image_keys[{i}] cannot be hashed: {str(key)[:80]!r}") from None
    return ("key", key)


def _check_equal(first: Picture, other: Picture, key: Hashable, contents: bool) -> None:
    """Refuses two different images under one key, since one embedding would stand for both."""
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


def _content_key(content: torch.Tensor | Image.Image) -> Hashable:
    if isinstance(content, torch.Tensor):
        return _pixels_key(content, content_digest(content))
    # Encoders treat alpha and palettes in different ways, so the digest covers both.
    digest = hashlib.sha256(content.tobytes())
    digest.update(bytes(content.getpalette() or ()))
    digest.update(repr(content.info.get("transparency")).encode())
    return ("image", content.mode, content.size, digest.digest()[:16])


def _pixels_key(content: torch.Tensor, digest: bytes) -> Hashable:
    return ("pixels", tuple(content.shape), digest)


def source_of(image: Any, name: str) -> Any:
    """What stands behind a caller's image: a path, encoded bytes, a PIL image, an array or a tensor.

    Raises:
        ValueError: it is none of these; begins with `name`.
    """
    if isinstance(image, Image.Image):  # the usual kind, which shall not be asked for what else it might be
        return image
    given_error(image, name)
    if isinstance(image, Mapping):
        content, path = image.get("bytes"), image.get("path")
        if content is None and path is None:
            raise ValueError(f"{name} is a dictionary with neither bytes nor path")
        image = content if content is not None else path
    if isinstance(image, os.PathLike):
        image = os.fspath(image)
    if isinstance(image, str) and image[:5].lower() == "data:":
        return data_uri_bytes(image, name)
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, torch.Tensor) and image.is_meta:
        raise ValueError(f"{name} is a tensor without values (device meta)")
    if isinstance(image, str | bytes | np.ndarray | torch.Tensor):
        return image
    kinds = "a PIL image, a path, encoded bytes, a {'bytes', 'path'} dictionary, an array or a tensor"
    raise ValueError(f"{name} must be {kinds}, got {type(image).__name__}")


def _identity(source: Any) -> Hashable:
    if isinstance(source, str):
        return ("path", source)
    if isinstance(source, KeptBytes) and source.key is not None:
        return source.key  # Python would hash megabytes
    if isinstance(source, bytes):
        return ("bytes", source)
    return ("object", id(source))
