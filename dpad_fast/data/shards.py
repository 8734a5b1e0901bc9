"""One Parquet file of a prepared data set: the columns, and rows that are not as they should be in its own notes.

The columns are those of the authors' release (`id, problem, solution, image, img_height, img_width`) and, as JSON text
or null, `mask` and `ignore` (run lengths in COCO's compressed form) and `polygons`; `other_boxes` is a list of boxes.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dpad_fast import coco_mask, files
from dpad_fast.data.resize import Sizing, StoredPicture, resize_target, store_picture
from dpad_fast.types import BoolMask, Box, Point, Sample, Size, Target

if TYPE_CHECKING:
    import pyarrow as pa

_BAD = b"dpad_fast_bad_rows"
_GROUP = 32  # rows that a reader has to decode at once
_TEXTS = ("id", "problem", "solution")
_JSONS = ("mask", "ignore", "polygons")


class BadRow(NamedTuple):
    """A row that was left out.

    Attributes:
        row: its number in the source, bad ones counted too.
        reason: what is wrong, naming the file where it is known.
    """

    row: int
    reason: str


class Notes(NamedTuple):
    """The notes of a shard: its rows, and the rows that were left out.

    Attributes:
        rows: how many it holds.
        bad: the rows that were left out of it.
    """

    rows: int
    bad: tuple[BadRow, ...]


class PackedSample(NamedTuple):
    """A sample on its way to another process: masks as run lengths, a hundredth of their size."""

    row: int
    sample: Sample
    mask: dict[str, Any] | None
    ignore: dict[str, Any] | None


def pack(row: int, sample: Sample) -> PackedSample:
    """The sample with its masks as run lengths."""
    target = sample.target
    fields = {name: getattr(target, name) for name in _FIELDS}
    size = target.image_size
    bare = Sample(sample.id, sample.image, sample.query, Target(**fields, image_size=size))
    return PackedSample(row, bare, _encoded(target.mask), _encoded(target.ignore))


_FIELDS = ("box", "points", "polygons", "objects", "other_boxes", "text")


def _unpack(packed: PackedSample) -> Sample:
    sample = packed.sample
    fields = {name: getattr(sample.target, name) for name in (*_FIELDS, "image_size")}
    target = Target(**fields, mask=_decoded(packed.mask), ignore=_decoded(packed.ignore))
    return Sample(sample.id, sample.image, sample.query, target)


def _encoded(mask: BoolMask | None) -> dict[str, Any] | None:
    found: dict[str, Any] | None = None if mask is None else coco_mask.encode(mask)
    return found


def _decoded(rle: dict[str, Any] | None) -> BoolMask | None:
    return None if rle is None else np.ascontiguousarray(coco_mask.decode(rle)).astype(bool)


def write_shard(path: Path, packed: Iterable[PackedSample], sizing: Sizing) -> Notes:
    """Makes the rows of some samples and writes them, whole or not at all.

    Args:
        path: the file.
        packed: the samples.
        sizing: what size pictures become.

    Returns:
        The notes of the file.

    Raises:
        OSError: it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    bad: list[BadRow] = []
    buffer, schema, count = io.BytesIO(), _schema(), 0
    # A picture is incompressible; a dictionary of its values would hold each one once more.
    with pq.ParquetWriter(buffer, schema, compression="zstd", use_dictionary=False, write_statistics=False) as writer:
        for group in _groups(_rows(packed, sizing, bad)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            count += len(group)
        writer.add_key_value_metadata({_BAD.decode(): json.dumps(bad)})
    files.write_bytes(path, buffer.getvalue())
    return Notes(count, tuple(bad))


def read_notes(path: Path) -> Notes | None:
    """The notes of a shard; None where the file is not a complete shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.read_metadata(path)
        bad = json.loads((found.metadata or {})[_BAD])
    except (OSError, pa.ArrowException, KeyError, ValueError):
        return None
    return Notes(found.num_rows, tuple(BadRow(row, reason) for row, reason in bad))


def _schema() -> pa.Schema:
    """With the note by which `datasets` knows pictures."""
    import pyarrow as pa

    features: dict[str, Any] = {name: {"dtype": "string", "_type": "Value"} for name in (*_TEXTS, *_JSONS)}
    features |= {name: {"dtype": "int64", "_type": "Value"} for name in ("img_height", "img_width")}
    number = {"dtype": "float64", "_type": "Value"}
    features |= {"image": {"_type": "Image"}, "other_boxes": [[number]]}
    kinds = {name: pa.string() for name in (*_TEXTS, *_JSONS)}
    kinds |= {"img_height": pa.int64(), "img_width": pa.int64(), "other_boxes": pa.list_(pa.list_(pa.float64()))}
    kinds["image"] = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    order = (*_TEXTS, "image", "img_height", "img_width", "mask", "ignore", "other_boxes", "polygons")
    note = {"info": {"features": {name: features[name] for name in order}}}
    return pa.schema([(name, kinds[name]) for name in order], metadata={"huggingface": json.dumps(note)})


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group = []
    for row in rows:
        group.append(row)
        if len(group) == _GROUP:
            yield group
            group = []
    if group:
        yield group


def _rows(packed: Iterable[PackedSample], sizing: Sizing, bad: list[BadRow]) -> Iterator[dict[str, Any]]:
    last: tuple[Any, StoredPicture] | None = None
    for item in packed:
        try:
            source = item.sample.image
            if last is None or not isinstance(source, str) or last[0] != source:
                last = (source, store_picture(source, sizing, item.sample.id))
            row = _row(_unpack(item), last[1])
        except ValueError as error:
            bad.append(BadRow(item.row, f"{_place(item.sample)}: {error}"))
            continue
        yield row


def _place(sample: Sample) -> str:
    """The sample's id and, where it has one, its picture's file."""
    return f"{sample.id} ({sample.image})" if isinstance(sample.image, str) and len(sample.image) < 500 else sample.id


def _row(sample: Sample, stored: StoredPicture) -> dict[str, Any]:
    target = resize_target(sample.target, stored.before, stored.after)
    if not sample.query.strip():
        raise ValueError("the query is empty")
    return {
        "id": sample.id,
        "problem": sample.query,
        "solution": solution_text(target),
        "image": {"bytes": stored.content, "path": stored.path},
        "img_height": stored.after[1],
        "img_width": stored.after[0],
        "mask": _rle_text(target.mask),
        "ignore": _rle_text(target.ignore),
        "other_boxes": [list(box) for box in target.other_boxes],
        "polygons": None if target.polygons is None else json.dumps([ring.tolist() for ring in target.polygons]),
    }


def _rle_text(mask: BoolMask | None) -> str | None:
    if mask is None:
        return None
    rle = coco_mask.encode(mask)
    return json.dumps({"size": list(map(int, rle["size"])), "counts": rle["counts"].decode("ascii")})


def solution_text(target: Target) -> str:
    """The truth as the release writes it, in whole pixels: tags, or a JSON list where there are several objects.

    Args:
        target: with `image_size`; the box is cut to the picture.

    Raises:
        ValueError: there is neither box, points nor objects, or a box is off the picture or has no area.
    """
    size = target.image_size
    assert size is not None
    if target.objects:
        found = [
            {"bbox_2d": _whole_box(box, size, f"objects[{i}].box"), "point_2d": _whole_point(point, size)}
            for i, (box, point) in enumerate(target.objects)
        ]
        return json.dumps(found)
    text = ""
    if target.box is not None:
        x1, y1, x2, y2 = _whole_box(target.box, size, "box")
        text += f"<box>({x1},{y1}),({x2},{y2})</box>"
    if target.points is not None:
        (ax, ay), (bx, by) = (_whole_point(point, size) for point in target.points)
        text += f"<points>({ax},{ay}),({bx},{by})</points>"
    if not text:
        raise ValueError("there is no target: neither a pixel, box, points nor objects")
    return text


def _whole_point(point: Point, size: Size) -> list[int]:
    if not all(-0.5 <= value <= side for value, side in zip(point, size, strict=True)):
        raise ValueError(f"point {point} lies off the {size[0]}x{size[1]} picture")
    return [min(math.floor(value + 0.5), side - 1) for value, side in zip(point, size, strict=True)]


def _whole_box(box: Box, size: Size, name: str) -> list[int]:
    width, height = size
    if not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"{name} has no area (x1 < x2 and y1 < y2 expected): {box}")
    if box[2] <= 0 or box[3] <= 0 or box[0] >= width or box[1] >= height:
        raise ValueError(f"{name} lies off the {width}x{height} picture: {box}")
    x1, x2 = _whole_span(box[0], box[2], width)
    y1, y2 = _whole_span(box[1], box[3], height)
    return [x1, y1, x2, y2]


def _whole_span(low: float, high: float, side: int) -> tuple[int, int]:
    """In whole pixels of the picture, at least one long."""
    first = min(max(math.floor(low + 0.5), 0), side - 1)
    return first, max(min(math.floor(high + 0.5), side), first + 1)
