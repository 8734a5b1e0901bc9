"""Many predictions in flat memory: chunks over processes, kept in a side file, so that a kill costs one chunk.

The side file's first line holds the settings; each further line holds one chunk's results. Chunks are written in order
whatever the number of processes, so the result has the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, TextIO

from dpad_fast import lock
from dpad_fast.evaluate.records import Item
from dpad_fast.workers import worker_pool

_MARK = "finished chunks of"
CHUNK = 32  # predictions; masks of so many are in memory at once, per process
Results = list[Any]
Work = Callable[[list[Item]], Results]
_work: Work | None = None
_failed: Exception | None = None


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
            chunk.append(replace(item, lines=lines[: size - held]))
            lines = lines[size - held :]
            yield chunk
            chunk, held = [], 0
        if lines or not item.lines:
            chunk.append(replace(item, lines=lines))
            held += max(1, len(lines))
        if held >= size:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk


def measure_into(
    side: IO[str], chunks: Iterator[list[Item]], make: Callable[[], Work], workers: int = 1, written: int = 0
) -> None:
    """Work on chunks and write a line each.

    Args:
        side: the side file, open at its end.
        chunks: all of them, from the first.
        make: makes what turns a chunk into its results, once in each process; can be pickled.
        workers: processes; 1 works in this one.
        written: chunks that the file holds already.

    Raises:
        ValueError: as the work does.
        OSError: a process was ended from outside.
    """
    rest = islice(chunks, written, None)
    if workers == 1:
        work: Work | None = None
        for chunk in rest:
            work = make() if work is None else work
            _write(side, work(chunk))
        return
    with worker_pool(workers, _start, make) as pool:
        waiting: deque[Future[Results]] = deque()
        for chunk in rest:
            with _no_interrupt():  # which a process that starts here inherits: Ctrl-C is this one's to handle
                waiting.append(pool.submit(_run, chunk))
            if len(waiting) > 2 * workers:
                _write(side, waiting.popleft().result())
        while waiting:
            _write(side, waiting.popleft().result())


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start(make: Callable[[], Work]) -> None:
    global _work, _failed
    import torch

    torch.set_num_threads(1)
    try:
        _work = make()
    except Exception as error:  # raised where the parent hears of it; here it would be told as a broken pool
        _failed = error


def _run(chunk: list[Item]) -> Results:
    if _failed is not None:
        raise _failed
    assert _work is not None
    return _work(chunk)


def _write(side: IO[str], results: Results) -> None:
    _append(side, json.dumps(results, allow_nan=False) + "\n")


def _append(side: IO[str], text: str) -> None:
    """Past the file's buffer, which after a full disk would complain again, without a name, when it is closed."""
    left = memoryview(text.encode("utf-8"))
    try:
        while left:
            left = left[os.write(side.fileno(), left) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, side.name) from error


def open_side(path: Path, asked: dict[str, Any]) -> tuple[TextIO, int]:
    """Open a side file for this process alone: one with the same settings is continued, any other is begun anew.

    Args:
        path: the file.
        asked: what the result depends on, as JSON takes it.

    Returns:
        The open file at its end, and the number of whole chunks in it.

    Raises:
        ValueError: another process works on it.
    """
    head = json.dumps({_MARK: asked}, sort_keys=True) + "\n"
    raw = open(path, "rb+", opener=lambda name, flags: os.open(name, flags | os.O_CREAT, 0o666))  # noqa: SIM115
    file = io.TextIOWrapper(raw, encoding="utf-8", newline="\n")
    try:
        lock.hold(raw.fileno(), path)
        start = f'{{"{_MARK}": '.encode()
        first = raw.read(len(start))
        if not start.startswith(first):
            raise ValueError(f"{path} is there and no file of finished chunks: move it away, or write to another file")
        raw.seek(0)
        written, end = -1, 0
        for line in raw:
            if not line.endswith(b"\n") or (written < 0 and line != head.encode()):
                break
            written, end = written + 1, end + len(line)
        raw.seek(end)
        raw.truncate()
        if written < 0:
            _append(file, head)
    except BaseException:
        file.close()
        raise
    return file, max(written, 0)


def results_of(side: IO[str]) -> Iterator[Any]:
    """The results in a side file, one chunk in memory at a time; what is wrong with samples is `broken_of`'s.

    Args:
        side: the open file.

    Yields:
        Results, in order.
    """
    for line in _lines(side):
        for result in json.loads(line):
            if not _is_broken(result):
                yield result


def broken_of(side: IO[str]) -> dict[str, str]:
    """By id, what is wrong with the samples that could not be read."""
    found: dict[str, str] = {}
    for line in _lines(side):
        if '"broken": ' in line:  # a model's words have a backslash before each quotation mark
            found |= {result["id"]: result["broken"] for result in json.loads(line) if _is_broken(result)}
    return found


def offsets_of(side: TextIO) -> Iterator[tuple[int, Results]]:
    """Every chunk's results, with what `results_at` finds them by.

    Args:
        side: the open file.
    """
    side.flush()
    file = side.buffer
    file.seek(0)
    offset = len(file.readline())
    while line := file.readline():
        yield offset, json.loads(line)
        offset += len(line)
        file.seek(offset)  # whoever took the results may have read elsewhere


def results_at(side: TextIO, offset: int) -> Results:
    """The results of the chunk at an offset."""
    side.buffer.seek(offset)
    found: Results = json.loads(side.buffer.readline())
    return found


def _is_broken(result: Any) -> bool:
    return isinstance(result, dict) and "broken" in result


def _lines(side: IO[str]) -> Iterator[str]:
    side.flush()
    side.seek(0)
    side.readline()
    yield from iter(side.readline, "")
