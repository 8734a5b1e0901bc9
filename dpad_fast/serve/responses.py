"""Responses as trainers hand them over: behind their prompt, and with the tokens that end a turn."""

from __future__ import annotations

import re
from typing import TypeVar

# What a tokenizer writes behind an answer when special tokens are kept: <|im_end|>, <|endoftext|>, </s>, <eos> ...
_ENDS = re.compile(r"(?:<\|[^<>|\s]{1,40}\|>|</s>|<eos>|<end_of_turn>|<pad>|\s)+\Z")
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
    found = _with_repeats(prompt).match(query)
    place = -1 if found is None else found.end()
    if found is None and len(prompt) >= _TAIL and prompt[-_TAIL:] in query:
        place = query.index(prompt[-_TAIL:]) + _TAIL
    if place < 0:
        raise ValueError("the query does not hold the end of the prompt: where does the response begin?")
    return without_end(query[place:])


def _with_repeats(prompt: str) -> re.Pattern[str]:
    """Matches the prompt with each of its placeholders any number of times, and up to three tokens before it."""
    parts: list[str] = []
    for i, part in enumerate(_TOKEN.split(prompt)):
        pattern = f"(?:{re.escape(part)})+" if i % 2 else re.escape(part)
        if pattern and parts[-1:] != [pattern]:  # one behind the other they would be matched in every way there is
            parts.append(pattern)
    return re.compile(r"(?:<s>|<bos>|<\|[^<>|\s]{1,40}\|>|\s){0,3}?" + "".join(parts))


def without_end(response: Text) -> Text | str:
    """The response without the special tokens that end a turn; what is no text as it is, for the scorer to refuse."""
    return _ENDS.sub("", response) if isinstance(response, str) else response
