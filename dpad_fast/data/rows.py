"""Rows of any table as samples, and back: JSONL, Parquet, CSV, data frames, `datasets` objects and folders of these."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dpad_fast import _target as fields
from dpad_fast._row_columns import Columns, listed
from dpad_fast._row_target import read_row
from dpad_fast._row_values import as_mapping, look, missing
from dpad_fast.data import table_files
from dpad_fast.data.deferred import Deferred
from dpad_fast.data.tables import Place, folder_of, rows_of
from dpad_fast.row_images import images_from, size_of
from dpad_fast.types import ImageLike, Sample, Size, Target

OnError = Callable[[str], None]
_NO_PATH = ("data:", "file:", "http:", "https:", "[")


def load(
    source: Any,
    *,
    columns: Columns | None = None,
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    on_error: OnError | None = None,
    limit: int = 0,
) -> Iterator[Sample]:
    """Reads the rows of a table, one sample each, in order and in bounded memory.

    Args:
        source: a file (.jsonl, .ndjson, .json, .parquet, .csv, .tsv), a folder of such files or of `save_to_disk`, a
            name on the hub, a pandas data frame, a `datasets` object, or an iterable of mappings.
        columns: the names of the columns; None: guessed from well-known names, row by row (`Columns.guess`).
        images: the folder that relative paths of pictures and masks are relative to; None: the file's, or the working
            directory where the source is no file.
        split: of a source with several.
        on_error: called with one message per row that cannot be read, which is then left out. None: such a row raises.
        limit: read so many rows at most; 0 for all.

    Returns:
        An iterator of samples. `image` is a path, a PIL image, an array, or the {"bytes", "path"} of `datasets`; of
        each the header is read, so that a missing or broken picture is found here. The target is `Target.from_row`'s,
        whose `image_size` is what the columns width and height say, else the picture's. The id is that of the row,
        else its number from 0.

    Raises:
        ValueError: the source cannot be read, or (while iterating) a row cannot and `on_error` is None; names the
            file, the row (the line of JSONL and CSV) and the field.
    """
    columns = Columns.taken(columns)
    if images is None:
        images = folder_of(source)
    return samples_of(rows_of(source, split), _RowReader(columns, images), on_error, limit)


def defer(
    source: Any,
    *,
    columns: Columns | None = None,
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    on_error: OnError | None = None,
    points: bool = True,
) -> Iterator[Deferred]:
    """The rows of a table as samples that are read later; see `load`.

    Args:
        source: see `load`.
        columns: see `load`.
        images: see `load`.
        split: see `load`.
        on_error: for rows of which not even the id can be told.
        points: False leaves out points that would have to be derived from a mask.

    Returns:
        An iterator.
    """
    columns = Columns.taken(columns)
    if images is None:
        images = folder_of(source)

    def name(row: Mapping[str, Any], number: int) -> str:
        return id_of(row, (Columns.guess(row) if columns is None else columns).id, number)

    return deferred_of(rows_of(source, split), _RowReader(columns, images, points), name, on_error)


def deferred_of(
    places: Iterable[Place],
    read: Callable[[Mapping[str, Any], int], Sample],
    name: Callable[[Mapping[str, Any], int], str],
    on_error: OnError | None,
) -> Iterator[Deferred]:
    """Rows as samples that are read later.

    Args:
        places: rows and where they stand.
        read: makes a sample of a row and its number; can be pickled.
        name: the id of a row.
        on_error: see `defer`.
    """
    for number, (place, row) in enumerate(places):
        try:
            if isinstance(row, ValueError):
                raise row
            found = Deferred(name(as_mapping(row), number), _Later(place, row, number, read))
        except ValueError as error:
            if on_error is None:
                raise ValueError(f"{place}: {error}") from None
            on_error(f"{place}: {error}")
        else:
            yield found


@dataclass(frozen=True, eq=False)
class _Later:
    """The reading of one row."""

    place: str
    row: Mapping[str, Any]
    number: int
    read: Callable[[Mapping[str, Any], int], Sample]

    def __call__(self) -> Sample:
        try:
            return self.read(as_mapping(self.row), self.number)
        except ValueError as error:
            raise ValueError(f"{self.place}: {error}") from None


def samples_of(
    places: Iterable[Place], read: Callable[[Mapping[str, Any], int], Sample], on_error: OnError | None, limit: int = 0
) -> Iterator[Sample]:
    """The samples that a reader makes of rows; see `load`.

    Args:
        places: rows and where they stand, as `dpad_fast.data.tables` yields them.
        read: makes a sample of a row and its number.
        on_error: see `load`.
        limit: see `load`.
    """
    if limit < 0:
        raise ValueError(f"limit must be 0 (all rows) or more, got {limit}")
    return _samples(islice(places, limit or None), read, on_error)


def _samples(
    places: Iterable[Place], read: Callable[[Mapping[str, Any], int], Sample], on_error: OnError | None
) -> Iterator[Sample]:
    for number, (place, row) in enumerate(places):
        try:
            if isinstance(row, ValueError):
                raise row
            sample = read(as_mapping(row), number)
        except ValueError as error:
            message = f"{place}: {error}"
            if on_error is None:
                raise ValueError(message) from None
            on_error(message)
        else:
            yield sample


class _RowReader:
    """Makes a sample of a row."""

    def __init__(self, columns: Columns | None, images: str | os.PathLike[str] | None, points: bool = True) -> None:
        self._columns, self._images, self._points = columns, images, points

    def __call__(self, row: Mapping[str, Any], number: int) -> Sample:
        columns = Columns.guess(row) if self._columns is None else self._columns
        image = picture_of(row, columns.image, self._images)
        size = size_of(image, columns.image or "image")
        row, size = _with_paths(row, columns, self._images), said_size(row, columns) or size
        target = Target(**read_row(row, self._columns, size, points=self._points))
        return Sample(id_of(row, columns.id, number), image, query_of(row, columns.query), target)


def picture_of(row: Mapping[str, Any], column: str | None, folder: str | os.PathLike[str] | None) -> ImageLike:
    """The one picture of a row.

    Args:
        row: the row.
        column: where it is; None: wherever `images_from` finds it.
        folder: the base of relative paths; None: the working directory.

    Raises:
        ValueError: there is none, or there are several.
    """
    found = images_from(row, column)
    if len(found) != 1:
        raise ValueError(f"{column or 'image'} holds {len(found)} pictures, expected exactly one")
    image: ImageLike = found[0]
    if isinstance(image, Mapping) and image["bytes"] is None:
        image = image["path"]
    placed: ImageLike = _path_in_folder(image, folder)
    return placed


def said_size(row: Mapping[str, Any], columns: Columns) -> Size | None:
    """(width, height) as the row's columns say it; None where they do not."""
    if columns.width is None or columns.height is None:
        return None
    found = [look(row, name) for name in (columns.width, columns.height)]
    if any(map(missing, found)):
        return None
    try:
        return fields.size([float(value) for value in found])
    except (TypeError, ValueError):
        raise ValueError(
            f"{columns.width} and {columns.height} must be whole pixels, got {fields.short(tuple(found))}"
        ) from None


