"""The group advantage for any subclass of TRL's `GRPOTrainer`, and scoring that begins before TRL asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dpad_fast.ops.group_advantage import SCALES, group_advantage

if TYPE_CHECKING:
    from trl import GRPOTrainer
else:
    GRPOTrainer = object

TRL = "trl"  # leaves TRL's own advantages as they are
TRL_EPS = 1e-4  # TRL adds it to a standard deviation
# The TRL settings whose advantage each scale reproduces; a scale that TRL lacks takes the nearest for TRL's log lines.
TRL_SETTINGS: dict[str, dict[str, str]] = {
    "std": {"scale_rewards": "group", "multi_objective_aggregation": "sum_then_normalize"},
    "none": {"scale_rewards": "none", "multi_objective_aggregation": "sum_then_normalize"},
    "batch": {"scale_rewards": "batch", "multi_objective_aggregation": "sum_then_normalize"},
    "rloo": {"scale_rewards": "none", "multi_objective_aggregation": "sum_then_normalize"},
    "gdpo": {"scale_rewards": "group", "multi_objective_aggregation": "normalize_then_sum"},
    "gdpo-batch": {"scale_rewards": "group", "multi_objective_aggregation": "normalize_then_sum"},
}
_NOT_COLUMNS = ("prompt", "completion", "completion_ids")
# What TRL 1.16's `_generate` returns: the completions, and what a rollout function adds to the columns.
_GENERATED, _COMPLETIONS, _ADDED = 8, 3, 5


class GroupAdvantageMixin(GRPOTrainer):  # type: ignore[misc]
    """To be named before a `GRPOTrainer`: `class My(GroupAdvantageMixin, GRPOTrainer)`.

    The advantages come from `group_advantages`, on the rewards of all processes; nothing else of TRL's step changes.
    Reward functions of `TrlRewards.functions(async_=True)` begin to score as soon as there are completions, beside
    TRL's forward passes and the other reward functions.

    Args:
        *args: as for the trainer.
        advantage: `scale` of `dpad_fast.ops.group_advantage`, or "trl": TRL's own values, to the bit. "std", "none",
            "batch" and "gdpo-batch" are TRL's too, under the settings of `TRL_SETTINGS`, with float64 statistics.
        **kwargs: as for the trainer.

    Raises:
        ValueError: `advantage` is neither.
    """

    def __init__(self, *args: Any, advantage: str = "std", **kwargs: Any) -> None:
        if advantage not in (*SCALES, TRL):
            raise ValueError(f"advantage is {advantage!r:.80}; known: {', '.join((*SCALES, TRL))}")
        super().__init__(*args, **kwargs)
        self._advantage = advantage
        self._gathered: torch.Tensor | None = None  # [N, F] of all processes, from the last call
        self._columns: dict[str, list[Any]] | None = None  # of the step, while it is generated

    def group_advantages(self, rewards: torch.Tensor, group: int) -> torch.Tensor:
        """The advantages of a step; to be overridden by one that has a formula of its own.

        Args:
            rewards: [N, F] of all processes, one column per reward function; NaN where it gave None.
            group: rows of a group; neighbours form one.

        Returns:
            [N].
        """
        weights = self.reward_weights.to(rewards.device)
        return group_advantage(rewards, group, scale=self._advantage, eps=TRL_EPS, weights=weights)

    def _generate(self, prompts: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's generation; then the scoring begins, while TRL computes log-probabilities."""
        output = super()._generate(prompts, *args, **kwargs)
        columns, self._columns = self._columns, None
        # Another release may return something else, and a rollout function adds columns: then TRL's call begins it.
        if columns is None or not isinstance(output, tuple) or len(output) != _GENERATED or output[_ADDED]:
            return output
        begun: set[int] = set()
        for function in self.reward_funcs:
            begin, rewards = getattr(function, "begin", None), getattr(function, "rewards", None)
            if begin is not None and rewards is not None and id(rewards) not in begun:
                begun.add(id(rewards))
                begin(output[_COMPLETIONS], {"prompts": prompts, **columns})
        return output

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Keep the gathered rewards [N, F] that TRL normalises."""
        rewards: torch.Tensor = super()._calculate_rewards(*args, **kwargs)
        self._gathered = rewards
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's step, with the advantages of this process taken from `group_advantages`."""
        if getattr(self, "environments", None) is None:
            self._columns = {key: [example[key] for example in inputs] for key in inputs[0] if key not in _NOT_COLUMNS}
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        rewards, self._gathered = self._gathered, None
        if rewards is None:
            raise RuntimeError("TRL did not call _calculate_rewards; this version of TRL is not supported")
        if self._advantage == TRL:
            return output
        group = self.num_generations if self.model.training else self.num_generations_eval
        advantages = self.group_advantages(rewards, int(group))
        start = self.accelerator.process_index * len(inputs)
        output["advantages"] = advantages[start : start + len(inputs)].to(output["advantages"])
        logged = self._logs["advantages"]  # TRL has just appended its own
        for _ in range(min(len(logged), len(advantages))):
            logged.pop()
        logged.extend(advantages.tolist())
        return output
