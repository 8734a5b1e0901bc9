"""What `train`, `demo` and `evaluate` leave behind, read into one shape: lists of records with a name each."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpad_fast.evaluate.measure import MISSING
from dpad_fast.evaluate.unfinished import read_unfinished
from dpad_fast.types import Size

Row = Mapping[str, Any]
KINDS = ("run", "demo", "evaluate")
_FIELDS: dict[str, dict[str, type]] = {
    "run": {"config": dict, "before": dict, "after": dict, "records": dict, "history": list, "versions": dict},
    "demo": {"title": str, "command": str, "preface": list, "settings": list, "versions": dict},
    "evaluate": {"records": list},
}
_SCENE = re.compile(r"shapes-[0-9]+-[0-9]+")


@dataclass(frozen=True)
class Series:
    """Records of one policy at one moment.

    Attributes:
        name: unique within a report.
        rows: records, as in docs/report.md; several of one id are a group.
        run: what the moments of one run have in common.
        moment: "before", "after" or "".
        config: the run's configuration, or None.
    """

    name: str
    rows: Sequence[Row]
    run: str
    moment: str = ""
    config: Mapping[str, Any] | None = None

    def groups(self) -> dict[str, list[Row]]:
        """The rows by id, in order."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row["id"], []).append(row)
        return found


@dataclass(frozen=True)
class Source:
    """One file.

    Attributes:
        name: unique within a report.
        kind: of `KINDS`.
        content: of the file.
        series: its records.
        histories: log lines by arm, one list per seed.
    """

    name: str
    kind: str
    content: Mapping[str, Any]
    series: Sequence[Series] = ()
    histories: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]] = field(default_factory=dict)


def read_file(path: Path) -> dict[str, Any]:
    """The content of a result.

    Args:
        path: a JSON file, or a folder with a result.json, or that of a run which has not ended yet.

    Returns:
        The content.

    Raises:
        ValueError: it is no JSON, or no mapping, or a folder without a run; names it.
        OSError: it cannot be read.
    """
    place = path / "result.json" if path.is_dir() else path
    if path.is_dir() and not place.exists():
        return read_unfinished(path)
    try:
        content = json.loads(place.read_bytes().decode("utf-8-sig"))
    except RecursionError:
        raise ValueError(f"{place} is not valid JSON: nested too deeply") from None
    except ValueError as error:  # bytes that are no UTF-8, too
        lines = "" if place.suffix != ".jsonl" else "; of completions `dpad-fast evaluate --json FILE` makes a result"
        raise ValueError(f"{place} is not valid JSON: {error}{lines}") from None
    if not isinstance(content, dict) or not ({"kind", "records"} & content.keys()):
        audit = isinstance(content, dict) and {"series", "notes"} <= content.keys()
        found = ": it is of dpad-fast audit; give what was audited" if audit else ""
        raise ValueError(f"{place} does not hold a result of dpad-fast train, demo or evaluate{found}")
    return content


def read_sources(results: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Source]:
    """Results in one shape.

    Args:
        results: (path, content) of each; those of `evaluate` are called by the file, which need not be there.

    Returns:
        One source each; equal names get a number.

    Raises:
        ValueError: a result is of no known kind, or not whole; says what is wrong with it.
    """
    sources: list[Source] = []
    for name, content in results:
        kind = content.get("kind", "evaluate" if isinstance(content.get("records"), list) else None)
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"{name} is of kind {kind!r:.80}; known: {', '.join(KINDS)}")
        try:
            _check_fields(content, kind)
            own = _unique(_own_name(content, kind, Path(name)), [source.name for source in sources])
            sources.append(_READERS[kind](own, content))
        except (KeyError, IndexError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
            # The fields' own fields: whoever changed the file by hand is told what was met, not where in our code.
            what = f"no {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{name} of kind {kind!r} is not whole: {what}") from error
    return sources


def _check_fields(content: Mapping[str, Any], kind: str) -> None:
    for name, held in _FIELDS[kind].items():
        if not isinstance(content.get(name), held):
            found = "missing" if name not in content else f"{type(content[name]).__name__}, expected {held.__name__}"
            raise ValueError(f"{name} is {found}")


def _own_name(content: Mapping[str, Any], kind: str, path: Path) -> str:
    if kind == "evaluate":
        return path.parent.name if path.name == "result.json" else path.stem
    name = content["config"]["name"] if kind == "run" else content["title"]
    if not isinstance(name, str):
        raise ValueError(f"name: {name!r:.80} is no text")
    return name


def _unique(name: str, taken: Sequence[str]) -> str:
    found, number = name, 1
    while found in taken:
        number += 1
        found = f"{name} ({number})"
    return found


def _run(name: str, content: Mapping[str, Any]) -> Source:
    config = content["config"]
    series = []
    for moment in ("before", "after"):
        rows = _rows(content["records"].get(moment, []), f"records.{moment}", scenes=not _data_path(config))
        if rows:
            series.append(Series(f"{name}, {moment}", rows, name, moment, config))
    return Source(name, "run", content, series, {name: [_lines(content["history"])]})


