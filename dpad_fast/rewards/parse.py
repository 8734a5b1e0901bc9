"""From a completion's text to a `Completion`. Every scan is linear in the length of the text.

Regular expressions with a lazy group, or `{[^}]+}`, restart at every opening tag and cost quadratic time on hostile
text; the scans here give the same matches with `str.find`.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from functools import cache
from typing import Any

import numpy as np

from dpad_fast.rewards.config import RewardConfig
from dpad_fast.types import Completion, Ring

_JSON = json.JSONDecoder()
_BRACES = re.compile(r"{[^}]+}")

# Beyond this a coordinate is no position in any image; rasterisers overflow long after it.
_FAR = 1e6


def parse_completion(text: str, config: RewardConfig) -> Completion:
    """Finds tags, answer and caption in one completion; faults go into `reasons`, and nothing raises."""
    whole = text.strip() if config.strip else text
    spans = match_tags(whole, config.tags)
    reasons = [] if spans is not None else ["no-tags"]
    if config.answer == "objects":
        found = _read_objects(whole, reasons)
    elif config.answer == "released":
        found = _read_released(whole, config, reasons)
    else:
        found = _read_strict(whole, spans, config, reasons)
    caption = _caption(whole, spans, config)
    if config.needs_encoder:
        if caption is None:
            reasons.append("no-caption")
        elif not caption:
            reasons.append("empty-caption")
    return Completion(text=text, tags_ok=spans is not None, caption=caption, reasons=tuple(reasons), **found)


def match_tags(text: str, tags: tuple[str, ...]) -> list[tuple[int, int]] | None:
    r"""Spans of the tags' contents where the whole text is `<a>.*?</a>\s*<b>.*?</b>...`, else None.

    The same spans as `re.fullmatch` with dot matching newlines: taking the earliest joint each time is what lazy groups
    do, and where the earliest fails every later one fails too.
    """
    opening, joints, closing = _marks(tags)
    if not (text.startswith(opening) and text.endswith(closing)):
        return None
    spans = []
    start = len(opening)
    for joint in joints:
        found = joint.search(text, start)
        if found is None:
            return None
        end, behind = found.span()
        spans.append((start, end))
        start = behind
    end = len(text) - len(closing)
    if start > end:
        return None
    spans.append((start, end))
    return spans


def find_braces(text: str) -> str | None:
    """The first match of `{[^}]+}`: an opening brace, at least one character, and the next closing brace."""
    # Before the last closing brace an opening one matches, or "}" follows at once, so nothing is scanned twice.
    match = _BRACES.search(text, 0, text.rfind("}") + 1)
    return None if match is None else match.group()


def find_between(text: str, tag: str, start: int = 0) -> str | None:
    """The content of the first `<tag>...</tag>` at or after `start`, or None."""
    opening = text.find(f"<{tag}>", start)
    if opening < 0:
        return None
    opening += len(tag) + 2
    closing = text.find(f"</{tag}>", opening)
    return None if closing < 0 else text[opening:closing]


def load_json(text: str) -> Any:
    """`json.loads` of stripped text; None where it refuses it: bad syntax, integers beyond the digit limit, depth."""
    try:
        found, end = _JSON.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return found if end == len(text) else None


@cache
def _marks(tags: tuple[str, ...]) -> tuple[str, list[re.Pattern[str]], str]:
    """The first tag's opening, what stands between each tag and the next, and the last one's closing."""
    joints = [re.compile(rf"</{left}>\s*<{right}>") for left, right in itertools.pairwise(tags)]
    return f"<{tags[0]}>", joints, f"</{tags[-1]}>"


def _caption(text: str, spans: list[tuple[int, int]] | None, config: RewardConfig) -> str | None:
    if config.answer == "strict" and spans is not None and config.tags[-1] == "caption":
        # The caption that the format asks for, not one quoted inside the reasoning chain.
        start, end = spans[-1]
        inner = text.find("</caption>", start, end)
        return text[start : inner if inner >= 0 else end].strip()
    found = find_between(text, "caption")
    return None if found is None else found.strip()


def _read_released(text: str, config: RewardConfig, reasons: list[str]) -> dict[str, Any]:
    braces = find_braces(text)
    data = None if braces is None else load_json(braces)
    if not isinstance(data, dict):
        reasons.append("no-json" if braces is None else "bad-json")
        return {}
    box, first, second = data.get("bbox"), data.get("points_1"), data.get("points_2")
    missing = [key for key in ("bbox", "points_1", "points_2") if key not in data]
    right = all(isinstance(v, list) and len(v) == n for v, n in ((box, 4), (first, 2), (second, 2)))
    if missing:
        reasons.append("missing-field")
    elif not right:
        reasons.append("bad-field")
    found: dict[str, Any] = {"fields_ok": right}
    if isinstance(box, list) and len(box) == 4:
        found["box"] = tuple(box)
    if first is not None and second is not None:
        found["points"] = (first, second)
    if config.geometry == "mask":
        found["rings"] = _rings(data, reasons)
    return found


def _read_strict(
    text: str, spans: list[tuple[int, int]] | None, config: RewardConfig, reasons: list[str]
) -> dict[str, Any]:
    answer = find_between(text, "answer") if spans is None else text[slice(*spans[1])]
    if answer is None:
        return {}
    data = load_json(answer.strip())
    if not isinstance(data, dict):
        braces = find_braces(answer)
        data = None if braces is None else load_json(braces)
    if not isinstance(data, dict):
        reasons.append("bad-json")
        return {}
    before = len(reasons)
    if config.geometry == "mask":
        found: dict[str, Any] = {"rings": _rings(data, reasons)}
        if "bbox" in data:
            found["box"] = _box(data, [] if config.region != "predicted" else reasons)
    elif (sound := _sound(data)) is not None:
        return sound
    else:
        first, second = _list_of(data, "points_1", 2, reasons), _list_of(data, "points_2", 2, reasons)
        found = {"box": _box(data, reasons), "points": None if first is None or second is None else (first, second)}
    found["fields_ok"] = len(reasons) == before
    return found


def _sound(data: dict[str, Any]) -> dict[str, Any] | None:
    """Box and points of an answer with nothing wrong or unusual in it, as most are, at once.

    None for any other, whose fields are read one by one, so that what is wrong with each is found.
    """
    try:
        (x1, y1, x2, y2), (ax, ay), (bx, by) = data["bbox"], data["points_1"], data["points_2"]
    except (KeyError, TypeError, ValueError):
        return None
    for value in (x1, y1, x2, y2, ax, ay, bx, by):  # a string or a dictionary in place of a list has strings in it
        if (type(value) is not int and type(value) is not float) or not -_FAR < value < _FAR:
            return None
    if not (x1 < x2 and y1 < y2):
        return None
    box = (float(x1), float(y1), float(x2), float(y2))
    return {"box": box, "points": ((float(ax), float(ay)), (float(bx), float(by))), "fields_ok": True}


def _read_objects(text: str, reasons: list[str]) -> dict[str, Any]:
    answer = find_between(text, "answer")
    data = None if answer is None else load_json(answer.strip())
    if not isinstance(data, list):
        reasons.append("bad-json")
        return {}
    objects = []
    trouble: set[str] = set()
    for item in data:
        fields = item if isinstance(item, dict) else {}
        pair = []
        for key, count in (("bbox_2d", 4), ("point_2d", 2)):
            value = fields.get(key)
            good = isinstance(value, list) and len(value) == count
            pair.append(tuple(value) if good and value is not None else None)
            if not good:
                trouble.add("bad-field" if key in fields else "missing-field")
            elif (problem := _problem(value)) is not None:
                trouble.add(problem)
        objects.append((pair[0], pair[1]))
    if not objects:
        trouble.add("no-objects")
    reasons.extend(sorted(trouble))
    return {"objects": tuple(objects), "fields_ok": not trouble}


def _box(data: dict[str, Any], reasons: list[str]) -> tuple[float, ...] | None:
    box = _list_of(data, "bbox", 4, reasons)
    if box is not None and not (box[0] < box[2] and box[1] < box[3]):
        reasons.append("bad-box")
        return None
    return box


def _list_of(data: dict[str, Any], key: str, count: int, reasons: list[str]) -> tuple[float, ...] | None:
    value = data.get(key)
    if not isinstance(value, list) or len(value) != count:
        reasons.append("bad-field" if key in data else "missing-field")
        return None
    problem = _problem(value)
    if problem is not None:
        reasons.append(problem)
        return None
    return tuple(map(float, value))


def _problem(values: Any) -> str | None:
    """The fault of a list that should hold finite numbers: "bad-field" (type), "non-finite", or None."""
    for value in values:
        if type(value) is not int and type(value) is not float:
            return "bad-field"
    try:
        return None if all(map(math.isfinite, values)) else "non-finite"
    except OverflowError:  # an integer beyond float's range
        return "non-finite"


def _rings(data: dict[str, Any], reasons: list[str]) -> tuple[Ring, ...] | None:
    value = data.get("polygon")
    if "polygon" not in data:
        reasons.append("missing-field")
        return None
    if not isinstance(value, list) or not value:
        reasons.append("bad-polygon")
        return None
    first = value[0]
    nested = isinstance(first, list) and bool(first) and isinstance(first[0], list)
    rings = []
    for ring in value if nested else [value]:
        problem = _ring_problem(ring)
        if problem is not None:
            reasons.append(problem)
            return None
        rings.append(np.array(ring, dtype=np.float64))
    return tuple(rings)


def _ring_problem(ring: Any) -> str | None:
    if not isinstance(ring, list) or len(ring) < 3:
        return "bad-polygon"
    for vertex in ring:
        if not isinstance(vertex, list) or len(vertex) != 2:
            return "bad-polygon"
        problem = _problem(vertex)
        if problem is not None:
            return "non-finite" if problem == "non-finite" else "bad-polygon"
        if abs(vertex[0]) > _FAR or abs(vertex[1]) > _FAR:
            return "bad-polygon"
    return None
