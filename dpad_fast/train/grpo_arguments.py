"""A run's optimisation as TRL's `GRPOConfig` has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dpad_fast.train.config import TrainConfig
from dpad_fast.train.processes import count

if TYPE_CHECKING:
    from trl import GRPOConfig


def grpo_arguments(config: TrainConfig, weights: Sequence[float]) -> GRPOConfig:
    """TRL's `GRPOConfig` of a run.

    Args:
        config: the run; what `grpo.trl` holds goes before everything else.
        weights: one per reward function.

    Returns:
        The arguments.

    Raises:
        ValueError: for an entry of `grpo.trl` that TRL does not have, or of the wrong type; for a step that the
            processes of the run cannot share evenly.
    """
    from trl import GRPOConfig

    from dpad_fast.train.group_advantage_mixin import TRL_SETTINGS

    grpo = config.grpo
    cpu = config.device == "cpu"
    settings: dict[str, Any] = {
        "output_dir": config.out,
        "use_cpu": cpu,
        "bf16": not cpu and config.dtype in ("auto", "bfloat16"),
        "fp16": not cpu and config.dtype == "float16",
        "dataloader_pin_memory": not cpu,
        "remove_unused_columns": False,
        "per_device_train_batch_size": per_device(config, count()),
        "gradient_accumulation_steps": grpo.accumulate,
        "num_generations": grpo.generations,
        "max_completion_length": grpo.completion_tokens,
        "temperature": grpo.temperature,
        "learning_rate": grpo.learning_rate,
        "lr_scheduler_type": grpo.schedule,
        "warmup_steps": grpo.warmup_steps,
        "weight_decay": grpo.weight_decay,
        "max_grad_norm": grpo.clip_norm,
        "beta": grpo.beta,
        "loss_type": grpo.loss,
        "gradient_checkpointing": grpo.gradient_checkpointing,
        "reward_weights": list(weights),
        "shuffle_dataset": config.data.shuffle,
        "max_steps": config.steps,
        "seed": config.seed,
        "save_strategy": "steps",
        "save_steps": config.save_every,
        "save_total_limit": config.keep,
        "logging_steps": config.log_every,
        "report_to": [],
        "disable_tqdm": True,
        "log_level": "error",
        **TRL_SETTINGS[grpo.advantage],
        **config.vllm.arguments(),
        **_sharding(config),
    }
    known = GRPOConfig.__dataclass_fields__
    for name in grpo.trl:
        if name not in known:
            raise ValueError(f"grpo.trl.{name} is not a field of TRL's GRPOConfig")
    try:
        return GRPOConfig(**{**settings, **grpo.trl})
    except TypeError as error:
        raise ValueError(f"grpo.trl holds a value of the wrong type: {error}") from error


def per_device(config: TrainConfig, processes: int) -> int:
    """Completions of one backward pass of one process: a step is shared by the processes that a launcher started.

    Args:
        config: the run.
        processes: how many share it.

    Returns:
        The number.

    Raises:
        ValueError: for a step that they cannot share evenly.
    """
    grpo = config.grpo
    rows = grpo.queries * grpo.generations
    if rows % (processes * grpo.accumulate):
        raise ValueError(
            f"grpo.queries x grpo.generations = {rows} completions a step cannot be shared evenly by {processes} "
            f"processes with grpo.accumulate {grpo.accumulate}"
        )
    return rows // (processes * grpo.accumulate)


def _sharding(config: TrainConfig) -> dict[str, Any]:
    grpo = config.grpo
    if grpo.deepspeed:
        return {"deepspeed": grpo.deepspeed}
    if not grpo.fsdp:
        return {}
    try:
        settings = yaml.safe_load(Path(grpo.fsdp).read_text(encoding="utf-8"))  # JSON is YAML
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"grpo.fsdp: {grpo.fsdp} cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"grpo.fsdp: {grpo.fsdp} must hold a mapping of settings, got {type(settings).__name__}")
    return {"fsdp": True, "fsdp_config": settings}
