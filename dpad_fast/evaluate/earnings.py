"""What an answer would earn under each preset, where its picture and ground truth are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dpad_fast.evaluate.results import Row, number, size_of
from dpad_fast.ops.discriminative_reward import reward_of
from dpad_fast.rewards import PRESETS, RewardConfig, RewardScorer
from dpad_fast.types import Sample, Size, Target

if TYPE_CHECKING:
    from dpad_fast.clip import ClipEncoder

_TERM = "discriminative"


class Earnings:
    """Scores answers under every preset.

    Args:
        encoder: for the discriminative term. None: it is made of the record's S1 and S2 where it has them, and left out
            elsewhere, which is said.
    """

    def __init__(self, encoder: ClipEncoder | None = None) -> None:
        self._encoder = encoder
        self._scorers: dict[tuple[str, str, Size | None, bool], tuple[RewardConfig, RewardScorer]] = {}

    def of(self, row: Row, sample: Sample | None, reader: RewardConfig) -> dict[str, dict[str, Any]]:
        """What one answer would earn.

        Args:
            row: its record.
            sample: what it is about, or None where that is not known.
            reader: how its coordinates are read.

        Returns:
            By preset {"total", "terms"}, with "left_out" where a term is; or {"why"} where it cannot be scored.
        """
        return {name: self._under(name, row, sample, reader) for name in PRESETS}

    def _under(self, name: str, row: Row, sample: Sample | None, reader: RewardConfig) -> dict[str, Any]:
        if sample is None:
            return {"why": "the sample is not known: give --data"}
        if not isinstance(row.get("text"), str):
            return {"why": "the record has no text"}
        config, scorer = self._scorer(name, reader, sample.target.points is not None)
        if config.needs_encoder and self._encoder is not None and sample.image is None:
            return {"why": "the picture is not there"}
        target = _target(sample.target, config)
        if isinstance(target, str):
            return {"why": target}
        seen = size_of(row.get("model_size")) or config.model_size or target.image_size
        batch = scorer.score(
            [row["text"]],
            [target],
            [sample.image] if scorer.config.needs_encoder else None,
            model_sizes=[seen] if config.coordinates == "pixel" else None,
            on_error="row",
        )
        found = next(batch.rows())
        if "error" in found:
            return {"why": found["error"]}
        terms = dict(found["terms"])
        total, left_out = float(found["total"]), [term for term in config.terms if term not in terms]
        if _TERM in left_out and (value := measured_discriminative(row, terms, config)) is not None:
            left_out.remove(_TERM)
            terms[_TERM], total = value, total + config.weight(_TERM) * value
        earned = {"total": round(total, 4), "terms": terms}
        return earned | {"left_out": left_out} if left_out else earned

    def _scorer(self, name: str, reader: RewardConfig, has_points: bool) -> tuple[RewardConfig, RewardScorer]:
        """The preset, and a scorer of those of its terms that can be scored."""
        key = (name, reader.coordinates, reader.model_size, has_points)
        if key not in self._scorers:
            config = RewardConfig.preset(name, coordinates=reader.coordinates, model_size=reader.model_size)
            out = ([] if has_points else ["point_l1"]) + ([_TERM] if self._encoder is None else [])
            used = replace(config, terms=tuple(term for term in config.terms if term not in out))
            self._scorers[key] = config, RewardScorer(used, self._encoder if used.needs_encoder else None)
        return self._scorers[key]


def _target(target: Target, config: RewardConfig) -> Target | str:
    """The target as a preset asks for it, or why there is none."""
    if config.answer != "objects" or target.objects:
        return target if config.answer == "objects" or target.box is not None else "the target has no box"
    if target.box is None or target.points is None:
        return "the target has no box and point"
    return replace(target, objects=((target.box, target.points[0]),))


def measured_discriminative(row: Row, terms: Mapping[str, float | None], config: RewardConfig) -> float | None:
    """The discriminative term of the S1 and S2 that a record holds.

    Args:
        row: the record.
        terms: its format terms.
        config: its gate and shape.

    Returns:
        The term, 0 where the gate is shut; None where the record has no S1 and S2.
    """
    if config.gate and any((terms.get(name) or 0.0) < 1 for name in ("think_format", "answer_format")):
        return 0.0
    s1, s2 = number(row.get("s1")), number(row.get("s2"))
    if s1 is None or s2 is None:
        return None
    import torch

    return float(reward_of(torch.tensor(s1), torch.tensor(s2), shape=config.shape, alpha=config.alpha, tau=config.tau))
