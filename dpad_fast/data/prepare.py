"""A training set from any form of data: a folder of Parquet files that `datasets`, TRL and verl read as they are.

The work is cut into shards of a fixed number of source rows. Each is written whole under a hidden name, and all are
named when the last one stands, so that a run that was killed goes on where it stopped and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpad_fast import files
from dpad_fast.data import forms
from dpad_fast.data.resize import Sizing
from dpad_fast.data.shards import BadRow, Notes, PackedSample, pack, read_notes, write_shard
from dpad_fast.lock import only_one
from dpad_fast.types import Sample
from dpad_fast.workers import worker_pool

SHARD_ROWS = 256
MOST_WORKERS = 256
_NOTE, _BAD = "dataset.json", "bad-rows.jsonl"
_FORMAT = 1  # of the folder; another number is another data set


@dataclass(frozen=True)
class Prepared:
    """The result of `prepare`.

    Attributes:
        folder: where.
        rows: how many rows the data set has.
        shards: in how many files.
        kept: how many of these were there already.
        bad: the source's rows that were left out, in its order; `bad-rows.jsonl` lists the same.
    """

    folder: Path
    rows: int
    shards: int
    kept: int
    bad: tuple[BadRow, ...]


def prepare(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    form: str | None = None,
    size: str | None = None,
    columns: Any = None,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    limit: int = 0,
    workers: int = 1,
    shard_rows: int = SHARD_ROWS,
    progress: Callable[[int], None] | None = None,
) -> Prepared:
    """Builds a training set: pictures resized, boxes, points and masks with them, what is missing derived.

    Args:
        data: what `dpad_fast.data.load` reads.
        out: the folder to make. One that holds the same data set, whole or begun, is finished.
        form: of `data`; None: found out.
        size: "WIDTHxHEIGHT" (the ratio of the sides is not kept), "max-side=N", or "none" or None: as they are.
        columns: see `dpad_fast.data.load`.
        split: see `dpad_fast.data.load`.
        images: see `dpad_fast.data.load`.
        limit: the first so many samples; 0: all.
        workers: processes that make shards; 1: this one.
        shard_rows: source rows of a file.
        progress: called with the number of samples that are done, now and then.

    Returns:
        What was made. Rows that are not as they should be are left out and listed.

    Raises:
        ValueError: no row is as it should be; an argument is not as above; `out` holds another data set (names the
            setting that differs), or another run is at work in it.
        OSError: `out` cannot be written.
    """
    for name, value, least, most in (
        ("workers", workers, 1, MOST_WORKERS), ("shard_rows", shard_rows, 1, 1 << 20), ("limit", limit, 0, 1 << 62),
    ):  # fmt: skip
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{name} must be a whole number of {least} to {most}, got {value!r:.80}")
    sizing, folder = Sizing.parse(size), Path(out)
    form = forms.detect(data) if form is None else form
    settings = {
        "form": form,
        "source": os.fspath(data),
        "size": str(sizing),
        "columns": None if columns is None else repr(columns),
        "split": split,
        "images": None if images is None else os.fspath(images),
        "limit": limit,
        "shard_rows": shard_rows,
        "files": _fingerprint(Path(data), folder),
    }
    files.prepare(folder / _NOTE)
    with only_one(folder, mark=False):
        done = _begin(folder, settings)
        if done is not None:
            return done
        stream = _Stream(data, form, columns=columns, split=split, images=images, limit=limit)
        return _finish(stream, folder, settings, sizing, workers, progress or (lambda count: None))


def _finish(
    stream: _Stream,
    folder: Path,
    settings: dict[str, Any],
    sizing: Sizing,
    workers: int,
    progress: Callable[[int], None],
) -> Prepared:
    """Makes what is missing of a set that is begun."""
    notes, kept = _make(stream, folder, sizing, workers, settings["shard_rows"], progress)
    bad = tuple(sorted([*stream.bad, *(row for note in notes for row in note.bad)]))
    rows = sum(note.rows for note in notes)
    _write_bad(folder, bad)
    if not rows:
        for empty in folder.glob(".shard-*"):  # they would bind the folder to these settings
            empty.unlink()
        first = f"; the first: {bad[0].reason}" if bad else ""
        raise ValueError(f"{settings['source']} gives no row: {len(bad)} are bad{first}")
    _name_shards(folder, len(notes))
    counts = {"rows": rows, "bad": len(bad), "shards": len(notes)}
    files.write_json(folder / _NOTE, {"format": _FORMAT, "complete": True, **_note_fields(settings), "counts": counts})
    return Prepared(folder, rows, len(notes), kept, bad)


def _note_fields(settings: dict[str, Any]) -> dict[str, Any]:
    return {"form": settings["form"], "size": settings["size"], "source": settings["source"], "settings": settings}


def _fingerprint(data: Path, out: Path) -> str:
    """Names, sizes and times of the source's files: another source must not be joined to shards that stand.

    What lies in `out` does not count, for it may be inside.
    """
    digest = hashlib.sha256()
    if data.is_file():
        state = data.stat()
        digest.update(f"{state.st_size} {state.st_mtime_ns}".encode())
        return digest.hexdigest()[:16]
    own = os.path.realpath(out)
    for folder, inner, names in os.walk(data):
        inner[:] = sorted(name for name in inner if os.path.realpath(os.path.join(folder, name)) != own)
        for name in sorted(names):
            path = os.path.join(folder, name)
            state = os.stat(path) if os.path.exists(path) else os.lstat(path)  # a link that leads nowhere is one too
            line = f"{os.path.relpath(folder, data)}/{name} {state.st_size} {state.st_mtime_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def _begin(folder: Path, settings: dict[str, Any]) -> Prepared | None:
    """Writes the note of a new set; returns a set that is already complete, and refuses another data set's folder."""
    place = folder / _NOTE
    if not place.is_file():
        if any(folder.glob("*.parquet")):
            raise ValueError(f"{folder} holds Parquet files but no {_NOTE}: it was not made here; name another folder")
        files.write_json(place, {"format": _FORMAT, "complete": False, **_note_fields(settings)})
        return None
    try:
        held = json.loads(place.read_bytes())
        before = held["settings"]
        same = {name: before[name] == value for name, value in settings.items()}
        version, complete = held["format"], held["complete"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{place} is not what `data prepare` writes; name another folder") from None
    if not complete and not any(itertools.chain(folder.glob(".shard-*"), folder.glob("*.parquet"))):
        # A run that ended before its first shard, as with a mistyped option, holds up nobody.
        files.write_json(place, {"format": _FORMAT, "complete": False, **_note_fields(settings)})
        return None
    for name, value in [*settings.items()] if version == _FORMAT else [("format", _FORMAT)]:
        if name == "format" or not same[name]:
            was, now = (version, value) if name == "format" else (before[name], value)
            what = "the files of the source have changed" if name == "files" else f"{name} was {was!r} and is {now!r}"
            raise ValueError(f"{folder} holds another data set: {what}; name another folder or delete this one")
    return _finished_set(folder, held) if complete else None


def _finished_set(folder: Path, held: dict[str, Any]) -> Prepared | None:
    """The set of the note, or None where one of its files is missing."""
    try:
        shards = int(held["counts"]["shards"])
        notes = [read_notes(folder / _name(i, shards)) for i in range(shards)]
        lines = (folder / _BAD).read_text(encoding="utf-8").split("\n")
        bad = tuple(BadRow(row["row"], row["reason"]) for row in map(json.loads, filter(None, lines)))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if None in notes:
        return None
    return Prepared(folder, sum(note.rows for note in notes if note), shards, shards, bad)


class _Stream:
    """The source's samples, numbered with its bad rows, which are kept aside."""

    def __init__(self, data: Any, form: str, **settings: Any) -> None:
        self.bad: list[BadRow] = []
        self._next = 0
        self._samples: Iterator[Sample] = forms.load(data, form, **settings, on_error=self._fail)

    def _fail(self, message: str) -> None:
        self.bad.append(BadRow(self._next, message))
        self._next += 1

    def shards(self, rows: int) -> Iterator[list[tuple[int, Sample]]]:
        """Lists of so many (number, sample); the last may be shorter."""
        found: list[tuple[int, Sample]] = []
        with warnings.catch_warnings():
            # Such a row has its line among the bad ones.
            warnings.filterwarnings("ignore", message=".*no pixel is target")
            for sample in self._samples:
                found.append((self._next, sample))
                self._next += 1
                if len(found) == rows:
                    yield found
                    found = []
        if found:
            yield found


def _make(
    stream: _Stream, folder: Path, sizing: Sizing, workers: int, shard_rows: int, progress: Callable[[int], None]
) -> tuple[list[Notes], int]:
    """Writes every shard that does not stand yet; returns all notes, and how many shards stood."""
    notes: dict[int, Notes] = {}
    running: dict[Future[Notes], tuple[int, int]] = {}
    kept = done = 0
    with _shard_makers(workers) as begin:
        for index, samples in enumerate(stream.shards(shard_rows)):
            found = _existing(folder, index)
            if found is not None:
                notes[index], kept, done = found, kept + 1, done + len(samples)
            else:
                packed = [pack(row, sample) for row, sample in samples]
                running[begin(folder / _hidden(index), packed, sizing)] = index, len(samples)
            done += _collect(running, notes, workers)
            progress(done)
        while running:
            done += _collect(running, notes, 0)
            progress(done)
    return [notes[index] for index in sorted(notes)], kept


def _collect(running: dict[Future[Notes], tuple[int, int]], notes: dict[int, Notes], most: int) -> int:
    """Takes finished shards, and waits while more than `most` are unfinished; returns the number of samples taken."""
    ended = wait(running, timeout=0).done if len(running) <= most else wait(running, return_when=FIRST_COMPLETED).done
    count = 0
    for future in ended:
        index, samples = running.pop(future)
        notes[index] = future.result()
        count += samples
    return count


@contextlib.contextmanager
def _shard_makers(workers: int) -> Iterator[Callable[[Path, list[PackedSample], Sizing], Future[Notes]]]:
    """Yields the function that begins a shard in one of `workers` processes; with 1 it makes the shard here."""
    if workers == 1:
        yield _make_here
        return
    with worker_pool(workers) as pool:

        def begin(path: Path, packed: list[PackedSample], sizing: Sizing) -> Future[Notes]:
            return pool.submit(write_shard, path, packed, sizing)

        yield begin


def _make_here(path: Path, packed: list[PackedSample], sizing: Sizing) -> Future[Notes]:
    future: Future[Notes] = Future()
    future.set_result(write_shard(path, packed, sizing))
    return future


def _hidden(index: int) -> str:
    return f".shard-{index:05d}"  # no ending by which a reader would take it for a part of a whole set


def _name(index: int, shards: int) -> str:
    return f"train-{index:05d}-of-{shards:05d}.parquet"


def _existing(folder: Path, index: int) -> Notes | None:
    """The notes of a shard that stands, under its hidden name or (where a run ended between names) its own."""
    for place in (folder / _hidden(index), *sorted(folder.glob(f"train-{index:05d}-of-*.parquet"))):
        notes = read_notes(place)
        if notes is not None:
            return notes
    return None


def _name_shards(folder: Path, shards: int) -> None:
    for index in range(shards):
        if (folder / _hidden(index)).is_file():
            os.replace(folder / _hidden(index), folder / _name(index, shards))
    for left in folder.glob("..shard-*.partial"):  # of runs that were killed while they wrote
        left.unlink(missing_ok=True)


def _write_bad(folder: Path, bad: tuple[BadRow, ...]) -> None:
    lines = [json.dumps({"row": row.row, "reason": row.reason}) + "\n" for row in bad]
    files.write_text(folder / _BAD, "".join(lines))
