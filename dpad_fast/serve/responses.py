"""Responses as trainers hand them over: behind their prompt, and with the tokens that end a turn."""

from __future__ import annotations

import re
from typing import TypeVar

# What a tokenizer writes behind an answer when special tokens are kept: <|im_end|>, <|endoftext|>, </s>, <eos> ...
_END = re.compile(r"(?:<\|[^<>|\s]{1,40}\|>|</s>|<eos>|<end_of_turn>|<pad>)\Z")
_WINDOW = 64  # characters, more than any of them has
_LEAD = re.compile(r"<s>|<bos>|<\|[^<>|\s]{1,40}\|>|\s")
_LEADS = 3
_TOKEN = re.compile(r"(<\|[^<>|\s]{1,40}\|>|<image>)")
_TAIL = 25  # characters
_TRIES = 64
Text = TypeVar("Text")


def response_of(query: str, prompt: str) -> str:
    """The response in a query of OpenRLHF, which is the decoded prompt and response in one.

    The prompt may have been cut at its front, and have placeholders repeated or a first token put before it. Where
    more than that differs, its last words are looked for, at their first place: what the response itself repeats of
    the prompt comes later and hides nothing.

    Raises:
        ValueError: the prompt is not in the query.
    """
    if query.startswith(prompt):
        return without_end(query[len(prompt) :])
    start = prompt.find(query[:_TAIL])
    for _ in range(_TRIES):
        if start < 0:
            break
        if len(prompt) - start >= _TAIL and query.startswith(prompt[start:]):
            return without_end(query[len(prompt) - start :])
        start = prompt.find(query[:_TAIL], start + 1)
    place = _end_of(prompt, query)
    if place < 0 and len(prompt) >= _TAIL and prompt[-_TAIL:] in query:
        place = query.index(prompt[-_TAIL:]) + _TAIL
    if place < 0:
        raise ValueError("the query does not hold the end of the prompt: where does the response begin?")
    return without_end(query[place:])


def _end_of(prompt: str, query: str) -> int:
    """Where the prompt ends, with each of its placeholders any number of times and up to three tokens before it; or -1.

    A pattern would say it shorter; one of a long prompt takes seconds to make, and `re` keeps it.
    """
    parts = _TOKEN.split(prompt)  # texts and placeholders in turn
    place = 0
    for _ in range(_LEADS + 1):
        end = _matched(parts, query, place)
        lead = _LEAD.match(query, place)
        if end >= 0 or lead is None:
            return end
        place = lead.end()
    return -1


def _matched(parts: list[str], query: str, place: int) -> int:
    repeated = None  # equal placeholders one behind the other are one that is repeated
    for i, part in enumerate(parts):
        if not part or part == repeated:
            continue
        if not query.startswith(part, place):
            return -1
        place += len(part)
        repeated = part if i % 2 else None
        while repeated is not None and query.startswith(part, place):
            place += len(part)
    return place


def without_end(response: Text) -> Text | str:
    """The response without the special tokens that end a turn; what is no text as it is, for the scorer to refuse."""
    if not isinstance(response, str):
        return response
    end = len(response)
    while end:  # from the end on, for a pattern would begin at each of a thousand tokens that are not the last
        window = response[max(end - _WINDOW, 0) : end]
        spaces = len(window) - len(window.rstrip())
        found = None if spaces else _END.search(window)
        if not spaces and found is None:
            break
        end -= spaces or len(window) - found.start()  # type: ignore[union-attr]
    return response[:end]
