"""A scorer behind the reward-function signature of TRL: one scoring of a step feeds one function per term.

TRL calls every reward function of a step with the same `completions` list object, so the first function scores and the
others read their column. TRL logs each function under its `__name__`, and weighs them by `GRPOConfig.reward_weights`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from dpad_fast._row_columns import Columns
from dpad_fast.model_size import model_size_for
from dpad_fast.rewards import RewardScorer
from dpad_fast.rewards.interface import Scorer
from dpad_fast.rewards.reasons import MALFORMED
from dpad_fast.rewards.spaces import reads_pixels
from dpad_fast.row_errors import RowErrors
from dpad_fast.train.columns import completion_texts, frozen, read_columns, read_images, row_key, texts_or_errors
from dpad_fast.train.step_scoring import StepScoring, StepScorings
from dpad_fast.types import ScoreBatch, Size, Target

__all__ = ["SCORER_FAILED", "RewardFunction", "TargetOf", "TrlRewards", "completion_texts", "parse_solution"]

SCORER_FAILED = "scorer-failed"  # the reason of every row of a batch that no scorer gave scores for
RewardFunction = Callable[..., Any]
"""Called by TRL with keywords; gives N floats, None where a row is unscored, or an awaitable of them."""
TargetOf = Callable[[Mapping[str, Any]], Target]
_logger = logging.getLogger(__name__)


def parse_solution(row: Mapping[str, Any], column: str = "solution") -> Target:
    """The `Target` that a row's solution text describes, in pixels of the row's image.

    Args:
        row: one row of the data set, with `column` and the image.
        column: name of the text column: `<box>..</box><points>..</points>`, or the JSON list of several objects.

    Returns:
        The parsed target, with the size of a decoded image.

    Raises:
        ValueError: if the row has no such column or its text cannot be parsed.
    """
    if column not in row:
        raise ValueError(f"the data set has no column {column!r:.80}; its columns are {sorted(row)}")
    return Target.from_row(row, Columns(solution=column, image="image" if "image" in row else None))


class TrlRewards:
    """Reward functions for TRL's `GRPOTrainer` that share one scoring per step.

    Args:
        scorer: the configured scorer: a `RewardScorer`, `RemoteScorer` or `MicroBatcher`, or another with their
            `config` and `score`.
        target_of: makes the target of a row (all its columns, and `image`); `parse_solution` when None.
        id_column: column whose equal values mark equal images, so that a group's image is embedded once. Images are
            compared by content where the data set has no such column.
        processor: the policy's processor. TRL hands over the original pictures; with the processor it is known at which
            size the model saw them, and so what its answers in pixels refer to (`dpad_fast.model_size_for`).
        model_size_of: in its place, a function from a picture's (width, height) to the size at which the model saw it,
            or None where that is the picture's own. Neither is asked where the scorer's configuration has a
            `model_size` or its answers are not in pixels.
        image_column: the column of the pictures that the ground truths are about, where the policy is shown others;
            `image`, `images` or the pictures in the prompts when None.
        on_error: "row": a row whose data cannot be scored gets None from every function, and so does every row of a
            batch for which the scorer itself failed; TRL leaves them out, and they are logged and counted. Or "raise",
            which ends the training. A data set without a column that is needed raises either way.

    Attributes:
        scorer: as given.
        counts: "rows" scored so far, and how many of them had each reason code.

    Raises:
        ValueError: a processor whose family is not known, or both ways to say the size.
    """

    def __init__(
        self,
        scorer: Scorer,
        target_of: TargetOf | None = None,
        id_column: str = "id",
        *,
        processor: Any = None,
        model_size_of: Callable[[Size], Size | None] | None = None,
        image_column: str | None = None,
        on_error: str = "row",
    ) -> None:
        if processor is not None and model_size_of is not None:
            raise ValueError("give processor or model_size_of, not both")
        self._keep_errors = RowErrors(on_error).kept
        self._on_error = on_error
        self.scorer = scorer
        self.counts: Counter[str] = Counter()
        self._seen_pictures = False
        self._target_of = target_of or parse_solution
        self._id_column, self._image_column = id_column, image_column
        self._model_sizes: Callable[[Size], Size | None] | None = None
        if reads_pixels(scorer.config) and scorer.config.model_size is None:
            self._model_sizes = model_size_of
            if processor is not None:
                self._model_sizes = partial(model_size_for, processor=processor)
                self._model_sizes((112, 112))  # an unknown family is refused now, not after the first generation
        self._steps = StepScorings(one_at_a_time=isinstance(scorer, RewardScorer))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_steps"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._steps = StepScorings(one_at_a_time=isinstance(self.scorer, RewardScorer))

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms that this scorer computes, in the order of `functions()` and `weights()`."""
        return tuple(self.scorer.config.terms)

    def weights(self) -> list[float]:
        """One weight per term, for `GRPOConfig(reward_weights=...)`."""
        return [self.scorer.config.weight(name) for name in self.terms]

    def functions(self, *, async_: bool = False) -> list[RewardFunction]:
        """One reward function per term, unweighted, named after its term.

        Args:
            async_: `async def` functions, which score in the background while others are awaited. With
                `GroupAdvantageMixin` the scoring begins as soon as there are completions, beside TRL's forward passes
                and the other reward functions. The values are the same.

        Returns:
            The functions; they can be pickled where the scorer can.
        """
        kind = _AsyncColumn if async_ else _Column
        return [kind(self, name) for name in self.terms]

    def total(self, *, async_: bool = False) -> RewardFunction:
        """A single reward function, `dpad`, that returns the weighted sum of all terms; see `functions`."""
        return (_AsyncColumn if async_ else _Column)(self, None)

    def score(self, completions: Sequence[Any], columns: Mapping[str, Any]) -> ScoreBatch:
        """Score a step once; later calls with the same list object, texts and columns get the same batch.

        Args:
            completions: N strings or conversations.
            columns: the other keywords of TRL's call: the data set's columns (lists, tuples, arrays or `datasets`
                columns of N), and TRL's `log_metric` and `log_extra`.

        Returns:
            The scores of all N completions.

        Raises:
            ValueError: for a missing column or one of another length; for a completion, picture or ground truth that
                cannot be read unless `on_error` is "row". Names the index.
        """
        asked = time.perf_counter()
        scoring = self._scoring(completions, columns, background=False)
        return self._result(scoring, columns, asked)

    async def score_async(self, completions: Sequence[Any], columns: Mapping[str, Any]) -> ScoreBatch:
        """`score` in the background, awaited: an event loop goes on meanwhile, with generation or other rewards."""
        asked = time.perf_counter()
        scoring = self._scoring(completions, columns, background=True)
        await asyncio.wrap_future(scoring.future)
        return self._result(scoring, columns, asked)

    def begin(self, completions: Sequence[Any], columns: Mapping[str, Any]) -> None:
        """Begins to score in the background what the reward functions will be asked for; arguments as for `score`."""
        self._scoring(completions, columns, background=True)

    def _scoring(self, completions: Sequence[Any], columns: Mapping[str, Any], *, background: bool) -> StepScoring:
        texts: list[Any] = [*(texts_or_errors if self._keep_errors else completion_texts)(completions)]
        needed = ["image", "images", "solution", self._id_column, self._image_column or "image"]
        lists = read_columns(columns, len(texts), needed)
        if self._target_of is parse_solution and "solution" not in lists:
            raise ValueError(f"the data set has no column 'solution'; its columns are {sorted(lists)}")
        # The ids of the tokens are left out: they spell the texts. Objects such as pictures count as the same while
        # they are the same object, which they are for all functions of a step.
        read = {name: column for name, column in lists.items() if name != "completion_ids"}
        # Errors by what they say: they are made anew for every function of a step.
        said = [[str(text)] if isinstance(text, ValueError) else text for text in texts]
        make = partial(self._make, texts, lists)
        return self._steps.get(completions, frozen([said, read]), make, background=background)

    def _make(self, texts: list[Any], lists: dict[str, list[Any]]) -> ScoreBatch:
        images = read_images(lists, self._image_column, in_prompts=self._keep_errors and self._seen_pictures)
        self._seen_pictures = self._seen_pictures or not all(isinstance(image, ValueError) for image in images)
        keys = None if self._id_column not in lists else [row_key(value) for value in lists[self._id_column]]
        targets = self._targets(lists, images)
        try:
            return self.scorer.score(
                texts, targets, images, image_keys=keys, model_sizes=self._model_sizes, on_error=self._on_error
            )
        except Exception as error:  # of the scorer itself: a server that went away, a GPU without memory
            if not self._keep_errors:
                raise
            _logger.exception("the scorer failed for a batch of %d rows; they are left unscored", len(texts))
            return _unscored(self.terms, len(texts), f"{type(error).__name__}: {error}")

    def _targets(self, lists: Mapping[str, list[Any]], images: list[Any]) -> list[Any]:
        """N targets; the `ValueError` where one cannot be made, an empty one where there is no picture either."""
        targets: list[Any] = []
        for index, image in enumerate(images):
            if isinstance(image, ValueError):
                targets.append(Target())
                continue
            row = {key: value[index] for key, value in lists.items()} | {"image": image}
            try:
                targets.append(self._target_of(row))
            except ValueError as error:
                targets.append(error)
            except Exception as error:  # of the user's own function
                if not self._keep_errors:
                    raise
                targets.append(ValueError(f"targets[{index}]: {type(error).__name__}: {error}"))
        return targets

    def _result(self, scoring: StepScoring, columns: Mapping[str, Any], asked: float) -> ScoreBatch:
        """The scores; the first who gets them counts and logs."""
        batch = scoring.future.result()
        with self._steps.lock:
            told, scoring.told = scoring.told, True
            if not told:
                self.counts["rows"] += len(batch)
                self.counts.update(reason for reason in batch.reasons if reason is not None)
        if not told:
            _warn_of_unscored(batch)
            if columns.get("log_metric") is not None:
                seconds = {"dpad/seconds": scoring.seconds, "dpad/wait_seconds": time.perf_counter() - asked}
                _log(batch, columns["log_metric"], seconds)
            if columns.get("log_extra") is not None:
                columns["log_extra"]("dpad_reason", [reason or "" for reason in batch.reasons])
        return batch


