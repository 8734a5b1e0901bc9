"""Rewards that stand in R_dpad's place in the demo's controls; see `extra_rewards` in a training configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpad_fast.data import shapes
from dpad_fast.data.shapes_text import named_shape
from dpad_fast.rewards import RewardScorer, parse_completion
from dpad_fast.train.reward_functions import RewardFunction, completion_texts


def names_any_object(scorer: RewardScorer) -> RewardFunction:
    """The control of setting J: 1 where the caption names any one object of the scene, be it the target or not.

    Args:
        scorer: its configuration says how completions are read, and whether a format failure zeroes the bonus.

    Returns:
        A reward function for TRL, for data with shapes-world ids.
    """
    config = scorer.config

    def names_any_object(*, completions: Sequence[Any], id: Sequence[str], **columns: Any) -> list[float | None]:
        rewards: list[float | None] = []
        for text, identifier in zip(completion_texts(completions), id, strict=True):
            answer = parse_completion(text, config)
            named = named_shape(answer.caption or "", shapes.from_id(identifier).scene.objects)
            well_formed = answer.tags_ok and answer.fields_ok
            rewards.append(float(named is not None and (well_formed or not config.gate)))
        return rewards

    return names_any_object
