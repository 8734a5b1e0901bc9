"""Rows of JSONL, Parquet, CSV, data frames and `datasets`, one at a time, each with the place that messages name."""

from __future__ import annotations

import copy
import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dpad_fast.hub import only_local
from dpad_fast.terminal import printable

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
}
BATCH = 64  # rows of a Parquet file in memory at once; a row may hold a picture
_LONGEST_CELL = 1 << 27
_MARK = "\ufeff"

Place = tuple[str, "Mapping[str, Any] | ValueError"]
"""The place of a row, and the row, or the error in its place where it cannot be read."""


def rows_of(source: Any, split: str | None = None) -> Iterator[Place]:
    """The rows of a source, in order, read as they are asked for.

    Args:
        source: a file of one of `SUFFIXES`; a folder of such files (read in the order of their names), of
            `save_to_disk`, or a name on the hub; a pandas data frame; a `datasets` object; an iterable of mappings.
        split: of several: the split of a `datasets` source, or the files of a folder whose names begin with it.

    Returns:
        Pairs of a place ("file.jsonl: line 3", "part.parquet: row 2", "rows[2]": rows count from 0, lines from 1) and
        the row, or the `ValueError` that says why it cannot be read. Pictures of `datasets` stay {"bytes", "path"}.

    Raises:
        ValueError: the source is none of these, has no such split, or needs one.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.is_dir():
            return _of_folder(path, split)
        if path.is_file():
            return _of_file(path)
        return _of_datasets(_from_hub(os.fspath(source)), os.fspath(source), split)
    if hasattr(source, "columns") and hasattr(source, "iloc"):
        return _of_frame(source)
    if hasattr(source, "features") or (isinstance(source, Mapping) and source and _are_splits(source)):
        return _of_datasets(source, "rows", split)
    if isinstance(source, Mapping | bytes) or not isinstance(source, Iterable):
        kinds = "a file, a folder, a hub's name, a data frame, a datasets object or an iterable of rows"
        raise ValueError(f"source must be {kinds}, got {type(source).__name__}")
    return ((f"rows[{i}]", row) for i, row in enumerate(source))


def folder_of(source: Any) -> Path | None:
    """The folder that relative paths in a source's rows are relative to; None where it is no file or folder."""
    if not isinstance(source, str | os.PathLike):
        return None
    path = Path(source)
    return path if path.is_dir() else path.parent if path.is_file() else None


def files_in(folder: Path, split: str | None = None) -> list[Path]:
    """The files of rows in a folder, in the order of their names; those of one kind only.

    Raises:
        ValueError: there are none, none of the split, or of several splits, or of several kinds.
    """
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and _is_rows(file))
    if not found:
        raise ValueError(f"folder holds no file of rows ({', '.join(SUFFIXES)}): {folder}")
    splits = sorted({name for file in found if (name := _split_of(file))})
    if split is not None and splits:
        found = [file for file in found if _split_of(file) == split]
        if not found:
            raise ValueError(f"split is {split!r:.80}; {folder} has {', '.join(splits)}")
    elif len(splits) > 1:
        raise ValueError(f"{folder} has the splits {', '.join(splits)}: say which (split)")
    kinds = {SUFFIXES[file.suffix.lower()] for file in found}
    if len(kinds) > 1:
        raise ValueError(f"{folder} has rows as {' and '.join(sorted(kinds))}: name the file")
    return found


def _is_rows(file: Path) -> bool:
    # Beside the rows stand notes of ours and of `datasets`.
    return file.is_file() and file.name not in ("bad-rows.jsonl", "dataset.json", "state.json", "dataset_info.json")


def _split_of(file: Path) -> str | None:
    """As `datasets` names shards: train-00000-of-00003.parquet, or the split alone."""
    name = file.stem.split("-")[0]
    return name if name in ("train", "validation", "val", "test", "dev") else None


def _of_folder(folder: Path, split: str | None) -> Iterator[Place]:
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        from datasets import load_from_disk

        return _of_datasets(load_from_disk(str(folder)), str(folder), split)
    return (place for file in files_in(folder, split) for place in _of_file(file))


def _of_file(path: Path) -> Iterator[Place]:
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"{path} is no file of rows: its name ends with none of {', '.join(SUFFIXES)}")
    if kind == "parquet":
        return _of_parquet(path)
    if kind in ("csv", "tsv"):
        return _of_csv(path, "," if kind == "csv" else "\t")
    return _of_lines(path) if kind == "jsonl" else _of_json(path)


def _of_lines(path: Path) -> Iterator[Place]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path}: line {number}", _parsed(line)


def _of_json(path: Path) -> Iterator[Place]:
    try:
        found = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}"[:400]) from None
    if not isinstance(found, list):
        raise ValueError(f"{path}: expected a list of rows, got {type(found).__name__}")
    for i, row in enumerate(found):
        yield f"{path}: row {i}", _an_object(row)


def _parsed(line: bytes) -> Mapping[str, Any] | ValueError:
    try:
        return _an_object(json.loads(line.decode("utf-8").removeprefix(_MARK)))
    except (ValueError, RecursionError) as error:
        return ValueError(f"not valid JSON: {error}"[:200])