class _Named:
    """A reward function under its term's name. An object rather than a closure, so that it can be pickled."""

    def __init__(self, rewards: TrlRewards, term: str | None) -> None:
        self.rewards, self._term = rewards, term
        self.__name__ = self.__qualname__ = term or "dpad"
        what = "The weighted sum" if term is None else f"Term {term!r}"
        self.__doc__ = f"{what} of the shared scoring, one float per completion."

    def _column(self, batch: ScoreBatch) -> list[float | None]:
        column = batch.total if self._term is None else batch.terms[self._term]
        return [None if math.isnan(value) else float(value) for value in column.tolist()]


class _Column(_Named):
    def __call__(self, *, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return self._column(self.rewards.score(completions, columns))


class _AsyncColumn(_Named):
    async def __call__(self, *, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return self._column(await self.rewards.score_async(completions, columns))

    def begin(self, completions: Sequence[Any], columns: Mapping[str, Any]) -> None:
        self.rewards.begin(completions, columns)


def _unscored(terms: Sequence[str], count: int, message: str) -> ScoreBatch:
    """N rows without scores, and why."""

    def nothing() -> torch.Tensor:
        return torch.full((count,), math.nan)

    return ScoreBatch(
        total=nothing(),
        terms={name: nothing() for name in terms},
        similarity={"roi": nothing(), "aoi": nothing()},
        reasons=(SCORER_FAILED,) * count,
        timings={},
        errors=(message,) * count,
    )


def _warn_of_unscored(batch: ScoreBatch) -> None:
    """Says how many rows are unscored, by reason, and what is wrong with the first."""
    rows = torch.isnan(batch.total).nonzero().flatten().tolist()
    if rows:
        reasons = Counter(batch.reasons[row] for row in rows)
        by_reason = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        first = batch.errors[rows[0]]
        _logger.warning("%d of %d rows are left unscored (%s); the first: %s", len(rows), len(batch), by_reason, first)


def _log(batch: ScoreBatch, log_metric: Callable[[str, float], None], seconds: Mapping[str, float]) -> None:
    """Log the similarities, how often S1 > S2, and the reasons, which the terms alone do not show."""
    roi, aoi = batch.similarity["roi"], batch.similarity["aoi"]
    compared = ~(torch.isnan(roi) | torch.isnan(aoi))
    scored = ~torch.isnan(batch.total)
    count = max(1, int(scored.sum()))
    if bool(compared.any()):
        log_metric("dpad/s1", float(roi[compared].mean()))
        log_metric("dpad/s2", float(aoi[compared].mean()))
    # Nothing to compare counts as "not greater": the rate is over all scored completions, as in the evaluation.
    log_metric("dpad/s1_over_s2", float((compared & (roi > aoi)).sum()) / count)
    log_metric("dpad/malformed", sum(reason in MALFORMED for reason in batch.reasons) / count)
    log_metric("dpad/unscored", 1.0 - float(scored.sum()) / max(1, len(batch)))
    for name, value in seconds.items():
        log_metric(name, value)
