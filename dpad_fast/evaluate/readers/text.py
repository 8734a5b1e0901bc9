"""Scans that readers share: answers inside text, tolerant JSON, boxes in brackets. All linear in the text's length."""

from __future__ import annotations

import json
import math
import re
from typing import Any

Box = tuple[float, float, float, float]
FAR = 1e6  # beyond this a coordinate is no position in any picture

# A string runs to its closing quote or to the end, so that no quote is looked at twice.
_PARTS = re.compile(
    r"(?P<double>\"(?:[^\"\\]|\\.)*(?:\"|\Z))"
    r"|(?P<single>'(?:[^'\\]|\\.)*(?:'|\Z))"
    r"|(?P<word>[A-Za-z_]+)|(?P<comma>,[ \t\r\n]{0,64}(?=[\]}]))",
    re.DOTALL,
)
_WORDS = {"True": "true", "False": "false", "None": "null"}
_SPECIAL = re.compile(r"<\|[a-zA-Z0-9_]{1,40}\|>")
_N = r"\s{0,8}(-?\d{1,9}(?:\.\d{0,17})?)\s{0,8}"
_PAIRS = re.compile(rf"\({_N},{_N}\)\s{{0,8}},\s{{0,8}}\({_N},{_N}\)")
_FOUR = re.compile(rf"\[{_N},{_N},{_N},{_N}\]")


def answer_of(text: str) -> str | None:
    """What stands between the first `<answer>` and the `</answer>` after it, or None."""
    start = text.find("<answer>")
    if start < 0:
        return None
    end = text.find("</answer>", start)
    return None if end < 0 else text[start + 8 : end]


def after_thinking(text: str) -> str:
    """What follows the last `</think>`; the whole text where there is none."""
    return text[text.rfind("</think>") + 8 :] if "</think>" in text else text


def without_special(text: str) -> str:
    """The text without tokens such as `<|im_end|>`."""
    return _SPECIAL.sub("", text)


def load(text: str) -> Any:
    """`json.loads`; None for what it refuses."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def load_tolerantly(text: str) -> Any:
    """JSON with what models put around and into it: fences, words, special tokens, single quotes, trailing commas.

    Args:
        text: an answer.

    Returns:
        The value, or None.
    """
    text = without_special(text)
    fence = text.find("```")
    if fence >= 0:
        line = text.find("\n", fence)
        end = text.find("```", fence + 3)
        start = fence + 3 if line < 0 or (0 <= end < line) else line + 1
        inside = text[start : end if end >= 0 else len(text)]
        text = inside.removeprefix("json")
    starts = [place for place in (text.find("["), text.find("{")) if place >= 0]
    end = max(text.rfind("]"), text.rfind("}"))
    if not starts or end < min(starts):
        return None
    text = text[min(starts) : end + 1]
    value = load(text)
    return load(_PARTS.sub(_mended, text)) if value is None else value


def _mended(match: re.Match[str]) -> str:
    part = match.group()
    if match.lastgroup == "comma":
        return ""
    if match.lastgroup == "single":
        inside = part[1:-1] if len(part) > 1 and part[-1] == "'" else part[1:]
        return '"' + inside.replace("\\'", "'").replace('"', '\\"') + '"'
    return _WORDS.get(part, part)


def box_of(value: Any) -> Box | None:
    """Four finite numbers with x1 < x2 and y1 < y2, or None."""
    if not isinstance(value, (list, tuple)) or len(value) != 4 or not all(map(is_number, value)):
        return None
    x1, y1, x2, y2 = (float(item) for item in value)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def point_of(value: Any) -> tuple[float, float] | None:
    """Two finite numbers, or None."""
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(map(is_number, value)):
        return None
    return float(value[0]), float(value[1])


def is_number(value: Any) -> bool:
    """A finite number within what a picture can have; no boolean."""
    if type(value) is int:
        return abs(value) <= FAR
    return type(value) is float and math.isfinite(value) and abs(value) <= FAR


def paired_boxes(text: str) -> list[list[float]]:
    """Every `(x1,y1),(x2,y2)` of a text."""
    return [[float(number) for number in match] for match in _PAIRS.findall(text)]


def bracketed_boxes(text: str) -> list[list[float]]:
    """Every `[x1, y1, x2, y2]` of a text."""
    return [[float(number) for number in match] for match in _FOUR.findall(text)]
