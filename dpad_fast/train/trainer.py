"""TRL's `GRPOTrainer` with dpad-fast's group advantage; everything else that TRL and Accelerate bring is unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from trl import GRPOTrainer

from dpad_fast.ops.group_advantage import SCALES, group_advantage
from dpad_fast.train.resume import restore_weights
from dpad_fast.train.shared_vision import share_vision

TRL_EPS = 1e-4  # what TRL adds to a standard deviation
# The TRL settings whose advantage each scale reproduces; what TRL lacks borrows the nearest for its log lines.
TRL_SETTINGS: dict[str, dict[str, str]] = {
    "std": {"scale_rewards": "group", "multi_objective_aggregation": "sum_then_normalize"},
    "none": {"scale_rewards": "none", "multi_objective_aggregation": "sum_then_normalize"},
    "batch": {"scale_rewards": "batch", "multi_objective_aggregation": "sum_then_normalize"},
    "rloo": {"scale_rewards": "none", "multi_objective_aggregation": "sum_then_normalize"},
    "gdpo": {"scale_rewards": "group", "multi_objective_aggregation": "normalize_then_sum"},
    "gdpo-batch": {"scale_rewards": "group", "multi_objective_aggregation": "normalize_then_sum"},
}


class DpadTrainer(GRPOTrainer):  # type: ignore[misc]
    """`GRPOTrainer` whose advantages come from `dpad_fast.ops.group_advantage`.

    Args:
        *args: as for `GRPOTrainer`.
        advantage: `scale` of `group_advantage`. "std", "none", "batch" and "gdpo-batch" give TRL's own values.
        share_images: run the vision tower once per distinct image of a batch (models of the Qwen2-VL family, on CPU).
        **kwargs: as for `GRPOTrainer`.

    Raises:
        ValueError: if `advantage` is not a scale of `group_advantage`.
    """

    def __init__(self, *args: Any, advantage: str = "std", share_images: bool = False, **kwargs: Any) -> None:
        if advantage not in SCALES:
            raise ValueError(f"advantage is {advantage!r:.80}; known: {', '.join(SCALES)}")
        super().__init__(*args, **kwargs)
        self._advantage = advantage
        self._gathered: torch.Tensor | None = None  # [N, F] of all processes, from the last call
        if share_images:
            for model in (self.model, self.ref_model):
                share_vision(model)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        """Keep the gathered rewards [N, F] that TRL normalises."""
        rewards: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._gathered = rewards
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's step, with the advantages of this process taken from our op."""
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        rewards, self._gathered = self._gathered, None
        if rewards is None:
            raise RuntimeError("TRL did not call _calculate_rewards; this version of TRL is not supported")
        group = self.num_generations if self.model.training else self.num_generations_eval
        advantages = group_advantage(
            rewards, int(group), scale=self._advantage, eps=TRL_EPS, weights=self.reward_weights.to(rewards.device)
        )
        start = self.accelerator.process_index * len(inputs)
        output["advantages"] = advantages[start : start + len(inputs)].to(output["advantages"])
        logged = self._logs["advantages"]  # TRL has just appended its own
        for _ in range(min(len(logged), len(advantages))):
            logged.pop()
        logged.extend(advantages.tolist())
        return output

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load a checkpoint's weights by their names in memory; see `restore_weights`."""
        model = self.model if model is None else model
        if self.is_fsdp_enabled or not isinstance(model, PreTrainedModel):  # FSDP shards, PEFT adapters: not renamed
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        restore_weights(model, Path(resume_from_checkpoint))

    def _send_telemetry(self) -> None:
        """Training with this package tells nobody."""
