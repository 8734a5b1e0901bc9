"""`RewardScorer` behind the reward-function signature of TRL: one scoring of a step feeds one function per term.

TRL calls every reward function of a step with the same `completions` list object, so the first function scores and the
others read their column. TRL logs each function under its `__name__`, and weighs them by `GRPOConfig.reward_weights`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from dpad_fast.pictures import upright_size
from dpad_fast.types import Target

if TYPE_CHECKING:
    from dpad_fast.rewards import RewardScorer
    from dpad_fast.types import ScoreBatch

RewardFunction = Callable[..., list[float]]
TargetOf = Callable[[Mapping[str, Any]], Target]


def completion_texts(completions: Sequence[Any]) -> list[str]:
    """The text of each completion, plain or conversational.

    Args:
        completions: strings, or conversations whose last message's `content` is a string or a list of text parts.

    Returns:
        One string per completion; the last message counts.

    Raises:
        ValueError: if a completion is neither; names its index.
    """
    return [_text(completion, index) for index, completion in enumerate(completions)]


def _text(completion: Any, index: int) -> str:
    if isinstance(completion, str):
        return completion
    if not isinstance(completion, Sequence) or not completion or not isinstance(completion[-1], Mapping):
        raise ValueError(f"completions[{index}] is neither a string nor a list of messages: {completion!r:.80}")
    content = completion[-1].get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))


def _images(columns: Mapping[str, Sequence[Any]]) -> list[Any]:
    """One image per row, from the column `image` or from one-element lists in `images`."""
    if "image" in columns:
        found = list(columns["image"])
    elif "images" in columns:
        for index, row in enumerate(columns["images"]):
            if len(row) != 1:
                raise ValueError(f"images[{index}] holds {len(row)} images, expected exactly one")
        found = [row[0] for row in columns["images"]]
    else:
        raise ValueError(f"the data set needs an image or images column; its columns are {sorted(columns)}")
    for index, image in enumerate(found):
        if image is None:
            raise ValueError(f"image[{index}] is None")
    return found


def _size_of(image: Any) -> tuple[int, int] | None:
    if isinstance(image, Image.Image):
        return upright_size(image)  # as it is scored
    size = getattr(image, "size", None)
    return (int(size[0]), int(size[1])) if isinstance(size, tuple) and len(size) == 2 else None


def parse_solution(row: Mapping[str, Any], column: str = "solution") -> Target:
    """The `Target` that a row's solution text describes, in pixels of the row's image.

    Args:
        row: one row of the data set, with `column` and the image.
        column: name of the text column: `<box>..</box><points>..</points>`, or the JSON list of several objects.

    Returns:
        The parsed target, with the image's size.

    Raises:
        ValueError: if the row has no such column or its text cannot be parsed.
    """
    if column not in row:
        raise ValueError(f"the data set has no column {column!r:.80}; its columns are {sorted(row)}")
    return Target.parse(row[column], image_size=_size_of(row.get("image")))


class TrlRewards:
    """Reward functions for TRL's `GRPOTrainer` that share one scoring per step.

    Args:
        scorer: the configured scorer.
        target_of: makes the target of a row (all its columns, and `image`); `parse_solution` when None.
        id_column: column whose equal values mark equal images, so that a group's image is embedded once. Images are
            compared by content where the data set has no such column.
    """

    def __init__(self, scorer: RewardScorer, target_of: TargetOf | None = None, id_column: str = "id") -> None:
        self.scorer = scorer
        self._target_of = target_of or parse_solution
        self._id_column = id_column
        self._last: tuple[Sequence[Any], ScoreBatch] | None = None

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms that this scorer computes, in the order of `functions()` and `weights()`."""
        return tuple(self.scorer.config.terms)

    def weights(self) -> list[float]:
        """One weight per term, for `GRPOConfig(reward_weights=...)`."""
        return [self.scorer.config.weight(name) for name in self.terms]

    def functions(self) -> list[RewardFunction]:
        """One reward function per term, unweighted, named after its term."""
        return [self._column(name) for name in self.terms]

    def total(self) -> RewardFunction:
        """A single reward function, `dpad`, that returns the weighted sum of all terms."""

        def dpad(*, completions: Sequence[Any], **columns: Any) -> list[float]:
            batch = self.score(completions, columns)
            return [float(value) for value in batch.total.tolist()]

        return dpad

    def _column(self, name: str) -> RewardFunction:
        def term(*, completions: Sequence[Any], **columns: Any) -> list[float]:
            batch = self.score(completions, columns)
            return [float(value) for value in batch.terms[name].tolist()]

        term.__name__ = term.__qualname__ = name
        term.__doc__ = f"Term {name!r} of the shared scoring, one float per completion."
        return term

    def score(self, completions: Sequence[Any], columns: Mapping[str, Any]) -> ScoreBatch:
        """Score a step once; later calls with the same list object get the same batch.

        Args:
            completions: N strings or conversations.
            columns: the other keywords of TRL's call: the data set's columns as lists of N, and TRL's `log_metric`.

        Returns:
            The scores of all N completions.

        Raises:
            ValueError: for a missing column, or a ground truth that cannot be read; names the index.
        """
        if self._last is not None and self._last[0] is completions:
            return self._last[1]
        started = time.perf_counter()
        texts = completion_texts(completions)
        lists = {key: value for key, value in columns.items() if isinstance(value, list) and len(value) == len(texts)}
        images = _images(lists)
        keys = lists.get(self._id_column)
        batch = self.scorer.score(texts, self._targets(lists, images), images, image_keys=keys)
        self._last = (completions, batch)
        log_metric = columns.get("log_metric")
        if log_metric is not None:
            _log(batch, log_metric, time.perf_counter() - started)
        return batch

    def _targets(self, lists: Mapping[str, list[Any]], images: list[Any]) -> list[Target]:
        targets = []
        for index, image in enumerate(images):
            row = {key: value[index] for key, value in lists.items()} | {"image": image}
            try:
                targets.append(self._target_of(row))
            except ValueError as error:
                raise ValueError(f"row {index}: {error}") from error
        return targets


def _log(batch: ScoreBatch, log_metric: Callable[[str, float], None], seconds: float) -> None:
    """Log what the terms alone do not show: the similarities, how often S1 > S2, and what went wrong."""
    roi, aoi = batch.similarity["roi"], batch.similarity["aoi"]
    compared = ~(torch.isnan(roi) | torch.isnan(aoi))
    if bool(compared.any()):
        log_metric("dpad/s1", float(roi[compared].mean()))
        log_metric("dpad/s2", float(aoi[compared].mean()))
    # Nothing to compare counts as "not greater": the rate is over all completions, as in the evaluation.
    log_metric("dpad/s1_over_s2", float((compared & (roi > aoi)).float().mean()))
    log_metric("dpad/malformed", sum(reason is not None for reason in batch.reasons) / max(1, len(batch.reasons)))
    log_metric("dpad/seconds", seconds)
