"""Rows of training frameworks scored, and a count of those that cannot be."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from dpad_fast._row_columns import Columns
from dpad_fast.integrations._fork_lock import ForkLock
from dpad_fast.integrations._row_reader import RowReader, SizeOf
from dpad_fast.integrations._scorers import (
    SETTINGS,
    Scorer,
    log_row,
    scorer_from,
    scorer_from_environment,
    settings_from_environment,
)
from dpad_fast.model_size import model_size_for
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.micro_batcher import MicroBatcher
from dpad_fast.types import ScoreBatch, Size

ROW_SETTINGS = ("columns", "image", "image_root", "processor")
"""Settings of rows, beside the scorer's; `RowScorer` says what they are."""

_FIRST = 8  # rows that are left out are each told of, up to this many; then whenever their number has doubled
_NO_NUMBERS = ("total", "s1", "s2", "reason", "error")  # texts, and what is NaN for any malformed completion
_arrived: dict[str, Recipe] = {}
_receiving = ForkLock()
_log = logging.getLogger(__name__)


class RowScorer:
    """Scores rows of a framework, so that what is wrong with one of them leaves that one unscored.

    Args:
        scorer: what scores.
        name: of the framework, for the log.
        columns: where the ground truth is; None: told from well-known names.
        image: the column of the picture; None: looked for, as `images_from` does.
        image_root: the folder that relative paths of pictures are in; None: the process's own.
        processor: the policy's processor, a name or folder to load one from, or its settings
            (`dpad_fast.model_size_for`); None: the model saw pictures as they are, or rows have a `model_size`.
        batched: score through a `MicroBatcher`, for frameworks that call once per sample from threads or event loops.

    Raises:
        ValueError: a setting that is none, or a processor whose family is not known.
    """

    def __init__(
        self,
        scorer: Scorer,
        name: str,
        *,
        columns: Columns | Mapping[str, Any] | None = None,
        image: str | None = None,
        image_root: str | os.PathLike[str] | None = None,
        processor: Any = None,
        batched: bool = False,
    ) -> None:
        if not callable(getattr(scorer, "score", None)):
            raise ValueError(f"scorer must be a RewardScorer, a RemoteScorer or another like them, got {scorer!r:.80}")
        self.scorer, self._name = scorer, name
        self._size_of = None if processor is None else _size_function(processor)
        self._reader = RowReader(
            scorer.config, columns=columns, image=image, image_root=image_root, size_of=self._size_of
        )
        self._batcher = MicroBatcher(scorer) if batched else None
        self._lock = threading.Lock()
        self.rows = self.unscored = 0

    @property
    def config(self) -> RewardConfig:
        """The scorer's configuration."""
        return self.scorer.config

    def seen(self, size: Size) -> Size | None:
        """The size at which the model sees a picture that is handed to its processor; None: answers are in its pixels.

        Raises:
            ValueError: the processor refuses the picture.
        """
        return size if self._size_of is None else self._size_of(size, None)

    def score(self, completions: Sequence[Any], rows: Sequence[Any]) -> ScoreBatch:
        """Scores N completions.

        Args:
            completions: N strings; a `ValueError` stands for what could not be read.
            rows: N mappings with the ground truth and, where a term looks at one, the picture; `image_size` and
                `model_size` are (width, height) of the ground truth's picture and of the one that the model saw. A
                `ValueError` stands for a row that could not be read.

        Returns:
            The scores; NaN, with a reason and an error, where a row cannot be scored.

        Raises:
            ValueError: there are not N rows.
            RuntimeError, ConnectionError: the scorer fails, or no server answers: never a reward.
        """
        columns = self._arguments(completions, rows)
        if self._batcher is not None:
            return self._noted(self._batcher.submit_rows(list(completions), *columns).result())
        return self._noted(self.scorer.score(list(completions), *columns, on_error="row"))

    async def score_async(self, completions: Sequence[Any], rows: Sequence[Any]) -> ScoreBatch:
        """`score`, awaited, in one batch with other callers' rows."""
        if self._batcher is None:
            raise RuntimeError("score_async needs batched=True")
        # In a thread: pictures' headers are read, and a server is asked for its configuration.
        columns = await asyncio.to_thread(self._arguments, completions, rows)
        return self._noted(await asyncio.wrap_future(self._batcher.submit_rows(list(completions), *columns)))

    def _arguments(self, completions: Sequence[Any], rows: Sequence[Any]) -> tuple[Any, Any, None, Any]:
        if len(completions) != len(rows):
            raise ValueError(f"rows has {len(rows)} entries for {len(completions)} completions")
        read = [self._reader.read(row, i) for i, row in enumerate(rows)]
        images = None if all(row.bare for row in read) else [row.image for row in read]
        sizes = [row.model_size for row in read]
        known = any(size is not None for size in sizes)
        return [row.target for row in read], images, None, sizes if known else None

    def _noted(self, batch: ScoreBatch) -> ScoreBatch:
        """The batch; says how many of its rows have no score, and why."""
        left_out = [i for i, total in enumerate(batch.total.tolist()) if math.isnan(total)]
        with self._lock:
            before = self.unscored
            self.rows += len(batch)
            self.unscored += len(left_out)
            rows, unscored = self.rows, self.unscored
        if left_out and (len(batch) > 1 or unscored <= _FIRST or _doubled(before, unscored)):
            why = Counter(batch.reasons[i] for i in left_out)
            reasons = ", ".join(f"{reason} {count}" for reason, count in why.most_common())
            _log.warning(
                "%s: %d of %d rows cannot be scored (%s), %d of %d so far: %s",
                *(self._name, len(left_out), len(batch), reasons, unscored, rows),
                "; ".join(str(batch.errors[i]) for i in left_out[:3]),
            )
        return batch


