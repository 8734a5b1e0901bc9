"""Writes rows as JSONL, Parquet or CSV: one at a time, into a file that is whole or not there."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dpad_fast import coco_mask, files
from dpad_fast.pictures import data_uri_bytes, decoding, open_picture, upright

KINDS = (".jsonl", ".parquet", ".csv")
_GROUP = 64  # rows of a Parquet file that are in memory at once


def write(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Writes rows of the same columns; see `dpad_fast.data.rows.write`.

    Returns:
        How many there were.
    """
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise ValueError(f"path must end with one of {', '.join(KINDS)}, got {str(path)!r:.200}")
    files.prepare(path)
    with _complete_file(path) as partial:
        if kind == ".parquet":
            return _parquet(rows, partial)
        with open(partial, "w", encoding="utf-8", newline="" if kind == ".csv" else "\n") as file:
            return _csv(rows, file) if kind == ".csv" else _lines(rows, file)


@contextmanager
def _complete_file(path: Path) -> Iterator[Path]:
    """A temporary path beside the file, which is renamed to it at the end and removed after an error."""
    partial = path.with_name(f".{path.name[:100]}.{os.getpid()}.partial")
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _lines(rows: Iterable[Mapping[str, Any]], file: Any) -> int:
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007
        file.write(
            json.dumps({name: value for name, value in row.items() if value is not None}, allow_nan=False) + "\n"
        )
    return count


def _csv(rows: Iterable[Mapping[str, Any]], file: Any) -> int:
    writer, count = csv.writer(file), 0
    for count, row in enumerate(rows, 1):
        if count == 1:
            writer.writerow(row)
        writer.writerow(
            "" if value is None else value if isinstance(value, str | int) else json.dumps(value, allow_nan=False)
            for value in row.values()
        )
    return count


def _parquet(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, count = iter(rows), 0
    first = list(islice(rows, _GROUP))
    schema = _schema(first[0] if first else {})
    with pq.ParquetWriter(path, schema) as writer:
        group = first
        while group:
            count += len(group)
            texts = [{name: _as_text(name, value) for name, value in row.items()} for row in group]
            writer.write_table(pa.Table.from_pylist(texts, schema=schema))
            group = list(islice(rows, _GROUP))
    return count


def _as_text(name: str, value: Any) -> Any:
    """Run lengths are JSON text in Parquet, so that every reader has them alike."""
    return json.dumps(value) if name in ("mask", "ignore") and value is not None else value


def _schema(row: Mapping[str, Any]) -> Any:
    """The columns' types, and what tells `datasets` that `image` holds pictures."""
    import pyarrow as pa

    numbers = pa.list_(pa.float64())
    known = {
        "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        "width": pa.int64(),
        "height": pa.int64(),
        "img_width": pa.int64(),
        "img_height": pa.int64(),
        "box": numbers,
        "points": pa.list_(numbers),
        "polygons": pa.list_(pa.list_(numbers)),
        "objects": pa.list_(pa.struct([("bbox_2d", numbers), ("point_2d", numbers)])),
        "other_boxes": pa.list_(numbers),
    }
    return _for_datasets(pa.schema([(name, known.get(name, pa.string())) for name in row]))


def _for_datasets(schema: Any) -> Any:
    if "image" not in schema.names:
        return schema
    from datasets import Features, Image

    features = Features.from_arrow_schema(schema)
    features["image"] = Image()
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features.to_dict()}})})


def run_lengths(mask: Any) -> dict[str, Any] | None:
    """A mask bool [H, W] as COCO's run lengths in JSON's types; None for none."""
    if mask is None:
        return None
    rle = coco_mask.encode(np.ascontiguousarray(mask))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def picture(image: Any, folder: Path, as_bytes: bool) -> Any:
    """A picture as a row holds it: a path, or its bytes.

    Args:
        image: what `RewardScorer.score` takes.
        folder: where the rows will lie.
        as_bytes: {"bytes", "path"}, as `datasets` stores pictures; else a path or a data URI.

    Raises:
        ValueError: it cannot be read.
    """
    path: str | None = None
    if isinstance(image, Mapping):
        path = image.get("path")
        image = path if image.get("bytes") is None else image["bytes"]
    if isinstance(image, str) and image[:5].lower() == "data:":
        image = data_uri_bytes(image, "image")
    if isinstance(image, str | os.PathLike):
        place = _from_folder(os.fspath(image), folder)
        return {"bytes": None, "path": place} if as_bytes else place
    content = bytes(image) if isinstance(image, bytes | bytearray | memoryview) else _png(image)
    if as_bytes:
        return {"bytes": content, "path": path}
    return f"data:image/{_kind_of(content)};base64,{base64.b64encode(content).decode('ascii')}"


def encoded(image: Any) -> bytes:
    """A picture's file: its bytes as they are, an array or PIL image as PNG.

    Raises:
        ValueError: it cannot be read.
    """
    if isinstance(image, Mapping):
        image = image.get("path") if image.get("bytes") is None else image["bytes"]
    if isinstance(image, str) and image[:5].lower() == "data:":
        return data_uri_bytes(image, "image")
    if isinstance(image, str | os.PathLike):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise ValueError(f"image cannot be read: {error.strerror}: {os.fspath(image)!r:.200}") from None
    return bytes(image) if isinstance(image, bytes | bytearray | memoryview) else _png(image)


def _from_folder(path: str, folder: Path) -> str:
    whole, base = os.path.abspath(path), os.path.abspath(folder)
    inside = os.path.commonpath([whole, base]) == base
    return Path(whole).relative_to(base).as_posix() if inside else whole


def _png(image: Any) -> bytes:
    """Pixels without loss, turned as EXIF says."""
    out = io.BytesIO()
    if isinstance(image, Image.Image):
        with decoding("image"):
            turned = upright(image)
            (turned if turned.mode in ("1", "L", "RGB", "RGBA") else turned.convert("RGB")).save(out, "PNG")
        return out.getvalue()
    from dpad_fast._native.images import as_pixels

    Image.fromarray(as_pixels(image, "image").cpu().contiguous().numpy()).save(out, "PNG")
    return out.getvalue()


def _kind_of(content: bytes) -> str:
    with open_picture(content, "image") as opened:
        return (opened.format or "png").lower()
