"""`ScoredRow`: what one completion got, for callers that hand in one at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from dpad_fast.rewards.reasons import MALFORMED
from dpad_fast.types import ScoreBatch


@dataclass(frozen=True, eq=False)
class ScoredRow:
    """What one completion got.

    Attributes:
        total: the weighted sum of the terms; NaN where the row was left unscored.
        terms: each term, unweighted, in the order of the configuration.
        similarity: "roi" (S1) and "aoi" (S2); NaN where nothing was compared.
        reason: a short code, None where nothing is wrong and no term is zero.
        error: why the row was left unscored, or None.
    """

    total: float
    terms: dict[str, float]
    similarity: dict[str, float]
    reason: str | None
    error: str | None

    @classmethod
    def of(cls, batch: ScoreBatch, i: int) -> ScoredRow:
        """Row i of a batch."""

        def only(column: torch.Tensor) -> float:
            return float(column[i])

        return cls(
            only(batch.total),
            {name: only(column) for name, column in batch.terms.items()},
            {name: only(column) for name, column in batch.similarity.items()},
            batch.reasons[i],
            batch.errors[i] if batch.errors else None,
        )

    def for_log(self) -> dict[str, float | str]:
        """A flat row with the same keys for every completion of a configuration.

        Some trainers take the keys of the first sample for all.

        Returns:
            "total", every term, "s1" and "s2" (NaN where there is none), "s1_over_s2", "malformed" and "unscored" (0 or
            1), "reason" and "error" (text, empty where there is none).
        """
        roi, aoi = self.similarity["roi"], self.similarity["aoi"]
        return {
            "total": self.total,
            **self.terms,
            "s1": roi,
            "s2": aoi,
            "s1_over_s2": float(roi > aoi),
            "malformed": float(self.reason in MALFORMED),
            "unscored": float(math.isnan(self.total)),
            "reason": self.reason or "",
            "error": self.error or "",
        }
