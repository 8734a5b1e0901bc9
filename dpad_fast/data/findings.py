"""Findings of a check: kinds of problems with examples and advice, as a list for people and as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dpad_fast.data.coordinates import Verdict

_EXAMPLES = 5
_LEVELS = ("error", "warning", "note")


class _Kind(NamedTuple):
    level: str
    what: str
    advice: str


_KINDS = {
    "coordinates": _Kind(
        "error", "boxes are not in pixels of their pictures", "say how they are written where the data is read: the "
        "columns' `space` and `box_format`, or `data prepare` from the original data",
    ),
    "unread": _Kind("error", "rows cannot be read", "mend or remove them; `data prepare` leaves them out"),
    "picture-missing": _Kind("error", "pictures are missing", "name the folder they are in (--images), or get them"),
    "picture-broken": _Kind("error", "pictures cannot be decoded", "fetch or save them again"),
    "size": _Kind(
        "error", "pictures have another size than the truth says", "the truth belongs to another picture, or to one "
        "that was not resized or turned: use that picture, or scale the truth",
    ),
    "box-area": _Kind("error", "boxes have no area", "x1 < x2 and y1 < y2 is expected; is it xywh or cxcywh?"),
    "box-off": _Kind("error", "boxes lie off their picture", "are they in pixels of this picture? See the coordinates"),
    "id-twice": _Kind("error", "ids come more than once", "give each row its own: predictions are matched by it"),
    "query-empty": _Kind("error", "queries are empty", "remove the rows or fill them in"),
    "shared": _Kind(
        "error", "pictures are in the other set too", "split by picture, or what is measured was seen in training"
    ),
    "box-mask": _Kind(
        "warning", "boxes are not their mask's (IoU below 0.9)", "leave the box out to have it derived from the mask"
    ),
    "point-mask": _Kind(
        "warning", "points are off their mask", "leave points out to have two well inside the mask derived from it"
    ),
    "point-off": _Kind("error", "points lie off their picture", "are they in pixels of this picture?"),
    "no-target": _Kind("warning", "rows have no target", "training cannot reward them; `data prepare` leaves them out"),
    "ignored": _Kind("warning", "more pixels are ignored than count", "look at them: `dpad-fast data show`"),
    "long": _Kind("warning", "queries are long", "a prompt limit may cut them; --words moves the limit"),
    "row-twice": _Kind("warning", "rows repeat another one's picture and query", "remove one: it weighs twice"),
    "unknown-space": _Kind("note", "the coordinates of the boxes cannot be told", "compare some with `data show`"),
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One kind of trouble.

    Attributes:
        kind: a short name, such as "box-off".
        level: "error" (training or scoring goes wrong), "warning" or "note".
        what: in words.
        count: how many rows (or pictures) have it.
        examples: the first few, with id and file.
        advice: what to do.
    """

    kind: str
    level: str
    what: str
    count: int
    examples: tuple[str, ...]
    advice: str


@dataclass(frozen=True)
class Report:
    """The findings of `check`.

    Attributes:
        rows: how many rows were looked at, those that cannot be read too.
        problems: the worst first.
        coordinates: in which coordinates the boxes are; None where there are none.
        numbers: counts and means of the set, by name.
    """

    rows: int
    problems: tuple[Problem, ...]
    coordinates: Verdict | None
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def errors(self) -> int:
        """How many kinds of errors there are."""
        return sum(problem.level == "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        problems = [
            {"kind": p.kind, "level": p.level, "what": p.what, "count": p.count, "examples": list(p.examples),
             "advice": p.advice}
            for p in self.problems
        ]  # fmt: skip
        space = None if self.coordinates is None else self.coordinates.to_dict()
        return {"rows": self.rows, "numbers": self.numbers, "coordinates": space, "problems": problems}

    def text(self) -> str:
        """A list for people, worst first."""
        lines = [f"{self.rows} rows: {_counted(self.problems)}"]
        for p in self.problems:
            lines += ["", f"{p.level}: {p.count} {p.what} [{p.kind}]"]
            lines += [f"    {example}" for example in p.examples]
            lines += [f"    ... and {p.count - len(p.examples)} more"] if p.count > len(p.examples) else []
            lines += [f"    -> {p.advice}"]
        if self.coordinates is not None:
            lines += ["", f"coordinates ({self.coordinates.sure}): {self.coordinates.why}"]
        lines += [f"{name}: {value:g}" for name, value in self.numbers.items()]
        return "\n".join(lines)


def _counted(problems: Sequence[Problem]) -> str:
    found = Counter(problem.level for problem in problems)
    words = [f"{found[level]} kinds of {level}s" for level in _LEVELS if found[level]]
    return ", ".join(words).replace("1 kinds", "1 kind") or "nothing is wrong"


class Findings:
    """Problems by kind, with the first examples of each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}
        self._kinds = dict(_KINDS)

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count a problem."""
        self._counts[kind] += count
        held = self._examples.setdefault(kind, [])
        if example and len(held) < _EXAMPLES:
            held.append(example)

    def declare(self, kind: str, level: str, what: str, advice: str) -> None:
        """Make a kind known that only the caller can find."""
        self._kinds[kind] = _Kind(level, what, advice)

    def problems(self) -> tuple[Problem, ...]:
        """The worst first: by level, coordinates before all others, then by count."""
        made = []
        for kind, count in self._counts.items():
            level, what, advice = self._kinds[kind]
            made.append(Problem(kind, level, what, count, tuple(self._examples[kind]), advice))
        return tuple(sorted(made, key=lambda p: (_LEVELS.index(p.level), p.kind != "coordinates", -p.count, p.kind)))
