"""`images_from`: the pictures of a row, wherever a trainer or a data set puts them."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image

from dpad_fast._row_columns import listed
from dpad_fast._row_values import as_mapping, has, look, missing, plain
from dpad_fast.pictures import data_uri_bytes, decoding, file_size, upright_size

ImageLike: TypeAlias = Any  # as in `dpad_fast.types`, which imports this through `Target.from_row`
Size: TypeAlias = tuple[int, int]

COLUMNS = (
    "image",
    "images",
    "image_path",
    "img_path",
    "picture",
    "file_name",
    "multi_modal_data",
    "raw_prompt",
    "prompt",
    "messages",
)
"""Where pictures are looked for, in this order; the first that holds one counts."""

_CHATS = ("raw_prompt", "prompt", "messages")
_DEEPEST = 8
_KINDS = "a PIL image, a path, encoded bytes, a {'bytes', 'path'} dictionary, an array or a tensor"
_REMOTE = ("http://", "https://", "ftp://", "s3://", "gs://")
# Where blocks of chats hold a picture: verl and qwen-vl-utils; OpenAI; transformers' chat templates; Anthropic.
_KEYS = ("image", "image_url", "url", "path", "base64", "source", "data", "bytes")


def images_from(row: Any, column: str | None = None) -> list[ImageLike]:
    """The pictures of a row, in order, each as `RewardScorer.score` takes it; none is opened.

    Args:
        row: a mapping, a `datasets` row, a data frame's row or a named tuple.
        column: where the pictures are, `outer.inner` for a key of a dictionary. None: the first of `image`, `images`,
            `image_path`, `img_path`, `picture`, `file_name`, `multi_modal_data`, `raw_prompt`, `prompt`, `messages`
            that holds one. It may hold a PIL image, path (also `file://`), data URI, encoded bytes, {"bytes", "path"},
            array or tensor; content blocks of chat messages (`{"type": "image", "image": ...}`, OpenAI's `image_url`
            and others; a block without a picture marks a place only); {"image": ...} or {"images": ...}, as EasyR1's
            `multi_modal_data`; or lists of these.

    Returns:
        The pictures; empty where the columns hold none.

    Raises:
        ValueError: the row has no such column; an entry is no picture, an address on the network, or nested too deep.
            Names the column, the place in it and the value.
    """
    row = as_mapping(row)
    if column is not None:
        if not has(row, column):
            raise ValueError(f"row has no column {column!r:.80}; it has {listed(row)}")
        return _of_column(row, column)
    there = [name for name in COLUMNS if name in row]
    if not there:
        raise ValueError(f"row has none of the columns {', '.join(COLUMNS)}; it has {listed(row)}")
    return next((found for name in there if (found := _of_column(row, name))), [])


def size_of(image: Any, name: str) -> Size:
    """(width, height) of a picture of a row, turned as its EXIF says; of a file the header alone is read.

    Raises:
        ValueError: it cannot be opened, or is no picture; begins with `name`.
    """
    if isinstance(image, Mapping):
        image = image["path"] if image.get("bytes") is None else image["bytes"]
    if isinstance(image, str) and image[:5].lower() == "data:":
        image = data_uri_bytes(image, name)
    if isinstance(image, Image.Image):
        with decoding(name):
            return upright_size(image)
    if isinstance(image, str | os.PathLike | bytes | bytearray | memoryview):
        source = os.fspath(image) if isinstance(image, str | os.PathLike) else bytes(image)
        return file_size(source, name)
    shape = tuple(image.shape)
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        shape = shape[1:]  # a shape that fits both orders is [C, H, W], as where pixels are read
    if len(shape) not in (2, 3) or 0 in shape[:2]:
        raise ValueError(f"{name} must be [H, W], [H, W, C] or [C, H, W], got {list(shape)}")
    return int(shape[1]), int(shape[0])


def _of_column(row: Mapping[str, Any], column: str) -> list[ImageLike]:
    value = look(row, column)
    if missing(value):
        return []
    if column.rpartition(".")[2] in _CHATS and isinstance(value, str):
        return []  # a prompt in words
    return list(_images_in(plain(value), column, 0))


def _images_in(value: Any, where: str, level: int) -> Iterator[ImageLike]:
    if level > _DEEPEST:
        raise ValueError(f"{where} is nested deeper than {_DEEPEST} levels")
    if isinstance(value, str):
        yield from _of_text(value, where, level)
    elif isinstance(value, bytes | bytearray | memoryview):
        yield bytes(value)
    elif isinstance(value, Image.Image | os.PathLike):
        yield value
    elif isinstance(value, Mapping):
        yield from _of_mapping(value, where, level)
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim in (0, 1, 4)):
        if isinstance(value, np.ndarray) and value.ndim == 0:
            raise ValueError(f"{where} must be {_KINDS}, got an array without dimensions")
        for i, item in enumerate(value):
            inside = where if len(value) == 1 else f"{where}[{i}]"
            if missing(item):
                raise ValueError(f"{inside} is None")
            yield from _images_in(plain(item), inside, level + 1)
    elif isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "shape")):
        yield value
    else:
        raise ValueError(f"{where} must be {_KINDS}, got {type(value).__name__}")


def _of_text(text: str, where: str, level: int) -> Iterator[ImageLike]:
    """A path, a data URI, or the JSON list of some that a cell of a CSV file holds."""
    if text[:8].lower() == "file:///":
        yield unquote(urlsplit(text).path)
        return
    if text.lower().startswith(_REMOTE):
        raise ValueError(f"{where} is on the network, from where nothing is fetched: {text!r:.80}")
    if text.lstrip()[:1] == "[":
        try:
            inner = json.loads(text)
        except (ValueError, RecursionError):
            inner = None
        if isinstance(inner, list):
            yield from _images_in(inner, where, level + 1)
            return
    yield text


def _of_mapping(value: Mapping[str, Any], where: str, level: int) -> Iterator[ImageLike]:
    if "role" in value or "content" in value:  # a message
        content = value.get("content")
        if isinstance(content, list | tuple | np.ndarray):
            for i, block in enumerate(content):
                block = plain(block)
                if isinstance(block, Mapping):
                    yield from _of_block(block, f"{where}.content[{i}]", level + 1)
        return
    kind = value.get("type")
    if isinstance(kind, str):
        yield from _of_block(value, where, level + 1)
        return
    if "images" in value or "image" in value:
        key = "images" if not missing(value.get("images")) else "image"
        if not missing(value.get(key)):
            yield from _images_in(plain(value[key]), f"{where}.{key}", level + 1)
        return
    if "bytes" in value or "path" in value:
        content, path = (None if missing(value.get(key)) else plain(value.get(key)) for key in ("bytes", "path"))
        if content is None and path is None:
            raise ValueError(f"{where} is a dictionary with neither bytes nor path: both are None")
        if content is not None and not isinstance(content, bytes | bytearray | memoryview):
            raise ValueError(f"{where}.bytes must be bytes, got {type(content).__name__}")
        if path is not None and not isinstance(path, str | os.PathLike):
            raise ValueError(f"{where}.path must be a path, got {path!r:.60}")
        yield {"bytes": content, "path": path}
        return
    keys = ", ".join(map(repr, list(value)[:8]))
    raise ValueError(f"{where} is a dictionary with neither bytes nor path, its keys are: {keys or 'none'}"[:300])


def _of_block(block: Mapping[str, Any], where: str, level: int) -> Iterator[ImageLike]:
    """The picture of a content block; text and the like have none, and neither has a mere place for one."""
    if block.get("type") not in ("image", "image_url", "input_image", "image_pil"):
        return
    key = next((key for key in _KEYS if not missing(block.get(key))), None)
    if key is None:
        return
    value, inside = plain(block[key]), f"{where}.{key}"
    while isinstance(value, Mapping) and (nested := next((k for k in ("url", "data") if k in value), None)):
        key, value, inside = nested, plain(value[nested]), f"{inside}.{nested}"
        if level > _DEEPEST:
            raise ValueError(f"{where} is nested deeper than {_DEEPEST} levels")
        level += 1
    if key in ("base64", "data") and isinstance(value, str) and value[:5].lower() != "data:":
        try:
            value = base64.b64decode("".join(value.split()), validate=True)
        except ValueError as error:
            raise ValueError(f"{inside} is base64 that cannot be read: {error}") from None
    yield from _images_in(value, inside, level + 1)
