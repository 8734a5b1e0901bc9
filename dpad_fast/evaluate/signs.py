"""Signs of reward hacking in one answer: what it has that a good answer does not need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from dpad_fast.types import Size

COPIED, SHORTEST = 8, 4
"""So many words of the prompt in a row are a copy; of a shorter prompt all, if they are at least `SHORTEST`."""

ALIKE = 0.8
"""Share of common words from which a description echoes the query."""

WHOLE = 0.95
"""Share of the picture from which a box is the whole of it."""

_TAGS = ("think", "answer", "caption")
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words and numbers of a text, in lower case."""
    return _WORD.findall(text.lower())


def repeated_tags(text: str) -> str | None:
    """Which tags stand more than once, in words.

    Args:
        text: the completion.

    Returns:
        For example "<answer> 3 times", or None.
    """
    counts = {tag: max(text.count(f"<{tag}>"), text.count(f"</{tag}>")) for tag in _TAGS}
    return ", ".join(f"<{tag}> {count} times" for tag, count in counts.items() if count > 1) or None


def copied_prompt(text: str, prompts: Sequence[str]) -> str | None:
    """The first words of a prompt that an answer copies.

    Args:
        text: the completion.
        prompts: what the model may have been asked.

    Returns:
        The words, or None where there are not so many in a row.
    """
    answer = words(text)
    for prompt in prompts:
        asked = words(prompt)
        length = min(COPIED, len(asked))
        if length < SHORTEST:
            continue
        runs = {tuple(asked[i : i + length]) for i in range(len(asked) - length + 1)}
        for i in range(len(answer) - length + 1):
            if tuple(answer[i : i + length]) in runs:
                return " ".join(answer[i : i + length])
    return None


def only_the_query(chain: str | None, query: str) -> str | None:
    """Whether a chain is hardly more than the query.

    Args:
        chain: the reasoning, or None.
        query: the question.

    Returns:
        The query where the chain holds all of it, it has at least `SHORTEST` words, and the chain has few others (a
        share of `ALIKE` is the query's); else None.
    """
    said, asked = words(chain or ""), words(query)
    holds = f" {' '.join(asked)} " in f" {' '.join(said)} "
    return query if holds and len(asked) >= max(SHORTEST, ALIKE * len(said)) else None


def echoes(caption: str | None, query: str) -> str | None:
    """Whether a description is the query again.

    Args:
        caption: the description, or None.
        query: the question.

    Returns:
        The description where it holds the whole query, or at least `ALIKE` of both texts' words are common; else None.
    """
    said, asked = words(caption or ""), words(query)
    if len(said) < 2 or len(asked) < 2:
        return None
    holds = f" {' '.join(asked)} " in f" {' '.join(said)} "
    common = len(set(said) & set(asked)) / len(set(said) | set(asked))
    return caption if holds or common >= ALIKE else None


def whole_picture(box: Sequence[float] | None, size: Size | None) -> str | None:
    """Whether a box is (nearly) the whole picture.

    Args:
        box: (x1, y1, x2, y2) in pixels, or None.
        size: (width, height), or None where it is not known.

    Returns:
        The share that it covers, in words, or None where that is below `WHOLE`.
    """
    if box is None or size is None or not size[0] or not size[1]:
        return None
    sides = [max(0.0, min(box[i + 2], size[i]) - max(box[i], 0.0)) / size[i] for i in (0, 1)]
    share = sides[0] * sides[1]
    return f"covers {share:.0%} of the picture" if share >= WHOLE else None


def caption_key(answer: dict[str, Any]) -> str:
    """A description as it is compared with others; "" for none."""
    return " ".join(words(answer.get("caption") or ""))