class Recipe:
    """What makes a `RowScorer` when it is first asked for, once per process; can be pickled and sent to others.

    Args:
        name: of the framework, for the log.
        settings: of the scorer (`scorer_from`) and of rows (`ROW_SETTINGS`); without the scorer's they are read from
            the YAML file that the environment variable DPAD_FAST_SCORER names.
        batched: as in `RowScorer`.
        of_a_server: settings of a server's client where neither the caller nor the file says them.

    Raises:
        ValueError: an unknown setting; names the known ones.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        *,
        batched: bool = False,
        of_a_server: Mapping[str, Any] | None = None,
    ) -> None:
        unknown = [key for key in settings if key not in (*ROW_SETTINGS, *SETTINGS, "scorer")]
        if unknown:
            known = ", ".join((*ROW_SETTINGS, *SETTINGS))
            raise ValueError(f"unknown setting {unknown[0]!r:.80} for {name}; known: {known}, or scorer, an object")
        self._name, self._settings, self._batched = name, dict(settings), batched
        self._of_a_server = dict(of_a_server or {})
        self._of_scorer: dict[str, Any] | None = None
        self._name_sent = uuid.uuid4().hex
        self._made: dict[int, RowScorer] = {}
        self._lock = ForkLock()

    def made(self) -> RowScorer:
        """The scorer of this process.

        Raises:
            ValueError: the settings are wrong; says how.
        """
        with self._lock:
            process = os.getpid()  # an encoder's threads do not live on in a forked process
            if process not in self._made:
                self._made = {process: self._make()}
            return self._made[process]

    def setting(self, name: str) -> Any:
        """A setting of the scorer, as given, or in the file, or for servers; None where it is said nowhere."""
        with self._lock:
            if self._of_scorer is None:
                given = self._given()
                self._of_scorer = self._of_a_server | (given or settings_from_environment())
            return self._of_scorer.get(name)

    def _given(self) -> dict[str, Any]:
        named = {key: value for key, value in self._settings.items() if value is not None}
        return {key: value for key, value in named.items() if key not in ROW_SETTINGS}

    def _make(self) -> RowScorer:
        rows = {key: value for key, value in self._settings.items() if key in ROW_SETTINGS}
        rest = self._given()
        scorer = rest.pop("scorer", None)
        if scorer is not None and rest:
            raise ValueError(f"give scorer or {', '.join(rest)}, not both")
        if scorer is None and rest:
            scorer = scorer_from({**self._of_a_server, **rest} if "url" in rest else rest)
        elif scorer is None:
            scorer = scorer_from_environment(**self._of_a_server)
        return RowScorer(scorer, self._name, batched=self._batched, **rows)

    def __reduce__(self) -> Any:
        # Frameworks send a function with every call: what is received again is the same object, with its scorer.
        return _received, (self._name_sent, self._name, self._settings, self._batched, self._of_a_server)


def _received(
    sent: str, name: str, settings: Mapping[str, Any], batched: bool, of_a_server: Mapping[str, Any]
) -> Recipe:
    with _receiving:
        if sent not in _arrived:
            _arrived[sent] = Recipe(name, settings, batched=batched, of_a_server=of_a_server)
        return _arrived[sent]


def totals(batch: ScoreBatch, unscored: float | None) -> list[Any]:
    """The totals as Python's floats, with a value in the place of rows without a score."""
    return [unscored if math.isnan(total) else total for total in batch.total.tolist()]


def lowest(config: RewardConfig) -> float:
    """What the worst completion gets: 0 unless a weight is negative. For frameworks that take no `None`.

    What makes a row unscored (its picture, its ground truth) is the whole group's, whose advantages are then 0.
    """
    return float(sum(min(0.0, config.weight(name)) for name in config.terms))


def numbers_of(batch: ScoreBatch, i: int) -> dict[str, float]:
    """What of `log_row` is a number in every row: the terms (0 where there is none) and the shares of faults."""
    found = {name: value for name, value in log_row(batch, i).items() if name not in _NO_NUMBERS}
    return {name: 0.0 if math.isnan(float(value)) else float(value) for name, value in found.items()}


def _size_function(processor: Any) -> SizeOf:
    if isinstance(processor, str | os.PathLike):
        from transformers import AutoProcessor

        processor = AutoProcessor.from_pretrained(processor)
    model_size_for((112, 112), processor)  # an unknown family is refused now, not after the first generation
    return lambda size, _: model_size_for(size, processor)


def _doubled(before: int, now: int) -> bool:
    return before.bit_length() != now.bit_length()
