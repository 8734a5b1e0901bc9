"""Completions of a file against data of any form, chunk by chunk: the scores of each line, and the sums over all."""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from dpad_fast.evaluate.chunks import offsets_of, results_at
from dpad_fast.evaluate.records import Item, Line
from dpad_fast.rewards import RewardConfig, RewardScorer
from dpad_fast.types import Sample

Scores = dict[str, Any]
_ARGUMENT = re.compile(r"\b(completion|target|image|image_key|model_size)s\[(\d{1,9})\]")


@dataclass(frozen=True)
class Scoring:
    """How completions are scored: plain values, so that they can be pickled.

    Attributes:
        config: which terms, and how.
        encoder: a name or folder, None where no term needs one.
        settings: of `dpad_fast.clip.load_encoder`.
        cache: a folder of embeddings that all processes share, or None.
    """

    config: RewardConfig
    encoder: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    cache: str | None = None

    def make(self) -> Callable[[Sequence[Item]], list[Any]]:
        """Load the encoder and make what scores a chunk.

        Returns:
            A function from items to [number of the line, its scores as `ScoreBatch.rows` has them] per line.

        Raises:
            ValueError: the encoder cannot be loaded.
        """
        scorer = RewardScorer(self.config, self._load())

        def score(items: Sequence[Item]) -> list[Any]:
            return _scores(scorer, items)

        return score

    def _load(self) -> Any:
        if self.encoder is None:
            return None
        from dpad_fast.checkpoints import SMALL_CLIP, is_small_clip
        from dpad_fast.clip import EmbeddingCache, load_encoder
        from dpad_fast.train.policy import quiet as without_bars

        name = SMALL_CLIP if is_small_clip(self.encoder) else self.encoder
        cache = None if self.cache is None else EmbeddingCache(folder=self.cache)
        with without_bars():
            return load_encoder(name, **self.settings, cache=cache)


def _scores(scorer: RewardScorer, items: Sequence[Item]) -> list[Any]:
    pairs: list[tuple[Sample, Line]] = []
    for item in items:
        sample = item.sample if isinstance(item.sample, Sample) else item.sample.read()
        pairs += [(sample, line) for line in item.lines]
    samples = [sample for sample, _ in pairs]
    try:
        batch = scorer.score(
            [line.text or "" for _, line in pairs],
            [sample.target for sample in samples],
            [sample.image for sample in samples],
            image_keys=[str(s.image) if isinstance(s.image, str | Path) else None for s in samples],
            # Answers are in pixels of the data's pictures, unless the line or the configuration says otherwise.
            model_sizes=None
            if scorer.config.model_size is not None
            else [line.model_size or sample.target.image_size for sample, line in pairs],
        )
    except ValueError as error:
        raise ValueError(_placed(str(error), pairs)) from error
    return [[line.number, row] for (_, line), row in zip(pairs, batch.rows(), strict=True)]


def _placed(message: str, pairs: Sequence[tuple[Sample, Line]]) -> str:
    """A message with the line's place where it has a row's number in the chunk."""

    def place(found: re.Match[str]) -> str:
        number = int(found[2])
        if number >= len(pairs):
            return found[0]
        return f"{pairs[number][1].place} (sample {pairs[number][0].id!r:.80}): its {found[1]}"

    return _ARGUMENT.sub(place, message, count=1)


class ScoresByLine:
    """The scores in a side file by the number of their line, one chunk in memory at a time.

    Args:
        side: the open side file.
    """

    def __init__(self, side: TextIO) -> None:
        self._side = side
        self._places = array("q")
        self._held: tuple[int, dict[int, Scores]] = (-1, {})
        for offset, results in offsets_of(side):
            for number, _ in results:
                self._places.extend([-1] * (number + 1 - len(self._places)))
                self._places[number] = offset

    def get(self, number: int) -> Scores | None:
        """The scores of a line; None where its sample was not looked at."""
        offset = self._places[number] if number < len(self._places) else -1
        if offset < 0:
            return None
        if self._held[0] != offset:
            self._held = (offset, dict(results_at(self._side, offset)))
        return self._held[1][number]


@dataclass
class Tally:
    """Means over the lines, of the similarities over those that have one, and how often each reason came."""

    config: RewardConfig
    columns: dict[tuple[str, str], array[float]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, scores: Scores) -> None:
        """Count a line."""
        self._add("total", "", scores["total"])
        for kind in ("terms", "similarity"):
            for name, value in scores[kind].items():
                self._add(kind, name, value)
        if scores["reason"] is not None:
            self.reasons[scores["reason"]] += 1

    def _add(self, kind: str, name: str, value: float | None) -> None:
        column = self.columns.setdefault((kind, name), array("d"))
        column.append(math.nan if value is None else value)

    def summary(self) -> dict[str, Any]:
        """The numbers of `--json`."""
        means = {key: _mean(column) for key, column in self.columns.items()}
        return {
            "n": len(self.columns.get(("total", ""), ())),
            "preset": self.config.name,
            "total": means.get(("total", "")),
            "terms": {name: means.get(("terms", name)) for name in self.config.terms},
            "similarity": {name: means.get(("similarity", name)) for name in ("roi", "aoi")},
            "reasons": dict(self.reasons.most_common()),
        }


def _mean(column: array[float]) -> float | None:
    finite = [value for value in column if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None