def _demo(name: str, content: Mapping[str, Any]) -> Source:
    series = []
    several = len(content["settings"]) > 1
    for setting in content["settings"]:
        group = f"{setting.get('key') or setting['title']}: " if several else ""
        for place, (arm, rows) in enumerate(setting["samples"].items()):
            moment = "after" if place else "before"
            found = _rows(rows, f"samples.{arm}", scenes=True)
            if found:
                series.append(Series(f"{group}{arm}", found, f"{group}{name}", moment, setting["config"]))
        for runs in setting["histories"].values():
            list(map(_lines, runs))
    return Source(name, "demo", content, series)


def _evaluate(name: str, content: Mapping[str, Any]) -> Source:
    rows = _rows(content["records"], "records", scenes=False)
    return Source(name, "evaluate", content, [Series(name, rows, name)] if rows else [])


_READERS = {"run": _run, "demo": _demo, "evaluate": _evaluate}


def _data_path(config: Mapping[str, Any]) -> str:
    """What a run was measured on, or "" for scenes of the shapes world."""
    evaluation = config["evaluation"]
    if not isinstance(evaluation, dict):
        raise ValueError(f"config.evaluation is {type(evaluation).__name__}, expected dict")
    path = (evaluation.get("data") or {}).get("path") or ""
    return str(path)


def _lines(history: Any) -> list[Mapping[str, Any]]:
    if not isinstance(history, list) or not all(isinstance(line, dict) for line in history):
        raise ValueError("history: must be a list of mappings")
    return history


def _rows(rows: Any, where: str, scenes: bool) -> list[Row]:
    if not isinstance(rows, list):
        raise ValueError(f"{where} is {type(rows).__name__}, expected list")
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"{where}[{index}] is {type(row).__name__}, expected dict")
        name = row.get("id")
        if scenes and not (isinstance(name, str) and _SCENE.fullmatch(name)):
            raise ValueError(f"id: {name!r} is not of the form shapes-SEED-INDEX")
        if not isinstance(name, str):
            raise ValueError(f"{where}[{index}].id: {name!r:.80} is no text")
        if not isinstance(row.get("text", ""), str | None):
            raise ValueError(f"{where}[{index}].text: {row['text']!r:.80} is no text")
        for key in ("intersection", "union", "iou", "s1", "s2", "chain_tokens"):
            if row.get(key) is not None and number(row[key]) is None:
                raise ValueError(f"{where}[{index}].{key}: {row[key]!r:.80} is no number")
        if row.get("model_size") is not None and size_of(row["model_size"]) is None:
            raise ValueError(f"{where}[{index}].model_size: {row['model_size']!r:.80} is no (width, height)")
        for key in ("terms", "truth", "protocols"):
            if not isinstance(row.get(key), dict | None):
                raise ValueError(f"{where}[{index}].{key}: {row[key]!r:.80} is no mapping")
    return rows


def is_scene(identifier: str) -> bool:
    """Whether an id is one of the shapes world, which can be drawn again."""
    return _SCENE.fullmatch(identifier) is not None


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def iou_of(row: Row) -> float | None:
    """IoU of a record in 0..1; None where its protocol drops the sample.

    Args:
        row: a record.

    Returns:
        `iou` where it has one, else intersection over union (1 where both masks are empty, 0 without an answer).
    """
    if "iou" in row:
        return number(row["iou"])
    shared, union = number(row.get("intersection")), number(row.get("union"))
    if shared is None or union is None:
        return None
    return shared / union if union else float(row.get("reason") != MISSING)


def box_of(value: Any) -> list[float] | None:
    """Four finite numbers, or None."""
    numbers = _numbers(value)
    return numbers if numbers is not None and len(numbers) == 4 else None


def boxes_of(value: Any) -> list[list[float]]:
    """The boxes of a list, each once; what follows the four numbers of one, such as its confidence, is left out."""
    found: list[list[float]] = []
    for entry in value if isinstance(value, list | tuple) else ():
        box = box_of(entry[:4] if isinstance(entry, list | tuple) else entry)
        if box is not None and box not in found:
            found.append(box)
    return found


def size_of(value: Any) -> Size | None:
    """Two whole numbers above 0, (width, height), or None."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    return (value[0], value[1]) if all(type(side) is int and side > 0 for side in value) else None


def points_of(value: Any) -> list[list[float]]:
    """The (x, y) of a list that are two finite numbers."""
    if not isinstance(value, list | tuple):
        return []
    return [found for point in value if (found := _numbers(point)) is not None and len(found) == 2]


def _numbers(value: Any) -> list[float] | None:
    if not isinstance(value, list | tuple):
        return None
    found = [number(entry) for entry in value]
    return None if None in found else [round(max(-1e7, min(1e7, entry)), 2) for entry in found if entry is not None]


def series_of(sources: Sequence[Source]) -> Iterator[Series]:
    """All series, in order, their names made unique."""
    taken: list[str] = []
    for source in sources:
        for one in source.series:
            name = _unique(one.name, taken)
            taken.append(name)
            yield one if name == one.name else Series(name, one.rows, one.run, one.moment, one.config)
