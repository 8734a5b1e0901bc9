"""The rows of a file of completions with their scores beside them, written in the file's order as JSONL or Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from dpad_fast.evaluate.predictions import Predictions

Row = tuple[dict[str, Any], dict[str, Any]]  # of the file, and its scores
Get = Callable[[int], "dict[str, Any] | None"]
_GROUP = 256  # rows that are in memory at once


def check_plain(predictions: Predictions) -> None:
    """Refuse rows that JSON cannot hold, before the work: they will be written again. Python reads NaN all the same.

    Raises:
        ValueError: a field holds such a number, or bytes; names file, row and field.
    """
    for number, values in predictions.rows():
        for key, value in values.items():
            try:
                json.dumps(value, allow_nan=False)
            except ValueError:
                what = "NaN or an infinite number, which JSON has not; write null"
            except TypeError:
                what = "what JSON cannot say; --out FILE.parquet keeps it"
            else:
                continue
            raise ValueError(f"{predictions.place_of(number)}: field {key!r:.80} holds {what}") from None


def with_scores(predictions: Predictions, get: Get) -> Iterator[Row]:
    """Every row that was scored, with its scores.

    Args:
        predictions: the file.
        get: scores by the number of a row; None where it was not scored.

    Yields:
        Rows, in the order of the file.
    """
    for number, values in predictions.rows():
        scores = get(number)
        if scores is not None:
            yield values, scores


def write_jsonl(rows: Iterable[Row], file: IO[str]) -> int:
    """A line per row: its own fields, then the scores.

    Returns:
        How many there were.
    """
    count = 0
    for count, (values, scores) in enumerate(rows, 1):  # noqa: B007
        file.write(json.dumps({**values, **scores}, allow_nan=False) + "\n")
    return count


def write_parquet(predictions: Predictions, rows: Iterable[Row], terms: Iterable[str], path: Path) -> int:
    """A row per row: its own columns (of a Parquet file as they are), then total, terms, similarity and reason.

    Args:
        predictions: what the rows are of.
        rows: them and their scores.
        terms: names of the reward's terms.
        path: where to write.

    Returns:
        How many there were.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    added = pa.schema(
        [
            ("total", pa.float64()),
            ("terms", pa.struct([(name, pa.float64()) for name in terms])),
            ("similarity", pa.struct([(name, pa.float64()) for name in ("roi", "aoi")])),
            ("reason", pa.string()),
        ]
    )
    own = predictions.schema()
    fields = [field for field in (_schema_of(predictions) if own is None else own) if field.name not in added.names]
    texts = {field.name for field in fields if own is None and field.metadata == _JSON}
    schema = pa.schema([*fields, *added], metadata=None if own is None else own.metadata)
    count, rest = 0, iter(rows)
    with pq.ParquetWriter(path, schema) as writer:
        while group := list(islice(rest, _GROUP)):
            count += len(group)
            merged = [_texts(values, texts) | {name: scores[name] for name in added.names} for values, scores in group]
            writer.write_table(pa.Table.from_pylist(merged, schema=schema))
    return count


_JSON = {b"dpad_fast": b"json"}  # a column of values of several kinds, each as JSON


def _texts(values: Mapping[str, Any], texts: set[str]) -> dict[str, Any]:
    return {name: json.dumps(value) if name in texts else value for name, value in values.items()}


def _schema_of(predictions: Predictions) -> Any:
    """The columns of a JSONL file: text, whole numbers, numbers or booleans where all are; JSON text where not."""
    import pyarrow as pa

    kinds: dict[str, set[type]] = {}
    for _, values in predictions.rows():
        for name, value in values.items():
            held = kinds.setdefault(name, set())
            if value is not None:
                held.add(type(value) if type(value) is not int or abs(value) < 1 << 63 else list)
    fields = []
    for name, held in kinds.items():
        known = {frozenset({str}): pa.string(), frozenset({int}): pa.int64(), frozenset({bool}): pa.bool_()}
        known |= {frozenset({float}): pa.float64(), frozenset({float, int}): pa.float64(), frozenset(): pa.string()}
        kind = known.get(frozenset(held))
        fields.append(pa.field(name, pa.string(), metadata=_JSON) if kind is None else pa.field(name, kind))
    return pa.schema(fields)
