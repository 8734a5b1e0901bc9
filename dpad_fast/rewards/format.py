"""The format terms: `think_format`, `answer_format`, `non_repeat`."""

from __future__ import annotations

import re

from dpad_fast.types import Completion

# Sentences begin at a character that is neither a full stop nor white space; runs of those cost nothing.
_SENTENCE = re.compile(r"[^.\s][^.]*")


def think_format(completion: Completion) -> float:
    """1 where the tags stand as the configuration asks, else 0."""
    return 1.0 if completion.tags_ok else 0.0


def answer_format(completion: Completion) -> float:
    """1 where the answer has every required field, else 0.

    In the multi-object form the mean over objects of (1 if `bbox_2d` is a list of 4) + (1 if `point_2d` is one of 2).
    """
    if completion.objects is None:
        return 1.0 if completion.fields_ok else 0.0
    if not completion.objects:
        return 0.0
    found = sum((box is not None) + (point is not None) for box, point in completion.objects)
    return found / len(completion.objects)


def non_repeat(text: str) -> float:
    """1, or 0 where sentences, split at '.' and stripped, repeat two times or more in all (`vision-reasoner`)."""
    seen: set[str] = set()
    repeats = 0
    for match in _SENTENCE.finditer(text):
        sentence = match.group().rstrip()
        if sentence in seen:
            repeats += 1
            if repeats >= 2:
                return 0.0
        seen.add(sentence)
    return 1.0
