"""Answers of other projects: where their boxes stand, strictly as their rewards ask and tolerantly as models write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dpad_fast.evaluate.readers import text as scan
from dpad_fast.evaluate.readers.text import Box
from dpad_fast.types import Point

Objects = list[tuple[Box, float | None, Point | None]]
"""(box, confidence or None, point or None) each."""


@dataclass(frozen=True)
class Found:
    """What a reader found: objects in the answer's coordinates, or why there is none.

    Attributes:
        objects: none where the answer says that there is no object.
        points: of the whole answer, where it gives points apart from boxes.
        labels: one per point, 1 for the object and 0 for not the object.
        reason: a code, where the answer cannot be read.
    """

    objects: Objects
    points: tuple[Point, ...] = ()
    labels: tuple[int, ...] = ()
    reason: str | None = None


Reader = Callable[[str, bool], Found]
"""(text, strict) -> what was found."""

_BAD_JSON = Found([], reason="bad-json")
_KEYS = ("bbox_2d", "bbox", "Position", "position", "box")


def json_boxes(key: str, tags: bool, number_only: bool = False) -> Reader:
    """A reader of a JSON object, or a list of them, that has a box under a key.

    Args:
        key: of the box.
        tags: the strict form stands in `<think>..</think><answer>..</answer>`.
        number_only: a bare list of four numbers is the strict form too.
    """

    def read(text: str, strict: bool) -> Found:
        if strict:
            inside = scan.answer_of(text) if tags else text
            if inside is None or (tags and "<think>" not in text):
                return Found([], reason="no-tags")
            return _from_json(scan.load(_unfenced(inside)), (key,), number_only)
        inside = scan.answer_of(text)
        value = scan.load_tolerantly(scan.after_thinking(text) if inside is None else inside)
        return _from_json(value, (key, *_KEYS), True)

    return read


def _unfenced(text: str) -> str:
    text = text.strip()
    if text.startswith("```json") and text.endswith("```") and len(text) > 10:
        return text[7:-3].strip()
    return text


def _from_json(value: Any, keys: tuple[str, ...], bare: bool) -> Found:
    if value is None:
        return _BAD_JSON
    rows = value if isinstance(value, list) else [value]
    if bare and scan.box_of(value) is not None:
        rows = [{keys[0]: value}]
    objects: Objects = []
    for row in rows:
        if bare and isinstance(row, list):
            row = {keys[0]: row}
        if not isinstance(row, dict):
            return Found([], reason="bad-field")
        key = next((key for key in keys if key in row), None)
        if key is None:
            return Found([], reason="missing-field")
        box = scan.box_of(row[key])
        if box is None:
            return Found([], reason="bad-box")
        score = next(
            (row[name] for name in ("Confidence", "confidence", "score") if scan.is_number(row.get(name))), None
        )
        objects.append((box, None if score is None else float(score), scan.point_of(row.get("point_2d"))))
    return Found(objects)


def visual_rft(text: str, strict: bool) -> Found:
    """`<think>..</think><answer>[{'Position': [x1,y1,x2,y2], 'Confidence': c}, ..]</answer>`, in Python's quotes."""
    inside = scan.answer_of(text)
    if strict and (inside is None or "<think>" not in text):
        return Found([], reason="no-tags")
    value = scan.load_tolerantly(scan.after_thinking(text) if inside is None else inside)
    found = _from_json(value, ("Position",) if strict else ("Position", *_KEYS), not strict)
    scored = all(score is not None for _, score, _ in found.objects)
    return found if scored or not strict else Found([], reason="missing-field")


def paired(opening: str | None = None, closing: str | None = None, tags: bool = False) -> Reader:
    """A reader of `(x1,y1),(x2,y2)`, between two tokens or tags where the strict form asks for them.

    Args:
        opening: what the strict form has in front of the box.
        closing: what it has behind.
        tags: the strict form stands in `<think>..</think><answer>..</answer>`.
    """

    def read(text: str, strict: bool) -> Found:
        inside: str | None = text
        if tags:
            inside = scan.answer_of(text)
            if strict and (inside is None or "<think>" not in text):
                return Found([], reason="no-tags")
        if opening is not None and closing is not None:
            start = text.find(opening)
            end = text.find(closing, start + len(opening)) if start >= 0 else -1
            if end < 0 and strict:
                return Found([], reason="no-tags")
            inside = text[start + len(opening) : end] if end >= 0 else None
        where = scan.after_thinking(text) if inside is None else inside
        numbers = scan.paired_boxes(where)
        if not numbers and not strict:
            numbers = scan.bracketed_boxes(where)
        return _from_numbers(numbers)

    return read


def _from_numbers(numbers: list[list[float]]) -> Found:
    if not numbers:
        return Found([], reason="no-box")
    boxes = [scan.box_of(four) for four in numbers]
    good = [box for box in boxes if box is not None]
    return Found([(box, None, None) for box in good]) if len(good) == len(boxes) else Found([], reason="bad-box")


def rex_thinker(text: str, strict: bool) -> Found:
    """`<think>..</think><answer>`: boxes of candidates in square brackets; an answer without one says that none is."""
    inside = scan.answer_of(text)
    if inside is None or (strict and not text.startswith("<think>")):
        if strict:
            return Found([], reason="no-tags")
        inside = scan.after_thinking(text) if inside is None else inside
    numbers = scan.bracketed_boxes(inside)
    if numbers:
        return _from_numbers(numbers)
    none = "none" in inside.lower() or inside.strip() == "[]"
    return Found([]) if none else Found([], reason="no-box")


def seg_r1(text: str, strict: bool) -> Found:
    """`<bbox>[..]</bbox>`, `<points>[[..], ..]</points>`, `<labels>[1, 0, ..]</labels>`; a box alone is enough."""
    if strict and "<think>" not in text:
        return Found([], reason="no-tags")
    parse = scan.load if strict else scan.load_tolerantly
    values = {name: _element(text, name) for name in ("bbox", "points", "labels")}
    if values["bbox"] is None:
        return Found([], reason="no-tags")
    box = scan.box_of(parse(values["bbox"]))
    if box is None:
        return Found([], reason="bad-box")
    points, labels = (None if values[name] is None else parse(values[name] or "") for name in ("points", "labels"))
    if points is None and labels is None and not strict:
        return Found([(box, None, None)])
    if not isinstance(points, list) or not isinstance(labels, list) or len(points) != len(labels):
        return Found([(box, None, None)]) if not strict else Found([], reason="bad-field")
    read = [scan.point_of(point) for point in points]
    good = [point for point in read if point is not None]
    if len(good) < len(read) or not all(type(label) is int and label in (0, 1) for label in labels):
        return Found([], reason="bad-field")
    return Found([(box, None, None)], tuple(good), tuple(labels))


def _element(text: str, name: str) -> str | None:
    start = text.find(f"<{name}>")
    end = text.find(f"</{name}>", start) if start >= 0 else -1
    return text[start + len(name) + 2 : end] if end >= 0 else None
