"""Predictions of any project by id: JSONL or Parquet, the released evaluation's output, PNG folders, NPZ.

A JSONL file is indexed and its lines are read again when their sample comes up, so that 100,000 long completions need
no memory. A Parquet file, whose rows cannot be reached one by one, is first written out as such lines, batch by batch,
into a temporary file. Standard input and the other kinds are held.
"""

from __future__ import annotations

import io
import json
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from dpad_fast.data.deferred import Deferred
from dpad_fast.data.forms import Source
from dpad_fast.evaluate import mask_files
from dpad_fast.evaluate.parquet_rows import rows_of, schema_of, write_lines
from dpad_fast.evaluate.records import Item, Line
from dpad_fast.model_size import whole_size
from dpad_fast.terminal import read_stdin
from dpad_fast.types import Size

_COLUMNS = ("id", "completion", "mask", "model_size")


class Predictions:
    """The predictions of one source, by the id of the sample that they answer.

    Args:
        source: a JSONL file in UTF-8, one {"id", "completion"} or {"id", "mask"} a line ("-": standard input), or a
            Parquet file of such columns; a JSON list as the released evaluation writes it; a folder of ID.png; an NPZ
            file with an array per id. Ids are text or whole numbers.

    Raises:
        ValueError: a line is not as it should be, or there is none; names file and line.
        OSError: the file cannot be read.
    """

    def __init__(self, source: str) -> None:
        self.name = "standard input" if source == "-" else source
        self.folder = "." if source == "-" else str(Path(source).parent)
        self.archive: str | None = None
        self.first_mask: str | None = None  # where the first line stands that is a mask, of a file of lines
        self.count = 0
        self._places: dict[str, array[int]] = {}
        self._held_lines: list[Line] = []
        self._file: IO[bytes] | None = None
        listed = None if source == "-" else mask_files.listed(source)
        if listed is not None:
            self.archive = source if source.endswith(".npz") else None
            for name, mask in listed:
                self._hold(name, Line(f"{source}: {name}", mask=mask))
            return
        self._place = "{}: row {}" if source.endswith(".parquet") else "{}:{}"
        self._parquet = source if source.endswith(".parquet") else None
        self._file = _opened(source)
        if source.endswith(".json") and self._file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
            self._file.seek(0)
            raw = self._file.read()
            self._file.close()
            self._file = None
            self._hold_released(raw)
            return
        self._file.seek(0)
        try:
            self._index(self._file)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    @property
    def held(self) -> bytes | None:
        """Standard input or a pipe, as it was read; None of a file."""
        return self._file.getvalue() if isinstance(self._file, io.BytesIO) else None

    @property
    def ids(self) -> Iterable[str]:
        """Every id, in the order of its first prediction."""
        return self._places

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def first_place(self, name: str) -> str:
        """Where the first prediction of an id stands, for messages."""
        return self.lines(name)[0].place

    def lines(self, name: str) -> tuple[Line, ...]:
        """The predictions of a sample, in their order; none where there is none."""
        places = self._places.get(name)
        if places is None:
            return ()
        if self._file is None:
            return tuple(self._held_lines[place] for place in places)
        found = []
        for offset, number in zip(places[::2], places[1::2], strict=True):
            self._file.seek(offset)
            found.append(_line(self._place.format(self.name, number), self._file.readline(), number)[1])
        return tuple(found)

    def place_of(self, number: int) -> str:
        """Where a line or row stands, for messages."""
        return self._place.format(self.name, number)

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every line or row with its number and all its fields, in order, one at a time.

        Raises:
            ValueError: the source is no JSONL and no Parquet.
        """
        if self._file is None:
            raise ValueError(f"{self.name} has no lines: JSONL or Parquet is wanted")
        if self._parquet is not None:
            yield from enumerate(rows_of(self._parquet))
            return
        self._file.seek(0)
        for number, raw in enumerate(self._file, 1):
            if raw.strip() and raw.strip() != b"\xef\xbb\xbf":
                yield number, _loaded(self.place_of(number), raw)

    def schema(self) -> Any:
        """The columns of a Parquet file as Arrow has them; None for JSONL."""
        return None if self._parquet is None else schema_of(self._parquet)

    def _hold(self, name: str, line: Line) -> None:
        self._places.setdefault(name, array("q")).append(len(self._held_lines))
        self._held_lines.append(line)
        self.count += 1

    def _index(self, file: IO[bytes]) -> None:
        offset = 0
        first = 0 if self._place != "{}:{}" else 1  # rows count from 0, lines from 1
        if file.read(2) == b"\x1f\x8b":
            raise ValueError(f"{self.name} is compressed by gzip: unpack it first")
        file.seek(0)
        # "\n" alone ends a line: JSON strings may hold other separators, such as U+2028.
        for number, raw in enumerate(file, first):
            if raw.strip() and raw.strip() != b"\xef\xbb\xbf":
                name, line = _line(self._place.format(self.name, number), raw, number)
                if line.text is None and self.first_mask is None:
                    self.first_mask = line.place
                self._places.setdefault(name, array("q")).extend((offset, number))
                self.count += 1
            offset += len(raw)
        if not self._places:
            raise ValueError(f"{self.name} holds no line")

    def _hold_released(self, raw: bytes) -> None:
        rows = _loaded(self.name, raw)
        rows = rows if isinstance(rows, list) else [rows]
        for i, row in enumerate(rows):
            place = f"{self.name}[{i}]"
            if not isinstance(row, dict) or not isinstance(row.get("output_txt"), str) or "image_id" not in row:
                raise ValueError(f"{place} must have image_id and output_txt, as the released evaluation writes them")
            self._hold(str(row["image_id"]), Line(place, text=row["output_txt"]))
        if not rows:
            raise ValueError(f"{self.name} holds no prediction")


def _loaded(place: str, raw: bytes) -> Any:
    try:
        return json.loads(raw.decode("utf-8-sig"))  # some editors put a byte order mark in front
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not UTF-8 (byte 0x{raw[error.start]:02x})") from None
    except RecursionError:
        raise ValueError(f"{place} is not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{place} is not valid JSON: {error}") from None


def _opened(source: str) -> IO[bytes]:
    """The lines of a source, to be read in any order."""
    if source == "-":
        return io.BytesIO(read_stdin())
    if not source.endswith(".parquet"):
        file = Path(source).open("rb")  # noqa: SIM115
        if file.seekable():
            return file
        with file:  # a pipe, as a shell's <(...) is
            return io.BytesIO(file.read())
    lines: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        write_lines(source, _COLUMNS, lines)
    except BaseException:
        lines.close()
        raise
    lines.seek(0)
    return lines


def _line(place: str, raw: bytes, number: int) -> tuple[str, Line]:
    values = _loaded(place, raw)
    name = values.get("id") if isinstance(values, dict) else None
    if type(name) is int:  # data has ids as text, too, whatever they were written as
        name = str(name)
    if isinstance(name, str):
        if isinstance(values.get("completion"), str):
            size = _size(place, values)
            return name, Line(place, text=values["completion"], model_size=size, number=number)
        if values.get("mask") is not None and values.get("completion") is None:
            return name, Line(place, mask=values["mask"], number=number)
    raise ValueError(
        f'{place} must be {{"id": text, "completion": text}} or {{"id": text, "mask": run lengths or path}}'
        + _why_not(values)
    )


def _why_not(values: Any) -> str:
    """What a line has instead."""
    if not isinstance(values, dict):
        return f", got {values!r:.60}"
    for key, wanted in (("id", (str, int)), ("completion", (str, type(None)))):
        if isinstance(values.get(key), bool) or not isinstance(values.get(key), wanted):
            return f", got {values[key]!r:.60} as {key}" if key in values else f"; it has no {key}"
    return "; it has neither"


def _size(place: str, values: dict[str, Any]) -> Size | None:
    given = values.get("model_size")
    if given is None:
        return None
    try:
        if not isinstance(given, list):
            raise ValueError("no list")
        return whole_size(given, "model_size")
    except ValueError:
        raise ValueError(f"{place}: model_size must be [width, height] in whole pixels, got {given!r:.80}") from None


@dataclass
class Coverage:
    """Counts of ids with and without a partner in predictions and data, filled while items are made.

    Attributes:
        answered: samples with a prediction.
        missing: samples without one.
        unknown: ids of predictions that the data does not hold.
        broken: what is wrong with files of the data that could not be read.
        sized: whether a prediction says itself what its coordinates refer to.
    """

    answered: int = 0
    missing: int = 0
    unknown: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    sized: bool = False


def items(
    predictions: Predictions,
    source: Source,
    *,
    zero_missing: bool,
    skip_unknown: bool,
    met: Coverage,
    probe: bool = False,
    points: bool = False,
) -> Iterator[Item]:
    """Samples with their predictions, in the order of the data; none is read here, and those not asked for are never.

    Args:
        predictions: by id.
        source: the data.
        zero_missing: yield samples without a prediction, too.
        skip_unknown: ids that the data does not hold are left out, not refused; so are samples that cannot be read.
        met: filled on the way.
        probe: samples without a prediction are read, to be told from those that cannot be.
        points: targets need their two points.

    Yields:
        Items.

    Raises:
        ValueError: the data is not as it should be, an id is unknown, or two samples have one id.
    """
    from dpad_fast.data import forms

    folder = None
    kind = source.form or ("rows" if source.columns is not None else forms.detect(source.path))
    source = replace(source, form=kind)
    if kind == "reasonseg":  # whose ids can be listed at once: a wrong one is told before hours of work
        folder = forms.reasonseg_folder(source.path, source.split)
        names = _known_ids(predictions, folder, source.limit, zero_missing, skip_unknown, met)
    seen: set[str] = set()
    for one in source.defer(met.broken.append if folder is None else lambda _: None, points):
        if one.id in seen:
            if folder is not None:  # NAME-0 is a file of its own and the first query of NAME: the file counts
                continue
            raise ValueError(f"{source.path} has two samples of the id {one.id!r:.80}")
        seen.add(one.id)
        lines = predictions.lines(one.id)
        if not lines and probe and (why := _unreadable(one)) is not None:
            met.broken.append(why)
            continue
        met.answered += bool(lines)
        met.missing += not lines
        met.sized |= any(line.model_size is not None for line in lines)
        if lines or zero_missing:
            yield Item(one, lines, folder is not None and _is_later(one.id, names, folder), spare=skip_unknown)
    if folder is None:
        _settle_unknown(predictions, source.path, seen, skip_unknown, met)


def _known_ids(
    predictions: Predictions, folder: Path, limit: int, zero_missing: bool, skip_unknown: bool, met: Coverage
) -> set[str]:
    """The ids of a ReasonSeg folder, held against those of the predictions."""
    from dpad_fast.data import reasonseg

    known, met.broken[:] = reasonseg.list_ids(folder)
    if met.broken and zero_missing:
        raise ValueError(met.broken[0])
    names = set(known[:limit] if limit else known)
    strangers = [name for name in predictions.ids if name not in names]
    reasonseg.find(folder, set(strangers) - set(known))  # names what is wrong with the file of one that cannot be read
    _settle_unknown(predictions, str(folder), names, skip_unknown, met)
    return names


def _unreadable(one: Deferred) -> str | None:
    """Why a sample cannot be read; None where it can."""
    try:
        one.read()
    except ValueError as error:
        return str(error)
    return None


def _is_later(name: str, names: set[str], folder: Path) -> bool:
    """Whether an id is that of a picture's second query or one after it: NAME-1, where no file is called so."""
    stem, dash, number = name.rpartition("-")
    numbered = bool(dash) and number.isdecimal() and number != "0" and f"{stem}-0" in names
    return numbered and not (folder / f"{name}.json").is_file()


