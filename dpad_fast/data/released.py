"""The released `datasets` form: `problem`, `solution`, `image`, `img_height`, `img_width`, and perhaps `id`.

The solution is `<box>(x1,y1),(x2,y2)</box><points>(x,y),(x,y)</points>`, or, in the multi-object form, a JSON list of
{"bbox_2d", "point_2d"}. Sets that this package prepares have `mask` and `ignore` (COCO's run lengths as JSON text) and
`other_boxes` as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from dpad_fast._row_columns import Columns, listed
from dpad_fast._row_target import read_row
from dpad_fast.data import table_files
from dpad_fast.data.deferred import Deferred
from dpad_fast.data.rows import OnError, deferred_of, id_of, picture_of, query_of, said_size, samples_of
from dpad_fast.data.tables import folder_of, rows_of
from dpad_fast.row_images import size_of
from dpad_fast.types import Sample, Target

NEEDED = ("problem", "solution", "image")
"""The columns without which a table is not of this form."""

_MORE = ("mask", "ignore", "other_boxes")


def load(
    source: Any,
    *,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    on_error: OnError | None = None,
    limit: int = 0,
) -> Iterator[Sample]:
    """Reads a set of the released form, single or multi-object, one sample a row.

    Args:
        source: a folder of `save_to_disk`, a folder of Parquet files or one of them, a `datasets` object, or a name on
            the hub.
        split: of a source with several; None: the only one.
        images: see `dpad_fast.data.rows.load`.
        on_error: see `dpad_fast.data.rows.load`.
        limit: see `dpad_fast.data.rows.load`.

    Returns:
        An iterator of samples; `image` is {"bytes", "path"} or a path. Masks are decoded row by row.

    Raises:
        ValueError: the source cannot be read or has no such split, or (while iterating) a row cannot be read and
            `on_error` is None: a column is missing, img_height and img_width are not the picture's size, the solution
            is malformed. Names the source and the row.
    """
    folder = folder_of(source) if images is None else images
    return samples_of(rows_of(source, split), partial(_sample, folder=folder), on_error, limit)


def defer(
    source: Any,
    *,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    on_error: OnError | None = None,
    points: bool = True,
) -> Iterator[Deferred]:
    """The rows as samples that are read later; see `dpad_fast.data.rows.defer`."""
    folder = folder_of(source) if images is None else images
    read = partial(_sample, folder=folder, points=points)
    return deferred_of(rows_of(source, split), read, lambda row, number: id_of(row, "id", number), on_error)


def _sample(row: Mapping[str, Any], number: int, folder: str | os.PathLike[str] | None, points: bool = True) -> Sample:
    lacking = [name for name in NEEDED if name not in row]
    if lacking:
        raise ValueError(f"row has no column {', '.join(map(repr, lacking))}; it has {listed(row)}")
    sides = ("img_width", "img_height") if "img_width" in row and "img_height" in row else (None, None)
    here = {name: name for name in ("solution", *_MORE) if name in row}
    columns = Columns(width=sides[0], height=sides[1], **here)
    image = picture_of(row, "image", folder)
    size, said = size_of(image, "image"), said_size(row, columns)
    if said is not None and said != size:
        raise ValueError(
            f"img_width x img_height is {said[0]} x {said[1]}, but the picture is {size[0]} x {size[1]}"
            + (" (sides swapped)" if said == size[::-1] else "")
        )
    target = Target(**read_row(row, columns, size, points=points))
    return Sample(id_of(row, "id", number), image, query_of(row, "problem"), target)


def write(samples: Iterable[Sample], path: str | os.PathLike[str]) -> int:
    """Writes samples in the released form as one Parquet file, which `load` and `datasets` read.

    A sample with `objects` becomes a row of the multi-object form. Pictures are kept as they are encoded; arrays and
    PIL images become PNG. Numbers of a solution are written in full. Polygons are not kept.

    Args:
        samples: each with objects, or a box, two points or both; taken one at a time.
        path: ends with .parquet; it is whole or not there, and its folder is made.

    Returns:
        How many rows were written.

    Raises:
        ValueError: the name ends otherwise; a sample has nothing that a solution can hold; a picture cannot be read.
        OSError: the file cannot be written.
    """
    place = Path(path)
    if place.suffix.lower() != ".parquet":
        raise ValueError(f"path must end with .parquet, got {str(place)!r:.200}")
    return table_files.write(map(row_of, samples), place)


def row_of(sample: Sample) -> dict[str, Any]:
    """One row of the released form; see `write`.

    Raises:
        ValueError: the sample has nothing that a solution can hold, or its picture cannot be read; names its id.
    """
    target = sample.target
    try:
        content = table_files.encoded(sample.image)
        width, height = size_of(content, "image")
        if target.image_size not in (None, (width, height)):
            raise ValueError(f"target.image_size is {target.image_size}, but the picture is {(width, height)}")
        solution = target.text or solution_of(target)
    except ValueError as error:
        raise ValueError(f"sample {sample.id!r:.80}: {error}") from None
    masks = {name: table_files.run_lengths(getattr(target, name)) for name in ("mask", "ignore")}
    return {
        "id": sample.id,
        "problem": sample.query,
        "solution": solution,
        "image": {"bytes": content, "path": _name_of(sample.image)},
        "img_height": height,
        "img_width": width,
        **masks,
        "other_boxes": [list(box) for box in target.other_boxes] or None,
    }


def _name_of(image: Any) -> str | None:
    path = image.get("path") if isinstance(image, Mapping) else image
    if not isinstance(path, str | os.PathLike) or str(path).lower().startswith("data:"):
        return None
    return Path(path).name


def solution_of(target: Target) -> str:
    """The solution text of a target: the JSON list of its objects, or else its box and points.

    Raises:
        ValueError: it has none of these, or a number that the form cannot hold.
    """
    if target.objects:
        return json.dumps(
            [
                {"bbox_2d": list(map(_int_if_whole, box)), "point_2d": list(map(_int_if_whole, point))}
                for box, point in target.objects
            ]
        )
    parts = []
    if target.box is not None:
        parts.append(_tag("box", (target.box[:2], target.box[2:])))
    if target.points is not None:
        parts.append(_tag("points", target.points))
    if not parts:
        raise ValueError("target has neither box, points nor objects, which a solution is made of")
    return "".join(parts)


def _tag(name: str, pairs: Any) -> str:
    written = ",".join(f"({_spelled(x)},{_spelled(y)})" for x, y in pairs)
    return f"<{name}>{written}</{name}>"


def _int_if_whole(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _spelled(value: float) -> str:
    """In full, without an exponent, which the form does not know."""
    return format(Decimal(repr(_int_if_whole(value))), "f")
