"""`Scorer`: what everything that scores rows has in common, wherever it runs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Protocol

from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.spaces import ModelSizes
from dpad_fast.types import ScoreBatch, Target


class Scorer(Protocol):
    """A `RewardScorer`, a `RemoteScorer`, or what wraps one. `RewardScorer.score` says what the arguments are."""

    @property
    def config(self) -> RewardConfig:
        """Which terms are scored, and how."""
        ...

    def score(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None = None,
        image_keys: Sequence[Hashable] | None = None,
        model_sizes: ModelSizes | None = None,
        on_error: str = "raise",
    ) -> ScoreBatch:
        """Scores N completions."""
        ...
