"""The released evaluation's own reading of a completion, to the letter of its Python."""

from __future__ import annotations

import json
from typing import Any

from dpad_fast.rewards.parse import find_braces
from dpad_fast.types import Completion, Point

_FAR = 10**9  # pixels; beyond it no mask differs, and NumPy compares no such integers


def read(text: str, factors: Point, *, needs_thinking: bool = False) -> Completion | None:
    """Read as `extract_bbox_points_think` does: first braces, `int()` of each coordinate, times a factor, rounded.

    Args:
        text: the completion.
        factors: (x, y) from the answer's pixels to the picture's.
        needs_thinking: `<think>` without a "<" inside must stand there too: Seg-Zero's code leaves its variable unset
            otherwise, and the exception counts the answer as unreadable.

    Returns:
        box and two points in whole pixels of the picture; None where the code would raise.
    """
    try:
        braces = find_braces(text)
        if braces is None:
            return None
        data = json.loads(braces)
        key = next(key for key in data if "bbox" in key.lower())
        box = data[key]
        if not key or len(box) != 4:
            return None
        corners = tuple(_scaled(box[i], factors[i % 2]) for i in range(4))
        names = [key for key in data if "points" in key.lower()][:2]
        first, second = (tuple(_scaled(data[name][i], factors[i]) for i in range(2)) for name in names)
    except Exception:  # whatever their code raises, it catches so, and counts the answer as unreadable
        return None
    if needs_thinking and not _thinks(text):
        return None
    return Completion(text, True, corners, (first, second), fields_ok=True)


def _scaled(value: Any, factor: float) -> int:
    return max(-_FAR, min(_FAR, round(int(value) * factor)))


def _thinks(text: str) -> bool:
    """Whether `<think>([^<]+)</think>` is found."""
    start = text.find("<think>")
    while start >= 0:
        end = text.find("<", start + 7)
        if end > start + 7 and text.startswith("</think>", end):
            return True
        start = text.find("<think>", start + 7)
    return False
