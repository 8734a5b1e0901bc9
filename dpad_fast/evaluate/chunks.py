"""Many predictions in flat memory: chunks over processes, kept in a side file, so that a kill costs one chunk.

The side file's first line holds the settings; each further line holds one chunk's records. Chunks are written in order
whatever the number of processes, so the result has the same bytes.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import IO, Any

from dpad_fast.evaluate.ruler import Item, Ruler, Settings
from dpad_fast.workers import worker_pool

CHUNK = 32  # predictions; masks of so many are in memory at once, per process
_ruler: Ruler | None = None


def chunked(items: Iterable[Item], size: int = CHUNK) -> Iterator[list[Item]]:
    """Items in chunks of `size` predictions; an item of more is cut, so that no sample makes a chunk large.

    Args:
        items: samples with their predictions.
        size: predictions to a chunk.

    Yields:
        Lists of items.
    """
    chunk: list[Item] = []
    held = 0
    for item in items:
        lines = item.lines
        while len(lines) + held > size:
            chunk.append(Item(item.sample, lines[: size - held], item.later))
            lines = lines[size - held :]
            yield chunk
            chunk, held = [], 0
        if lines or not item.lines:
            chunk.append(Item(item.sample, lines, item.later))
            held += max(1, len(lines))
        if held >= size:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def measure_into(
    side: IO[str], chunks: Iterator[list[Item]], settings: Settings, workers: int = 1, written: int = 0
) -> None:
    """Measure chunks and write a line each.

    Args:
        side: the side file, open at its end.
        chunks: all of them, from the first.
        settings: of the measurement.
        workers: processes; 1 measures in this one.
        written: chunks that the file holds already.

    Raises:
        ValueError: as `Ruler.measure`.
        OSError: a process was ended from outside.
    """
    rest = islice(chunks, written, None)
    if workers == 1:
        ruler = Ruler(settings)
        for chunk in rest:
            _write(side, ruler.measure(chunk))
        return
    with worker_pool(workers, _start, settings) as pool:
        waiting: deque[Future[list[dict[str, Any]]]] = deque()
        for chunk in rest:
            waiting.append(pool.submit(_measure, chunk))
            if len(waiting) > 2 * workers:
                _write(side, waiting.popleft().result())
        while waiting:
            _write(side, waiting.popleft().result())


def _start(settings: Settings) -> None:
    global _ruler
    import torch

    torch.set_num_threads(1)
    _ruler = Ruler(settings)


def _measure(chunk: list[Item]) -> list[dict[str, Any]]:
    assert _ruler is not None
    return _ruler.measure(chunk)


def _write(side: IO[str], records: list[dict[str, Any]]) -> None:
    side.write(json.dumps(records, allow_nan=False) + "\n")
    side.flush()


def open_side(path: Path, asked: dict[str, Any]) -> tuple[IO[str], int]:
    """Open a side file: one with the same settings is continued, any other is begun anew.

    Args:
        path: the file.
        asked: what the result depends on, as JSON takes it.

    Returns:
        The open file at its end, and the number of whole chunks in it.
    """
    head = json.dumps(asked, sort_keys=True) + "\n"
    written, end = -1, 0
    if path.is_file():
        with path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n") or (written < 0 and line != head.encode()):
                    break
                written, end = written + 1, end + len(line)
    if written < 0:
        file_ = path.open("w+", encoding="utf-8", newline="\n")
        file_.write(head)
        file_.flush()
        return file_, 0
    os.truncate(path, end)
    file_ = path.open("r+", encoding="utf-8", newline="\n")
    file_.seek(0, os.SEEK_END)
    return file_, written


def records_of(side: IO[str]) -> Iterator[dict[str, Any]]:
    """The records of a side file, one chunk in memory at a time.

    Args:
        side: the open file.

    Yields:
        Records, in order.
    """
    side.flush()
    side.seek(0)
    side.readline()
    for line in iter(side.readline, ""):
        yield from json.loads(line)
