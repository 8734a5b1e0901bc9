"""The rows of a Parquet file of predictions, batch by batch: never a whole row group is in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

_BATCH = 256


def rows_of(source: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Every row.

    Args:
        source: the file.
        columns: which; None: all.

    Raises:
        ValueError: it cannot be read; names the row.
    """
    import pyarrow as pa

    row = 0
    try:
        with _file(source) as file:
            for batch in file.iter_batches(_BATCH, columns=columns):
                for values in batch.to_pylist():
                    yield values
                    row += 1
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{source}: not readable as Parquet after row {row}: {error}"[:400]) from None


def schema_of(source: str) -> Any:
    """The columns, as Arrow has them."""
    with _file(source) as file:
        return file.schema_arrow


@contextmanager
def _file(source: str) -> Iterator[Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ValueError(f"{source}: Parquet needs pyarrow: pip install pyarrow") from None
    try:
        file = pq.ParquetFile(source, memory_map=True, pre_buffer=False)
    except pa.ArrowException as error:
        raise ValueError(f"{source} cannot be read as Parquet: {error}"[:400]) from None
    with file:
        yield file


def write_lines(source: str, columns: Sequence[str], lines: IO[bytes]) -> None:
    """Write some columns as lines of JSON.

    Args:
        source: the file.
        columns: those wanted, of which "id" and one more must be there.
        lines: the file of lines.

    Raises:
        ValueError: the file cannot be read, or has not these columns.
    """
    there = schema_of(source).names
    names = [name for name in columns if name in there]
    if "id" not in names or len(names) == 1:
        raise ValueError(f"{source} must have the columns id and completion (or mask), it has {', '.join(there)[:200]}")
    for values in rows_of(source, names):
        lines.write(_as_line(values))


def _as_line(values: dict[str, Any]) -> bytes:
    """Run lengths may be JSON text in a row, or have counts in bytes."""
    mask = values.get("mask")
    if isinstance(mask, str) and mask.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):  # the ruler says what is wrong with it
            values["mask"] = json.loads(mask)
    kept = {name: value for name, value in values.items() if value is not None}
    return json.dumps(kept, default=_plain).encode() + b"\n"


def _plain(value: Any) -> str:
    return value.decode("ascii", "backslashreplace") if isinstance(value, bytes) else str(value)