def _an_object(row: Any) -> Mapping[str, Any] | ValueError:
    return row if isinstance(row, dict) else ValueError(f"expected an object, got {row!r:.60}")


def _of_csv(path: Path, delimiter: str) -> Iterator[Place]:
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))  # masks are longer than Python's 128 KiB
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        names = _next_row(reader)
        if not isinstance(names, list) or len(set(names)) != len(names):
            raise ValueError(f"{path}: line 1 must name the columns, each once, got {names!r:.80}")
        line = reader.line_num + 1
        while (cells := _next_row(reader)) is not None:
            if cells:
                yield f"{path}: line {line}", _cells(names, cells)
            line = reader.line_num + 1


def _next_row(reader: Any) -> list[str] | ValueError | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        return ValueError(f"not valid CSV: {error}")


def _cells(names: Sequence[str], cells: list[str] | ValueError) -> Mapping[str, Any] | ValueError:
    if isinstance(cells, ValueError):
        return cells
    if len(cells) != len(names):
        return ValueError(f"has {len(cells)} cells, the first line has {len(names)}")
    for name, cell in zip(names, cells, strict=True):
        if not cell.isascii() and not _is_utf8(cell):
            return ValueError(f"{name} is not valid UTF-8: {printable(cell)[:60]}")
    return {name: cell or None for name, cell in zip(names, cells, strict=True)}


def _is_utf8(text: str) -> bool:
    with suppress(UnicodeEncodeError):
        text.encode("utf-8")
        return True
    return False


def _of_parquet(path: Path) -> Iterator[Place]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = 0
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            for batch in file.iter_batches(BATCH):
                # Row by row: one whose values Python cannot hold harms no other.
                for i in range(batch.num_rows):
                    yield (
                        f"{path}: row {row}",
                        {name: batch.column(j)[i].as_py() for j, name in enumerate(batch.schema.names)},
                    )
                    row += 1
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not readable as Parquet after row {row}: {error}"[:400]) from None


def _of_frame(frame: Any) -> Iterator[Place]:
    names = [str(name) for name in frame.columns]
    if len(set(names)) != len(names):
        raise ValueError(f"the data frame has two columns of one name: {names!r:.200}")
    for i, values in enumerate(zip(*(frame.iloc[:, j] for j in range(len(names))), strict=True)):
        yield f"rows[{i}]", dict(zip(names, values, strict=True))


def _are_splits(source: Mapping[Any, Any]) -> bool:
    return all(hasattr(value, "features") for value in source.values())


def _of_datasets(rows: Any, where: str, split: str | None) -> Iterator[Place]:
    if isinstance(rows, Mapping):
        if split is None and len(rows) > 1:
            raise ValueError(f"{where} has the splits {', '.join(map(str, rows))}: say which (split)")
        name = split if split is not None else next(iter(rows))
        if name not in rows:
            raise ValueError(f"split is {split!r:.80}; {where} has {', '.join(map(str, rows))}")
        rows = rows[name]
    rows = _undecoded(rows)
    start = where if where == "rows" else f"{where}: row "
    return ((f"rows[{i}]" if where == "rows" else f"{start}{i}", row) for i, row in enumerate(rows))


def _undecoded(rows: Any) -> Any:
    """Pictures as they are stored: they are decoded only when needed, and a broken one is an error of its row alone."""
    if rows.features is None:
        return rows
    rows = rows.with_format(None)
    for name, feature in rows.features.items():
        stored = _stored(feature)
        if stored is not feature:
            rows = rows.cast_column(name, stored)
    return rows


def _stored(feature: Any) -> Any:
    """The feature with `decode=False` wherever it has a picture; the same object where it has none."""
    if type(feature).__name__ == "Image":
        kept = copy.copy(feature)
        kept.decode = False
        return kept
    if isinstance(feature, dict):
        inner = {key: _stored(value) for key, value in feature.items()}
        return inner if any(inner[key] is not value for key, value in feature.items()) else feature
    if isinstance(feature, list):
        inner_list = [_stored(value) for value in feature]
        return inner_list if any(a is not b for a, b in zip(inner_list, feature, strict=True)) else feature
    if hasattr(feature, "feature"):
        item = _stored(feature.feature)
        if item is not feature.feature:
            kept = copy.copy(feature)
            kept.feature = item
            return kept
    return feature


def _from_hub(name: str) -> Any:
    """A data set of the hub, or of its cache here."""
    if Path(name).suffix.lower() in SUFFIXES:
        raise ValueError(f"{name}: no such file")
    from datasets import config, load_dataset

    try:
        cache = Path(config.HF_DATASETS_CACHE) / name.replace("/", "___")
        only_local(name, (), cached=cache.is_dir())
    except ValueError as error:
        raise ValueError(f"data set {name!r:.120} cannot be loaded: {error}") from None

    try:
        return load_dataset(name)
    except Exception as error:  # of the hub, of `datasets`, of whatever format: all mean that there is no such data
        raise ValueError(f"data set {name!r:.120} cannot be loaded: {' '.join(str(error).split())}"[:400]) from None
