"""TRL's `GRPOTrainer` with dpad-fast's group advantage; everything else that TRL and Accelerate bring is unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from trl import GRPOTrainer

from dpad_fast.ops.group_advantage import SCALES, group_advantage
from dpad_fast.train import decode
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


def _padded(prompt_ids: list[list[int]], fields: Mapping[str, Any], pad: int) -> dict[str, torch.Tensor]:
    """Prompts padded on the left, with the processor's other outputs as tensors."""
    longest = max(len(ids) for ids in prompt_ids)

    def left(rows: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([[value] * (longest - len(row)) + list(row) for row in rows])

    inputs = {"input_ids": left(prompt_ids, pad), "attention_mask": left([[1] * len(ids) for ids in prompt_ids], 0)}
    for name, value in fields.items():
        ragged = isinstance(value, list) and isinstance(value[0], list) and len(value) == len(prompt_ids)
        if ragged and len(value[0]) == len(prompt_ids[0]):  # one number per token of the prompt
            inputs[name] = left(value, 0)
        else:
            inputs[name] = value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))
    return inputs


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
            raise ValueError(f"advantage is {advantage!r}; known: {', '.join(SCALES)}")
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

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, multimodal_fields: Any, num_generations: int, **others: Any
    ) -> tuple[list[list[int]], Any]:
        """TRL's generation; for small models on a CPU, and plain sampling, our own loop over the same weights."""
        plain = self.top_p == 1.0 and not self.top_k and not self.min_p and self.repetition_penalty == 1.0
        backend = self.use_vllm or self.use_transformers_continuous_batching or self.tools
        one_image = images is not None and all(row is not None and len(row) == 1 for row in images)
        if not plain or backend or not one_image or self.args.generation_kwargs or not decode.supports(self.model):
            generated: tuple[list[list[int]], Any] = super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, **others
            )
            return generated
        inputs = _padded(prompt_ids, multimodal_fields, self._tokenizer.pad_token_id)
        drawn = decode.sample(
            self.model,
            inputs,
            max_new_tokens=self.max_completion_length,
            eos_ids=self.eos_token_ids,
            temperature=self.temperature,
            suppress=[self.model.config.image_token_id],  # as TRL does: it would have no image features
        )
        return drawn, None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load a checkpoint's weights by their names in memory; see `restore_weights`."""
        model = self.model if model is None else model
        if self.is_fsdp_enabled or not isinstance(model, PreTrainedModel):  # FSDP shards, PEFT adapters: not renamed
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        restore_weights(model, Path(resume_from_checkpoint))

    def _send_telemetry(self) -> None:
        """Training with this package tells nobody."""
