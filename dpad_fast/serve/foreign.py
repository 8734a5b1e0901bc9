"""The forms of HTTP rewards that OpenRLHF and slime speak: no pictures, so the label says where the picture is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.reasons import MALFORMED
from dpad_fast.serve.pictures import PictureStore
from dpad_fast.serve.rows import Rows, picture_of_label, read_pictures
from dpad_fast.serve.schema import Label
from dpad_fast.serve.settings import Refusal, Settings
from dpad_fast.types import ScoreBatch, Target

# What a tokenizer writes behind an answer when special tokens are kept: <|im_end|>, <|endoftext|>, </s>, <eos> ...
_ENDS = re.compile(r"(?:<\|[^<>|\s]{1,40}\|>|</s>|<eos>|<end_of_turn>|<pad>|\s)+\Z")
_TOKEN = re.compile(r"(<\|[^<>|\s]{1,40}\|>|<image>)")
_TAIL = 25  # characters
_TRIES = 64


def response_of(query: str, prompt: str, index: int) -> str:
    """The response in a query of OpenRLHF, which is the decoded prompt and response in one.

    The prompt may have been cut at its front, and have placeholders repeated or a first token put before it. Where
    more than that differs, its last words are looked for, at their first place: what the response itself repeats of
    the prompt comes later and hides nothing.

    Raises:
        Refusal: 422, the prompt is not in the query.
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
        raise Refusal(422, f"query[{index}] does not hold the end of prompts[{index}]: where does the response begin?")
    return without_end(query[place:])


def _with_repeats(prompt: str) -> re.Pattern[str]:
    """Matches the prompt with each of its placeholders any number of times, and up to three tokens before it."""
    parts: list[str] = []
    for i, part in enumerate(_TOKEN.split(prompt)):
        pattern = f"(?:{re.escape(part)})+" if i % 2 else re.escape(part)
        if pattern and parts[-1:] != [pattern]:  # one behind the other they would be matched in every way there is
            parts.append(pattern)
    return re.compile(r"(?:<s>|<bos>|<\|[^<>|\s]{1,40}\|>|\s){0,3}?" + "".join(parts))


def without_end(response: str) -> str:
    """The response without the special tokens that end a turn."""
    return _ENDS.sub("", response)


def read_rows(
    responses: Sequence[str], labels: Sequence[Any], config: RewardConfig, store: PictureStore, settings: Settings
) -> Rows:
    """Rows for the scorer.

    Args:
        responses: N answers.
        labels: N labels: the solution's text, or an object with `solution`, `image`, `image_size` and `model_size`, or
            the JSON text of one.
        config: says whether pictures are needed.
        store: pictures that were sent.
        settings: limits.

    Raises:
        Refusal: a label cannot be read, has no picture where one is needed, or names one that may not be had.
    """
    if len(responses) > settings.rows:
        raise Refusal(413, f"{len(responses)} rows, more than the {settings.rows} of a request")
    read = [_label(label, f"labels[{i}]") for i, label in enumerate(labels)]
    targets: list[Any] = []
    for i, label in enumerate(read):
        try:
            released = config.answer == "released" and label.image_size is None
            targets.append(label.solution if released else Target.parse(label.solution, label.image_size))
        except ValueError as error:
            raise Refusal(422, f"labels[{i}]: {error}") from None
    rows = Rows(list(responses), targets)
    if any(label.model_size is not None for label in read):
        rows.model_sizes = [label.model_size for label in read]
    if config.needs_encoder or any(label.image is not None for label in read):
        entries = []
        for i, label in enumerate(read):
            if label.image is None:
                raise Refusal(422, f"labels[{i}] names no picture (image): {config.name} compares with it")
            entries.append(picture_of_label(label.image))
        rows.images, rows.held = read_pictures(entries, store, settings)
    return rows


def openrlhf_reply(batch: ScoreBatch, config: RewardConfig) -> dict[str, Any]:
    """OpenRLHF's answer: totals, the same over the weights' sum (it filters by 0..1), numbers for its logs."""
    totals = totals_of(batch)
    weights = sum(abs(config.weight(name)) for name in config.terms) or 1.0
    logs = {f"dpad/{name}": column.tolist() for name, column in batch.terms.items()}
    roi, aoi = batch.similarity["roi"].tolist(), batch.similarity["aoi"].tolist()
    logs["dpad/s1_over_s2"] = [float(one > other) for one, other in zip(roi, aoi, strict=True)]
    logs["dpad/malformed"] = [float(reason in MALFORMED) for reason in batch.reasons]
    return {"rewards": totals, "scores": [total / weights for total in totals], "extra_logs": logs}


def totals_of(batch: ScoreBatch) -> list[float]:
    """The totals; a row without one fails the request, for these forms have no other way to say so.

    Raises:
        Refusal: 422, with the reason and the error of each such row.
    """
    totals: list[float] = batch.total.tolist()
    wrong = [i for i, total in enumerate(totals) if math.isnan(total)]
    if wrong:
        said = "; ".join(f"{batch.reasons[i]}: {batch.errors[i]}" for i in wrong[:8])
        raise Refusal(422, f"{len(wrong)} of {len(totals)} rows cannot be scored: {said}")
    return totals


def _label(label: Any, name: str) -> Label:
    if isinstance(label, str) and label.lstrip()[:1] == "{":
        try:
            label = json.loads(label)
        except (ValueError, RecursionError):
            raise Refusal(422, f"{name} looks like a JSON object but is none: {label!r:.80}") from None
    if isinstance(label, str):
        return Label(solution=label)
    if not isinstance(label, Mapping):
        raise Refusal(422, f"{name} must be the solution's text or an object with solution, got {label!r:.80}")
    try:
        found: Label = Label.model_validate_json(json.dumps(label))
    except (ValidationError, ValueError) as error:
        raise Refusal(422, f"{name} cannot be read: {said(error)}") from None
    return found


def said(error: Exception) -> str:
    """What is wrong with a body, short: the first places and what was expected there, not what was sent."""
    if not isinstance(error, ValidationError):
        return str(error)[:300]
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [f"{'.'.join(str(part)[:40] for part in p['loc']) or 'body'}: {p['msg']}" for p in problems[:4]]
    more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
    return "; ".join(shown)[:800] + more
