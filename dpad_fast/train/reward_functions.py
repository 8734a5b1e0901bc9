"""`RewardScorer` behind the reward-function signature of TRL: one scoring of a step feeds one function per term.

TRL calls every reward function of a step with the same `completions` list object, so the first function scores and the
others read their column. TRL logs each function under its `__name__`, and weighs them by `GRPOConfig.reward_weights`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from dpad_fast._row_columns import Columns
from dpad_fast.model_size import model_size_for
from dpad_fast.rewards.reasons import MALFORMED
from dpad_fast.rewards.spaces import reads_pixels
from dpad_fast.row_errors import RowErrors
from dpad_fast.train.columns import completion_texts, frozen, read_columns, read_images, row_key, texts_or_errors
from dpad_fast.types import Size, Target

if TYPE_CHECKING:
    from dpad_fast.rewards import RewardScorer
    from dpad_fast.types import ScoreBatch

__all__ = ["RewardFunction", "TargetOf", "TrlRewards", "completion_texts", "parse_solution"]

RewardFunction = Callable[..., list[float | None]]
TargetOf = Callable[[Mapping[str, Any]], Target]


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
        scorer: the configured scorer, or a `RemoteScorer`, which has the same `config` and `score`.
        target_of: makes the target of a row (all its columns, and `image`); `parse_solution` when None.
        id_column: column whose equal values mark equal images, so that a group's image is embedded once. Images are
            compared by content where the data set has no such column.
        processor: the policy's processor. TRL hands over the original pictures; with the processor it is known at which
            size the model saw them, and so what its answers in pixels refer to (`dpad_fast.model_size_for`).
        model_size_of: in its place, a function from a picture's (width, height) to the size at which the model saw it,
            or None where that is the picture's own. Neither is asked where the scorer's configuration has a
            `model_size` or its answers are not in pixels.
        on_error: "raise", or "row": every function gives None for a row whose data cannot be scored, TRL leaves the row
            out, and `dpad/unscored` logs the share.

    Raises:
        ValueError: a processor whose family is not known, or both ways to say the size.
    """

    def __init__(
        self,
        scorer: RewardScorer,
        target_of: TargetOf | None = None,
        id_column: str = "id",
        *,
        processor: Any = None,
        model_size_of: Callable[[Size], Size | None] | None = None,
        on_error: str = "raise",
    ) -> None:
        if processor is not None and model_size_of is not None:
            raise ValueError("give processor or model_size_of, not both")
        self._keep_errors = RowErrors(on_error).kept
        self._on_error = on_error
        self.scorer = scorer
        self._target_of = target_of or parse_solution
        self._id_column = id_column
        self._model_sizes: Callable[[Size], Size | None] | None = None
        if reads_pixels(scorer.config) and scorer.config.model_size is None:
            self._model_sizes = model_size_of
            if processor is not None:
                self._model_sizes = partial(model_size_for, processor=processor)
                self._model_sizes((112, 112))  # an unknown family is refused now, not after the first generation
        self._last: tuple[Sequence[Any], Hashable, ScoreBatch] | None = None

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

        def dpad(*, completions: Sequence[Any], **columns: Any) -> list[float | None]:
            return _or_none(self.score(completions, columns).total)

        return dpad

    def _column(self, name: str) -> RewardFunction:
        def term(*, completions: Sequence[Any], **columns: Any) -> list[float | None]:
            return _or_none(self.score(completions, columns).terms[name])

        term.__name__ = term.__qualname__ = name
        term.__doc__ = f"Term {name!r} of the shared scoring, one float per completion."
        return term

    def score(self, completions: Sequence[Any], columns: Mapping[str, Any]) -> ScoreBatch:
        """Score a step once; later calls with the same list object, texts and columns get the same batch.

        Args:
            completions: N strings or conversations.
            columns: the other keywords of TRL's call: the data set's columns (lists, tuples, arrays or `datasets`
                columns of N), and TRL's `log_metric`.

        Returns:
            The scores of all N completions.

        Raises:
            ValueError: for a missing column; for a completion, picture or ground truth that cannot be read unless
                `on_error` is "row". Names the index.
        """
        started = time.perf_counter()
        texts: list[Any] = [*(texts_or_errors if self._keep_errors else completion_texts)(completions)]
        needed = ["image", "images", "solution", self._id_column]
        lists = read_columns(columns, len(texts), needed)
        # The ids of the tokens are left out: they spell the texts. Objects such as pictures count as the same while
        # they are the same object, which they are for all functions of a step.
        read = {name: column for name, column in lists.items() if name != "completion_ids"}
        # Errors by what they say: they are made anew for every function of a step.
        said = [[str(text)] if isinstance(text, ValueError) else text for text in texts]
        content = frozen([said, read])
        if self._last is not None and self._last[0] is completions and self._last[1] == content:
            return self._last[2]
        if self._target_of is parse_solution and "solution" not in lists:
            raise ValueError(f"the data set has no column 'solution'; its columns are {sorted(lists)}")
        images = read_images(lists)
        keys = None if self._id_column not in lists else [row_key(value) for value in lists[self._id_column]]
        batch = self.scorer.score(
            texts,
            self._targets(lists, images),
            images,
            image_keys=keys,
            model_sizes=self._model_sizes,
            on_error=self._on_error,
        )
        self._last = (completions, content, batch)
        log_metric = columns.get("log_metric")
        if log_metric is not None:
            _log(batch, log_metric, time.perf_counter() - started, unscored=self._keep_errors)
        return batch

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
        return targets


def _or_none(column: torch.Tensor) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in column.tolist()]


def _log(batch: ScoreBatch, log_metric: Callable[[str, float], None], seconds: float, *, unscored: bool) -> None:
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
    if unscored:
        log_metric("dpad/unscored", 1.0 - float(scored.sum()) / max(1, len(batch)))
    log_metric("dpad/seconds", seconds)
