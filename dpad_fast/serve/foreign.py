"""The forms of HTTP rewards that OpenRLHF and slime speak: no pictures, so the label says where the picture is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.reasons import MALFORMED
from dpad_fast.serve import responses
from dpad_fast.serve.pictures import PictureStore
from dpad_fast.serve.rows import Rows, picture_of_label, read_pictures
from dpad_fast.serve.schema import Label, PictureIn
from dpad_fast.serve.settings import Refusal, Settings
from dpad_fast.serve.unfolding import check_weight
from dpad_fast.types import ScoreBatch, Target

_NAMED = 1000  # mistakes of a body: naming some means listing all, which takes more than the body did


def keeps_unscored(value: str | None) -> bool:
    """Whether a caller wants the lowest reward for a row without a score (`?unscored=lowest`), not a refusal.

    Raises:
        Refusal: 422, another value.
    """
    if value not in (None, "lowest", "refuse"):
        raise Refusal(422, f"unscored must be refuse (as without it) or lowest, got {value!r:.80}")
    return value == "lowest"


def response_of(query: str, prompt: str, index: int, *, keep: bool = False) -> Any:
    """`responses.response_of`, for one query of a request; with `keep` the `ValueError` of one that is not readable.

    Raises:
        Refusal: 422, the prompt is not in the query.
    """
    try:
        return responses.response_of(query, prompt)
    except ValueError:
        message = f"query[{index}] does not hold the end of prompts[{index}]: where does the response begin?"
        if keep:
            return ValueError(f"completions[{index}]: {message}")
        raise Refusal(422, message) from None


def read_rows(
    answers: Sequence[Any],
    labels: Sequence[Any],
    config: RewardConfig,
    store: PictureStore,
    settings: Settings,
    *,
    keep: bool = False,
) -> Rows:
    """Rows for the scorer.

    Args:
        answers: N answers.
        labels: N labels: the solution's text, or an object with `solution`, `image`, `image_size` and `model_size`, or
            the JSON text of one.
        config: says whether pictures are needed.
        store: pictures that were sent.
        settings: limits.
        keep: leave a row whose label cannot be read unscored.

    Raises:
        Refusal: a label cannot be read or has no picture where one is needed, unless `keep`; or names one that may not
            be had.
    """
    if len(answers) > settings.rows:
        raise Refusal(413, f"{len(answers)} rows, more than the {settings.rows} of a request")
    texts = [label.encode("utf-8", "replace") for label in labels if isinstance(label, str)]
    check_weight(texts, settings.weight, "labels")  # as text they may hide it: a comma can be written \u002c
    read: list[Label | None] = []
    targets: list[Any] = []
    for i, label in enumerate(labels):
        try:
            found = _label(label, f"labels[{i}]")
            targets.append(_target(found, i, config))
            if found.image is None and config.needs_encoder:
                raise Refusal(422, f"labels[{i}] names no picture (image): {config.name} compares with it")
            read.append(found)
        except Refusal as refusal:
            if not keep:
                raise
            targets[i:] = [ValueError(f"targets[{i}]: {refusal.reason}")]
            read.append(None)
    rows = Rows(list(answers), targets)
    if any(label is not None and label.model_size is not None for label in read):
        rows.model_sizes = [None if label is None else label.model_size for label in read]
    if config.needs_encoder or any(label is not None and label.image is not None for label in read):
        entries = [_picture(label, i) for i, label in enumerate(read)]
        rows.images, rows.held = read_pictures(entries, store, settings)
    return rows


def _target(label: Label, i: int, config: RewardConfig) -> Target | str:
    if config.answer == "released" and label.image_size is None:
        return label.solution
    try:
        return Target.parse(label.solution, label.image_size)
    except ValueError as error:
        raise Refusal(422, f"labels[{i}]: {error}") from None


def _picture(label: Label | None, i: int) -> PictureIn:
    if label is None:
        return PictureIn(error=f"images[{i}]: the label cannot be read")
    if label.image is None:
        return PictureIn(error=f"images[{i}]: the label names no picture (image), but others do")
    return picture_of_label(label.image)


def openrlhf_reply(batch: ScoreBatch, config: RewardConfig, *, keep: bool = False) -> dict[str, Any]:
    """OpenRLHF's answer: totals, the same over the weights' sum (it filters by 0..1), numbers for its logs."""
    totals = totals_of(batch, config, keep=keep)
    weights = sum(abs(config.weight(name)) for name in config.terms) or 1.0
    logs = {f"dpad/{name}": _numbers(column.tolist()) for name, column in batch.terms.items()}
    roi, aoi = batch.similarity["roi"].tolist(), batch.similarity["aoi"].tolist()
    logs["dpad/s1_over_s2"] = [float(one > other) for one, other in zip(roi, aoi, strict=True)]
    logs["dpad/malformed"] = [float(reason in MALFORMED) for reason in batch.reasons]
    logs["dpad/unscored"] = [float(math.isnan(total)) for total in batch.total.tolist()]
    return {"rewards": totals, "scores": [total / weights for total in totals], "extra_logs": logs}


def totals_of(batch: ScoreBatch, config: RewardConfig, *, keep: bool = False) -> list[float]:
    """The totals; a row without one fails the request, for these forms have no other way to say so.

    Args:
        batch: the scores.
        config: its weights say what the lowest total is.
        keep: give such a row the lowest total instead. Both frameworks end the training where a reward is missing.

    Raises:
        Refusal: 422, with the reason and the error of each such row.
    """
    totals: list[float] = batch.total.tolist()
    wrong = [i for i, total in enumerate(totals) if math.isnan(total)]
    if wrong and not keep:
        said = "; ".join(f"{batch.reasons[i]}: {batch.errors[i]}" for i in wrong[:8])
        raise Refusal(422, f"{len(wrong)} of {len(totals)} rows cannot be scored: {said}")
    lowest = float(sum(min(0.0, config.weight(name)) for name in config.terms))
    return [lowest if math.isnan(total) else total for total in totals]


def _numbers(column: list[float]) -> list[float]:
    return [0.0 if math.isnan(value) else value for value in column]


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
    if error.error_count() > _NAMED:
        return f"{error.error_count()} mistakes, too many to name them"
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [f"{'.'.join(str(part)[:40] for part in p['loc']) or 'body'}: {p['msg']}" for p in problems[:4]]
    more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
    return "; ".join(shown)[:800] + more
