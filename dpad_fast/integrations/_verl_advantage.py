"""The group advantage in the form of verl's estimators."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from dpad_fast.ops.group_advantage import group_advantage

_ADVANTAGE = ("scale", "eps", "singleton")
_SCALES = ("std", "none", "batch", "rloo")


def dpad_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    config: Any = None,
    index: Sequence[Hashable] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`group_advantage` in the form of verl's estimators; `algorithm.adv_estimator=dpad` uses it.

    Args:
        token_level_rewards: float [N, T].
        response_mask: [N, T], 1 where a token counts.
        config: verl's `algorithm`: `norm_adv_by_std_in_grpo`, and a mapping `dpad` with `scale` ("std", "none",
            "batch", "rloo"), `eps` (1e-6) and `singleton` ("reward", as verl's GRPO; "zero").
        index: N ids; rows of equal ids are one group.

    Returns:
        Advantages and returns, the same float [N, T]. A group with a NaN reward goes on without it. A group without a
        token that counts, as verl adds to fill a batch, is in no statistic.

    Raises:
        ValueError: there are no ids, or an unknown setting.
    """
    if index is None:
        raise ValueError("index is missing: the batch has no uid, so that groups are not known")
    normed = True if config is None else config.get("norm_adv_by_std_in_grpo", True)
    given = {} if config is None else dict(config.get("dpad", None) or {})
    for name in given:
        if name not in _ADVANTAGE:
            raise ValueError(f"unknown setting algorithm.dpad.{name:.80}; known: {', '.join(_ADVANTAGE)}")
    settings = {"scale": "std" if normed else "none", "eps": 1e-6, "singleton": "reward", **given}
    if settings["scale"] not in _SCALES:
        raise ValueError(f"algorithm.dpad.scale must be one of {', '.join(_SCALES)}, got {settings['scale']!r:.80}")
    if isinstance(settings["eps"], bool) or not isinstance(settings["eps"], int | float):
        raise ValueError(f"algorithm.dpad.eps must be a number, got {settings['eps']!r:.80}")
    groups = list(index)
    rewards = token_level_rewards.sum(dim=-1)
    if settings["scale"] == "batch":  # the only statistic that looks beyond the group
        rewards = _without_empty_groups(rewards, response_mask, groups)
    advantages = group_advantage(rewards, groups, token_mask=response_mask, **settings)
    return advantages, advantages


def _without_empty_groups(rewards: torch.Tensor, mask: torch.Tensor, groups: list[Hashable]) -> torch.Tensor:
    """The rewards, NaN in groups whose rows are all masked."""
    some = (mask != 0).any(dim=-1).tolist()
    alive = {group for group, has in zip(groups, some, strict=True) if has}
    empty = torch.tensor([group not in alive for group in groups], device=rewards.device)
    return rewards.masked_fill(empty, float("nan"))
