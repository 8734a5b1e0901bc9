"""The configuration of a training run: typed, one line of documentation per field, read from YAML.

A file holds the fields of `TrainConfig`; `data`, `grpo`, `lora`, `vllm` and `evaluation` are sections of their own
(`sections.py`), and `rewards` is what `RewardConfig.from_dict` takes. Unknown keys are rejected by name, with the
nearest known one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dpad_fast.rewards import RewardConfig
from dpad_fast.train.extra_rewards import place_of
from dpad_fast.train.reading import read_settings, section
from dpad_fast.train.sections import (
    DATA_KINDS,
    DataConfig,
    EvaluationConfig,
    GrpoConfig,
    HeldOutConfig,
    LoraConfig,
    VllmConfig,
    check_attention,
    check_choice,
)

__all__ = [
    "DATA_KINDS",
    "DEVICES",
    "SCENES_PER_SEED",
    "DataConfig",
    "EvaluationConfig",
    "GrpoConfig",
    "HeldOutConfig",
    "LoraConfig",
    "TrainConfig",
    "VllmConfig",
    "from_dict",
    "load",
]

DEVICES = ("cpu", "auto")
DTYPES = ("auto", "float32", "bfloat16", "float16")
SCENES_PER_SEED = 1_000_000  # runs with different seeds see different scenes of the same world
# The smallest value of every number that has one; sections by their names.
LEAST: dict[str, float] = {
    **dict.fromkeys(("steps", "save_every", "keep", "log_every"), 1),
    **dict.fromkeys(("grpo.queries", "grpo.generations", "grpo.completion_tokens", "grpo.accumulate"), 1),
    **dict.fromkeys(("threads", "seed", "data.seed", "data.limit", "grpo.warmup_steps"), 0),
    **dict.fromkeys(("evaluation.scenes", "evaluation.seed", "evaluation.show", "evaluation.every"), 0),
    **dict.fromkeys(("grpo.learning_rate", "grpo.weight_decay", "grpo.clip_norm", "grpo.beta"), 0),
    **dict.fromkeys(("epochs", "min_pixels", "max_pixels", "lora.r", "lora.alpha", "lora.dropout"), 0),
    **dict.fromkeys(("evaluation.data.limit", "vllm.max_model_length"), 0),
    **dict.fromkeys(("vllm.server_port", "vllm.group_port", "vllm.tensor_parallel_size"), 1),
    "evaluation.samples": 1,
}
# Settings that change no result, and those that came later: a run from before has the fingerprint that it had.
_NO_RESULT = ("out", "name", "save_every", "keep", "log_every", "threads", "tensorboard", "encoder_cache")
_LATER = (
    *("dtype", "attention", "epochs", "min_pixels", "max_pixels", "image_processor", "check_coordinates"),
    *("lora", "vllm", "grpo.paired_sampling", "grpo.vision_tower", "grpo.frozen", "grpo.deepspeed", "grpo.fsdp"),
    *("data.images", "data.columns", "data.bad_rows", "data.system_prompt", "data.shuffle"),
    *("evaluation.every", "evaluation.segmenter", "evaluation.encoder", "evaluation.data"),
)


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    name: str = "run"  # names the run in logs and tables
    policy: str = "policy-e"  # a shipped checkpoint, a folder, or a name that transformers can resolve
    dtype: str = "auto"  # of the weights: "float32", "bfloat16", "float16"; auto is float32 on CPU, else bfloat16
    attention: str = ""  # "sdpa", "eager", "flash_attention_2", "flash_attention_3" or hub kernels; the model's own
    min_pixels: int = 0  # smallest area of a picture for a policy of the Qwen-VL families; 0 for the processor's own
    max_pixels: int = 0  # largest area, as min_pixels
    image_processor: Mapping[str, Any] = field(default_factory=dict)  # settings of another family's picture processor
    check_coordinates: bool = True  # refuse rewards.coordinates that are not the policy's family's
    lora: LoraConfig = field(default_factory=LoraConfig)  # adapters in place of all weights
    encoder: str = "clip"  # the CLIP of R_dpad: a shipped checkpoint, a folder or a name
    encoder_backend: str = "transformers"  # "transformers" or "open_clip"
    encoder_cache: str = ""  # folder that keeps embeddings of pictures; out/embeddings where processes share a run
    encoder_precision: str = "float32"  # "float32", "bfloat16" or "guarded"
    steps: int = 60  # optimiser steps
    epochs: float = 0.0  # passes over the data, which then say the steps; 0 for `steps`
    seed: int = 0  # of prompts, sampling and everything else
    out: str = "runs/run"  # checkpoints, logs and result.json
    save_every: int = 10  # steps between checkpoints
    keep: int = 2  # checkpoints kept
    log_every: int = 1  # steps between log lines
    threads: int = 1  # CPU threads of torch; 0 leaves torch's choice
    device: str = "cpu"  # "cpu", or "auto" for what accelerate finds
    tensorboard: bool = True  # write TensorBoard event files to out/tensorboard
    extra_rewards: tuple[str, ...] = ()  # beside the scorer's: "names_any_object" (shapes only), MODULE:FUNCTION
    extra_weights: tuple[float, ...] = ()  # one per extra reward; 1 each when empty
    rewards: Mapping[str, Any] = field(default_factory=lambda: {"preset": "dpad"})  # see RewardConfig
    data: DataConfig = field(default_factory=DataConfig)  # the prompts
    grpo: GrpoConfig = field(default_factory=GrpoConfig)  # the optimisation
    vllm: VllmConfig = field(default_factory=VllmConfig)  # sampling by vLLM
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)  # before, during and after

    def __post_init__(self) -> None:
        check_choice("device", self.device, DEVICES)
        check_choice("dtype", self.dtype, DTYPES)
        check_attention(self.attention)
        for name in self.extra_rewards:
            place_of(name)
        if self.extra_weights and len(self.extra_weights) != len(self.extra_rewards):
            raise ValueError(
                f"extra_weights has {len(self.extra_weights)} entries for {len(self.extra_rewards)} extra_rewards"
            )
        for name, least in LEAST.items():
            value = operator.attrgetter(name)(self)
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.data.check()
        self.grpo.check()
        self.lora.check(self.grpo.frozen_parts)
        self.vllm.check()
        self.evaluation.check()
        self._check_together()
        self.reward_config()

    def _check_together(self) -> None:
        """Refuse settings of several sections that contradict each other."""
        shapes = self.data.kind == "shapes"
        if shapes and self.measures_scenes and self.evaluation.seed == self.data.seed:
            raise ValueError(
                f"evaluation.seed and data.seed are both {self.data.seed}: it would test on what it trains on"
            )
        prompts = self.steps * self.grpo.queries
        if shapes and self.epochs:
            raise ValueError("epochs is set, but the shapes world has no end: set steps")
        if shapes and prompts > SCENES_PER_SEED:
            raise ValueError(
                f"steps x grpo.queries is {prompts} prompts; the shapes world has {SCENES_PER_SEED} a seed"
            )
        if self.grpo.paired_sampling and self.vllm.mode != "off":
            raise ValueError(f"grpo.paired_sampling is set, but with vllm.mode {self.vllm.mode!r} vLLM samples")
        if self.evaluation.every and (self.grpo.fsdp or self.grpo.deepspeed):
            raise ValueError(
                "evaluation.every is set with grpo.fsdp or grpo.deepspeed: a sharded policy cannot be sampled by each "
                "process for itself; it is measured before and after training"
            )
        if self.evaluation.every and not self.measures:
            raise ValueError("evaluation.every is set, but there is nothing to measure on: set evaluation.data.path")
        if self.evaluation.every and (self.grpo.deepspeed or self.grpo.fsdp):
            raise ValueError("evaluation.every is set, but a sharded policy cannot be sampled between its steps")
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels is {self.min_pixels}, above max_pixels {self.max_pixels}")
        if self.device == "cpu":
            for name in ("grpo.deepspeed", "grpo.fsdp"):
                if operator.attrgetter(name)(self):
                    raise ValueError(f"{name} is set, but device is cpu: set device to auto")
            if self.vllm.mode != "off":
                raise ValueError("vllm.mode is set, but device is cpu: set device to auto")
            if self.attention.startswith("flash"):
                raise ValueError(f"attention {self.attention!r} needs a GPU, but device is cpu: set device to auto")
        if self.attention.startswith("flash") and self.dtype == "float32":
            raise ValueError(f"attention {self.attention!r} needs dtype bfloat16 or float16, got float32")

    @property
    def measures_scenes(self) -> bool:
        """Whether the policy is measured on scenes of the shapes world."""
        return self.data.kind == "shapes" and self.evaluation.scenes > 0 and not self.evaluation.data.path

    @property
    def measures(self) -> bool:
        """Whether the policy is measured on anything."""
        return self.measures_scenes or bool(self.evaluation.data.path)

    def reward_config(self) -> RewardConfig:
        """The scorer's configuration.

        Raises:
            ValueError: for an unknown or contradictory setting in `rewards`.
        """
        try:
            return RewardConfig.from_dict(dict(self.rewards))
        except ValueError as error:
            raise ValueError(f"rewards: {error}") from error
        except TypeError as error:
            raise ValueError(f"rewards: a setting has a value of the wrong type ({error})") from error

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries and lists, for JSON and YAML."""
        return typing.cast("dict[str, Any]", json.loads(json.dumps(dataclasses.asdict(self))))

    def fingerprint(self) -> str:
        """Changes with every setting that changes the result; `out`, logging and saving do not."""
        plain, usual = self.as_dict(), TrainConfig().as_dict()
        plain["data"]["split"] = plain["data"]["split"] or "train"  # as it was called before it could be empty
        if self.epochs:  # the data says the steps
            del plain["steps"]
        for name in _NO_RESULT:
            del plain[name]
        for name in _LATER:
            where, _, last = name.rpartition(".")
            inside, default = (plain[where], usual[where]) if where else (plain, usual)
            if inside[last] == default[last]:
                del inside[last]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def load(path: str | Path, overrides: Iterable[str] = ()) -> TrainConfig:
    """Read a configuration file.

    Args:
        path: a YAML file. Its key `base` may name another file, relative to it, whose settings it changes.
        overrides: texts of the form `rewards.shape=margin`; values are read as YAML.

    Returns:
        The configuration.

    Raises:
        ValueError: for an unknown key, a wrong type or a value out of range; names the key.
        FileNotFoundError: if there is no such file.
    """
    return from_dict(read_settings(path, overrides))


def from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """A configuration from plain dictionaries; unknown keys are rejected by name.

    Args:
        values: the fields of `TrainConfig`, sections as dictionaries.

    Returns:
        The configuration.

    Raises:
        ValueError: for an unknown key, a wrong type or a value out of range; names the key.
    """
    made: TrainConfig = section(TrainConfig, values, "")
    return made