def query_of(row: Mapping[str, Any], column: str | None) -> str:
    """The question of a row.

    Raises:
        ValueError: it has none, or it is no text.
    """
    if column is None:
        raise ValueError(
            f"row has no query under a known name; it has {listed(row)}. Name it, as Columns(query='text')"
        )
    found = look(row, column)
    if missing(found) or not isinstance(found, str):
        raise ValueError(f"{column} must be text, got {fields.short(found)}")
    return found


def id_of(row: Mapping[str, Any], column: str | None, number: int) -> str:
    """The id of a row as text; its number where it has none."""
    found = None if column is None else look(row, column)
    return str(number) if missing(found) else str(found)


def _with_paths(row: Mapping[str, Any], columns: Columns, folder: str | os.PathLike[str] | None) -> Mapping[str, Any]:
    """The row, with relative paths of masks relative to the folder."""
    changed = {}
    for name in (columns.mask, columns.ignore):
        value = None if name is None or folder is None else row.get(name)
        if isinstance(value, str) and value.lstrip()[:1] not in ("{", "") and name is not None:
            changed[name] = _path_in_folder(value, folder)
    return {**row, **changed} if changed else row


def _path_in_folder(value: Any, folder: str | os.PathLike[str] | None) -> Any:
    if folder is None or not isinstance(value, str | os.PathLike) or os.path.isabs(value):
        return value
    text = os.fspath(value)
    return value if text.lower().startswith(_NO_PATH) else os.fspath(Path(folder) / text)


def write(samples: Iterable[Sample], path: str | os.PathLike[str]) -> int:
    """Writes samples as rows that `load` reads back with equal fields.

    The columns are id, query, image, width, height, box, points, mask, polygons, ignore, objects, other_boxes and
    solution; masks are COCO's run lengths, numbers are written in full. Paths of pictures below the file's folder are
    written relative to it, others as absolute ones. Pictures that are no file are kept as they are encoded, arrays and
    PIL images as PNG of their RGB: in Parquet as {"bytes", "path"}, else as data URIs. What `load` derives (box and
    points from a mask or polygons) is there after reading even where it was not before.

    Args:
        samples: any number; they are taken one at a time.
        path: ends with .jsonl, .parquet or .csv; it is whole or not there, and its folder is made.

    Returns:
        How many rows were written.

    Raises:
        ValueError: the name ends otherwise, or a picture cannot be read; names the sample.
        OSError: the file cannot be written.
    """
    place = Path(path)
    as_bytes = place.suffix.lower() == ".parquet"
    return table_files.write((_row_of(sample, place.parent, as_bytes) for sample in samples), place)


def _row_of(sample: Sample, folder: Path, as_bytes: bool) -> dict[str, Any]:
    target = sample.target
    try:
        image = table_files.picture(sample.image, folder, as_bytes)
    except ValueError as error:
        raise ValueError(f"sample {sample.id!r:.80}: {error}") from None
    width, height = target.image_size or (None, None)
    return {
        "id": sample.id,
        "query": sample.query,
        "image": image,
        "width": width,
        "height": height,
        "box": None if target.box is None else list(target.box),
        "points": None if target.points is None else [list(point) for point in target.points],
        "mask": table_files.run_lengths(target.mask),
        "polygons": None if target.polygons is None else [ring.tolist() for ring in target.polygons],
        "ignore": table_files.run_lengths(target.ignore),
        "objects": [{"bbox_2d": list(box), "point_2d": list(point)} for box, point in target.objects] or None,
        "other_boxes": [list(box) for box in target.other_boxes] or None,
        "solution": target.text or None,
    }
