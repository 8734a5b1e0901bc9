"""Rows and labels of training frameworks as what a scorer takes of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from dpad_fast._row_columns import KNOWN, Columns
from dpad_fast._row_values import as_mapping, look, missing
from dpad_fast.model_size import whole_size
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.spaces import reads_pixels
from dpad_fast.row_images import images_from, size_of
from dpad_fast.types import Size, Target

SizeOf: TypeAlias = Callable[[Size, Any], Size | None]
"""From a picture's (width, height), and the row that shows it, to the size at which the model saw it."""

_NO_PICTURE = np.zeros((1, 1, 3), np.uint8)  # of a row that is left out for its label: the error is to be that one


@dataclass
class Row:
    """What one row holds, each part as read or as the `ValueError` that says why it cannot be.

    `bare`: it can be scored without its picture, which is not there.
    """

    target: Any
    image: Any
    model_size: Any
    bare: bool


class RowReader:
    """Reads a framework's rows, so that what is wrong with one of them leaves that one unscored.

    Args:
        config: of the scorer.
        columns: where the ground truth is; None: told from well-known names.
        image: the column of the picture; None: looked for, as `images_from` does.
        image_root: the folder that relative paths of pictures are in; None: the process's own.
        size_of: the size at which the model saw a picture; None: it saw pictures as they are, or rows have a
            `model_size`. Not asked where answers are not in pixels of what the model saw.

    Raises:
        ValueError: `columns` or `image_root` is none.
    """

    def __init__(
        self,
        config: RewardConfig,
        *,
        columns: Columns | Mapping[str, Any] | None = None,
        image: str | None = None,
        image_root: str | os.PathLike[str] | None = None,
        size_of: SizeOf | None = None,
    ) -> None:
        if not isinstance(image, str | None):
            raise ValueError(f"image must be the name of the picture's column, got {image!r:.80}")
        if not isinstance(image_root, str | os.PathLike | None):
            raise ValueError(f"image_root must be a folder, got {image_root!r:.80}")
        self._config, self._needs_pictures = config, config.needs_encoder or config.segmenter is not None
        self._columns = _columns(columns)
        self._image, self._root = image, None if image_root is None else os.fspath(image_root)
        self._size_of = size_of if asks_for_sizes(config) else None

    def read(self, row: Any, i: int = 0, shown: Any = None) -> Row:
        """Reads one row.

        Args:
            row: a mapping with the ground truth, and `image_size` and `model_size`, (width, height) of the ground
                truth's picture and of the one that the model saw, where they are not told otherwise. A `ValueError`
                stands for a row that could not be read.
            i: its number, for messages.
            shown: a mapping with the picture, where that is not the row.
        """
        if isinstance(row, ValueError):
            return Row(ValueError(f"targets[{i}]: {row}"), _NO_PICTURE, None, not self._needs_pictures)
        shown = row if shown is None else shown
        image = self._picture(shown, i)
        try:
            target: Any = self._target(row, image)
        except ValueError as error:
            target = ValueError(f"targets[{i}]: {error}")
        model_size = self._model_size(row, shown, image, i)
        if isinstance(model_size, ValueError) and str(model_size).startswith("images["):
            image, model_size = model_size, None
        # The size at which the model saw a picture is the processor's, which asks for the picture's own.
        bare = isinstance(image, ValueError) and (self._size_of in (None, as_it_is) or model_size is not None)
        return Row(target, image, model_size, bare and not self._needs_pictures)

    def _target(self, row: Any, image: Any) -> Target | str:
        row = as_mapping(row)
        size = row.get("image_size")
        solution = row.get("solution" if self._columns is None else self._columns.solution or "")
        if self._config.answer == "released" and isinstance(solution, str) and size is None:
            return solution  # the released code reads any text, and scores what it cannot read
        columns = self._columns
        if not isinstance(image, ValueError) and (self._root is not None or not self._shows(row)):
            # The one that is scored, for coordinates that are parts of a picture: the row has it under another path,
            # or does not have it.
            row, columns = {**row, "image": image}, None if columns is None else replace(columns, image="image")
        return Target.from_row(row, columns, None if missing(size) else whole_size(size, "image_size"))

    def _shows(self, row: Mapping[str, Any]) -> bool:
        """Whether the row has a picture of its own where `Target.from_row` looks for it."""
        names = KNOWN["image"] if self._columns is None else (self._columns.image,)
        return any(name is not None and not missing(look(row, name)) for name in names)

    def _picture(self, shown: Any, i: int) -> Any:
        try:
            found = images_from(shown, self._image)
        except ValueError as error:
            return ValueError(f"images[{i}]: {error}")
        if len(found) == 1:
            return found[0] if self._root is None else _under(self._root, found[0])
        number = f"{len(found)} pictures, and which is meant is not known" if found else "no pictures"
        return ValueError(f"images[{i}]: the row has {number}")

    def _model_size(self, row: Any, shown: Any, image: Any, i: int) -> Any:
        given = row.get("model_size") if isinstance(row, Mapping) else None
        try:
            if not missing(given):
                return whole_size(given, "model_size")
            if self._size_of is None or isinstance(image, ValueError):
                return None
            return self._size_of(size_of(image, f"images[{i}]"), shown)
        except ValueError as error:
            said = str(error)
            return ValueError(said if said.startswith("images[") else f"model_sizes[{i}]: {said}")


def as_it_is(size: Size, _: Any) -> Size:
    """The size at which the model saw a picture that nothing resized."""
    return size


def asks_for_sizes(config: RewardConfig) -> bool:
    """Whether scores depend on the size at which the model saw a picture, and the configuration does not say it."""
    return reads_pixels(config) and config.model_size is None


def row_of(label: Any) -> Mapping[str, Any] | ValueError:
    """A label as a row: the solution's text alone, a mapping, or the JSON text of one.

    Returns:
        `{"solution": text}`, or the mapping; the `ValueError` that says what it is instead.
    """
    if isinstance(label, str) and label.lstrip()[:1] == "{":
        try:
            label = json.loads(label)
        except (ValueError, RecursionError):
            return ValueError(f"the label looks like a JSON object but is none: {label!r:.80}")
    if isinstance(label, str):
        return {"solution": label}
    if isinstance(label, Mapping):
        return label
    return ValueError(f"the label must be the solution's text or an object with its fields, got {label!r:.80}")


def _columns(given: Any) -> Columns | None:
    if not isinstance(given, Mapping):
        return Columns.taken(given)
    try:
        return Columns(**given)
    except TypeError as error:
        raise ValueError(f"columns must map the fields of Columns to names, got {given!r:.80}: {error}") from None


def _under(root: str, image: Any) -> Any:
    """A picture whose relative path begins at a folder."""
    if isinstance(image, os.PathLike) or (isinstance(image, str) and image[:5].lower() != "data:"):
        return os.path.join(root, image)
    if isinstance(image, Mapping) and image.get("bytes") is None and isinstance(image.get("path"), str | os.PathLike):
        return {"bytes": None, "path": os.path.join(root, image["path"])}
    return image
