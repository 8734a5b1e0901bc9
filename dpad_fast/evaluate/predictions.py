"""Predictions of any project by id: JSONL of completions or masks, the released evaluation's output, PNG folders, NPZ.

A JSONL file is indexed and its lines are read again when their sample comes up, so that 100,000 long completions need
no memory; standard input and the other kinds are held.
"""

from __future__ import annotations

import io
import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from dpad_fast.evaluate import mask_files
from dpad_fast.evaluate.ruler import Item, Line
from dpad_fast.model_size import whole_size
from dpad_fast.terminal import read_stdin
from dpad_fast.types import Size

_AT_ONCE = 32  # samples of a ReasonSeg folder that are looked up together


class Predictions:
    """The predictions of one source, by the id of the sample that they answer.

    Args:
        source: a JSONL file in UTF-8, one {"id", "completion"} or {"id", "mask"} a line ("-": standard input); a JSON
            list as the released evaluation writes it; a folder of ID.png; an NPZ file with an array per id.

    Raises:
        ValueError: a line is not as it should be, or there is none; names file and line.
        OSError: the file cannot be read.
    """

    def __init__(self, source: str) -> None:
        self.name = "standard input" if source == "-" else source
        self.folder = "." if source == "-" else str(Path(source).parent)
        self.archive: str | None = None
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
        self._file = io.BytesIO(read_stdin()) if source == "-" else Path(source).open("rb")  # noqa: SIM115
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
            found.append(_line(f"{self.name}:{number}", self._file.readline())[1])
        return tuple(found)

    def _hold(self, name: str, line: Line) -> None:
        self._places.setdefault(name, array("q")).append(len(self._held_lines))
        self._held_lines.append(line)
        self.count += 1

    def _index(self, file: IO[bytes]) -> None:
        offset = 0
        # "\n" alone ends a line: JSON strings may hold other separators, such as U+2028.
        for number, raw in enumerate(file, 1):
            if raw.strip() and raw.strip() != b"\xef\xbb\xbf":
                name, _ = _line(f"{self.name}:{number}", raw)
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


def _line(place: str, raw: bytes) -> tuple[str, Line]:
    values = _loaded(place, raw)
    if isinstance(values, dict) and isinstance(values.get("id"), str):
        if isinstance(values.get("completion"), str):
            return values["id"], Line(place, text=values["completion"], model_size=_size(place, values))
        if values.get("mask") is not None and "completion" not in values:
            return values["id"], Line(place, mask=values["mask"])
    raise ValueError(
        f'{place} must be {{"id": text, "completion": text}} or {{"id": text, "mask": run lengths or path}}'
    )


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
    predictions: Predictions, data: str, form: str | None, *, zero_missing: bool, skip_unknown: bool, met: Coverage
) -> Iterator[Item]:
    """Samples with their predictions, in the order of the data; pictures and masks of other samples are not read.

    Args:
        predictions: by id.
        data: a folder or file of any form.
        form: see `dpad_fast.data.forms.load`; None is found out.
        zero_missing: yield samples without a prediction, too.
        skip_unknown: ids that the data does not hold are left out, not refused.
        met: filled on the way.

    Yields:
        Items.

    Raises:
        ValueError: the data is not as it should be, an id is unknown, or two samples have one id.
    """
    from dpad_fast.data import forms

    kind = forms.detect(data) if form is None else form
    if kind == "reasonseg":
        yield from _of_reasonseg(predictions, data, zero_missing, skip_unknown, met)
        return
    seen: set[str] = set()
    for sample in forms.load(data, kind, on_error=met.broken.append):
        if sample.id in seen:
            raise ValueError(f"{data} has two samples of the id {sample.id!r:.80}")
        seen.add(sample.id)
        lines = predictions.lines(sample.id)
        met.answered += bool(lines)
        met.missing += not lines
        met.sized |= any(line.model_size is not None for line in lines)
        if lines or zero_missing:
            yield Item(sample, lines)
    _settle_unknown(predictions, data, seen, skip_unknown, met)


def _of_reasonseg(
    predictions: Predictions, data: str, zero_missing: bool, skip_unknown: bool, met: Coverage
) -> Iterator[Item]:
    from dpad_fast.data import reasonseg

    known, met.broken[:] = reasonseg.list_ids(data)
    if met.broken and zero_missing:
        raise ValueError(met.broken[0])
    names = set(known)
    strangers = [name for name in predictions.ids if name not in names]
    reasonseg.find(data, strangers)  # names what is wrong with the file of one that cannot be read
    _settle_unknown(predictions, data, names, skip_unknown, met)
    met.answered = sum(name in predictions for name in known)
    met.missing = len(known) - met.answered
    asked = [name for name in known if zero_missing or name in predictions]
    for first in range(0, len(asked), _AT_ONCE):
        for name, sample in reasonseg.find(data, asked[first : first + _AT_ONCE], points=False).items():
            lines = predictions.lines(name)
            met.sized |= any(line.model_size is not None for line in lines)
            yield Item(sample, lines, _is_later(name, names, data))


def _is_later(name: str, names: set[str], data: str) -> bool:
    """Whether an id is that of a picture's second query or one after it: NAME-1, where no file is called so."""
    stem, dash, number = name.rpartition("-")
    numbered = bool(dash) and number.isdecimal() and number != "0" and f"{stem}-0" in names
    return numbered and not (Path(data) / f"{name}.json").is_file()


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