def _settle_unknown(predictions: Predictions, data: str, known: set[str], skip: bool, met: Coverage) -> None:
    met.unknown[:] = [name for name in predictions.ids if name not in known]
    if met.unknown and not skip:
        some = ", ".join(sorted(known)[:8]) + (" ..." if len(known) > 8 else "")
        name = met.unknown[0]
        raise ValueError(
            f"{predictions.first_place(name)}: id {name!r:.80} is not in {data}, which holds {some or 'no id'}"
        )


def stored(source: str) -> list[tuple[int, int]] | None:
    """(intersection, union) pairs of a released output file that has no completions; None for anything else.

    Args:
        source: a JSON list of {"image_id", "intersection", "union"}.

    Returns:
        One pair per entry.

    Raises:
        ValueError: an entry's numbers are no areas.
    """
    path = Path(source)
    if path.suffix != ".json" or not path.is_file():
        return None
    rows = _loaded(source, path.read_bytes())
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return None
    if any("output_txt" in row for row in rows) or not all("intersection" in row for row in rows):
        return None
    pairs = [(row["intersection"], row.get("union")) for row in rows]
    for i, (shared, union) in enumerate(pairs):
        if type(shared) is not int or type(union) is not int or not 0 <= shared <= union:
            raise ValueError(f"{source}[{i}] has intersection {shared!r:.40} and union {union!r:.40}")
    return pairs


def by_reason(counted: Counter[str]) -> str:
    """Reasons with their counts, the most frequent first."""
    return ", ".join(f"{name} {number}" for name, number in sorted(counted.items(), key=lambda x: (-x[1], x[0])))
