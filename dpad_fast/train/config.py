"""The configuration of a training run: typed, one line of documentation per field, read from YAML.

A file holds the fields of `TrainConfig`; `data`, `grpo` and `evaluation` are sections of their own, and `rewards` is
what `RewardConfig.from_dict` takes. Unknown keys are rejected by name, with the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import operator
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dpad_fast.rewards import RewardConfig
from dpad_fast.train.extra_rewards import place_of

DATA_KINDS = ("shapes", "dataset")
DEVICES = ("cpu", "auto")
SCENES_PER_SEED = 1_000_000  # runs with different seeds see different scenes of the same world
BELOW = 2**31  # every whole number: what torch, NumPy and the Trainer all take as a size or a seed
# The smallest value of every number that has one; sections by their names.
LEAST: dict[str, float] = {
    **dict.fromkeys(("steps", "save_every", "keep", "log_every"), 1),
    **dict.fromkeys(("grpo.queries", "grpo.generations", "grpo.completion_tokens", "grpo.accumulate"), 1),
    **dict.fromkeys(("threads", "seed", "data.seed", "data.limit", "grpo.warmup_steps"), 0),
    **dict.fromkeys(("evaluation.scenes", "evaluation.seed", "evaluation.show"), 0),
    **dict.fromkeys(("grpo.learning_rate", "grpo.weight_decay", "grpo.clip_norm", "grpo.beta"), 0),
    "evaluation.samples": 1,
}
REMOVED = {"save_model": "is gone: it was never read; the trained policy is always kept in out/policy"}


@dataclass(frozen=True)
class DataConfig:
    """Where the prompts come from."""

    kind: str = "shapes"  # "shapes" (made on the fly) or "dataset" (a `datasets` folder or name)
    seed: int = 1  # the shapes world to train on; held-out scenes come from another one
    path: str = ""  # for "dataset": a folder of `save_to_disk`, or a name that `load_dataset` takes
    split: str = "train"  # for "dataset": which split
    question: str = "problem"  # for "dataset": column with the question
    solution: str = "solution"  # for "dataset": column with the ground truth text
    image: str = "image"  # for "dataset": column with the image
    id: str = "id"  # for "dataset": column that identifies the image; rows are numbered where it is missing
    prompt: str = "{question}"  # the user's turn; {question} is replaced
    limit: int = 0  # for "dataset": use only so many rows; 0 for all


@dataclass(frozen=True)
class GrpoConfig:
    """The optimisation, in the words of the papers; `trl` passes anything else on to TRL's `GRPOConfig`."""

    queries: int = 8  # prompts per step
    generations: int = 8  # completions per prompt, G
    completion_tokens: int = 100  # longest completion
    temperature: float = 1.0  # of sampling
    learning_rate: float = 1e-4  # of AdamW
    schedule: str = "linear"  # of the learning rate: "linear" to zero, "constant", "cosine"
    warmup_steps: int = 0  # steps of linear warm-up
    weight_decay: float = 0.0  # of AdamW
    clip_norm: float = 1.0  # largest norm of the gradient
    beta: float = 0.02  # weight of the KL term against the starting policy; 0 for none
    loss: str = "grpo"  # TRL's loss_type
    advantage: str = "std"  # `scale` of ops.group_advantage: std, none, batch, rloo, gdpo or gdpo-batch
    freeze_vision: bool = True  # leave the vision tower as it is
    vision_tower: str = ""  # its name in the policy, such as model.vision_model; found by itself in the known families
    accumulate: int = 1  # split a step into so many backward passes, for memory
    gradient_checkpointing: bool = False  # trade time for memory
    trl: Mapping[str, Any] = field(default_factory=dict)  # further fields of TRL's GRPOConfig


@dataclass(frozen=True)
class EvaluationConfig:
    """Measuring before and after training, by sampling."""

    scenes: int = 256  # held-out scenes; 0 for no evaluation
    samples: int = 1  # completions per scene
    seed: int = 9000  # the shapes world of the held-out scenes; not data.seed
    show: int = 8  # sampled completions kept for the report


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    name: str = "run"  # names the run in logs and tables
    policy: str = "policy-e"  # a shipped checkpoint, a folder, or a name that transformers can resolve
    encoder: str = "clip"  # the CLIP of R_dpad: a shipped checkpoint, a folder or a name
    encoder_backend: str = "transformers"  # "transformers" or "open_clip"
    encoder_precision: str = "float32"  # "float32", "bfloat16" or "guarded"
    steps: int = 60  # optimiser steps
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
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)  # before and after

    def __post_init__(self) -> None:
        _check_choice("data.kind", self.data.kind, DATA_KINDS)
        _check_choice("device", self.device, DEVICES)
        for name in self.extra_rewards:
            place_of(name)
        if self.extra_weights and len(self.extra_weights) != len(self.extra_rewards):
            raise ValueError(
                f"extra_weights has {len(self.extra_weights)} entries for {len(self.extra_rewards)} extra_rewards"
            )
        if self.data.kind == "dataset" and not self.data.path:
            raise ValueError("data.path is empty: data.kind 'dataset' needs a folder or a name")
        if self.data.kind == "shapes" and self.evaluation.scenes and self.evaluation.seed == self.data.seed:
            raise ValueError(
                f"evaluation.seed and data.seed are both {self.data.seed}: it would test on what it trains on"
            )
        for name, least in LEAST.items():
            value = operator.attrgetter(name)(self)
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        prompts = self.steps * self.grpo.queries
        if self.data.kind == "shapes" and prompts > SCENES_PER_SEED:
            raise ValueError(
                f"steps x grpo.queries is {prompts} prompts; the shapes world has {SCENES_PER_SEED} a seed"
            )
        if self.grpo.temperature <= 0:
            raise ValueError(f"grpo.temperature must be above 0, got {self.grpo.temperature}")
        if self.grpo.generations < 2:
            raise ValueError("grpo.generations must be at least 2: an advantage compares a completion with its group")
        if self.grpo.queries * self.grpo.generations % self.grpo.accumulate:
            raise ValueError(
                f"grpo.accumulate {self.grpo.accumulate} does not divide queries x generations = "
                f"{self.grpo.queries * self.grpo.generations}"
            )
        self.reward_config()

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
        plain = dataclasses.asdict(self)
        plain["extra_rewards"], plain["extra_weights"] = list(self.extra_rewards), list(self.extra_weights)
        return typing.cast("dict[str, Any]", json.loads(json.dumps(plain)))

    def fingerprint(self) -> str:
        """Changes with every setting that changes the result; `out`, logging and saving do not."""
        plain = self.as_dict()
        for name in ("out", "name", "save_every", "keep", "log_every", "threads", "tensorboard"):
            del plain[name]
        if not self.grpo.vision_tower:  # runs from before there was this setting have the same fingerprint
            del plain["grpo"]["vision_tower"]
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
    values = _read(Path(path), seen=())
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {text!r:.80} is not of the form key=value")
        try:
            _assign(values, key.strip().split("."), _yaml(value))
        except (yaml.YAMLError, RecursionError) as error:
            raise ValueError(f"--set {key:.80}: {_short(value)} is not valid YAML") from error
    return from_dict(values)


def from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """A configuration from plain dictionaries; unknown keys are rejected by name.

    Args:
        values: the fields of `TrainConfig`, sections as dictionaries.

    Returns:
        The configuration.

    Raises:
        ValueError: for an unknown key, a wrong type or a value out of range; names the key.
    """
    made: TrainConfig = _section(TrainConfig, values, "")
    return made


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise ValueError(f"{path}: the files' base keys go in a circle")
    try:
        values = _yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping of settings, got {type(values).__name__}")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ValueError(f"{path}: base must name a file, got {_short(base)}")
    merged = _read(path.parent / base, (*seen, path))
    _merge(merged, values)
    return merged


def _yaml(text: str) -> Any:
    """What the text holds; a date of no calendar or a number of thousands of digits is no valid YAML either."""
    try:
        return yaml.safe_load(text)
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise yaml.YAMLError(str(error)) from error


def _short(value: Any) -> str:
    """A value as a message shows it."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python prints
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _assign(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        step = values.setdefault(key, {})
        if not isinstance(step, dict):
            raise ValueError(f"--set {'.'.join(keys):.80}: {key:.80} is not a section")
        values = step
    values[keys[-1]] = value


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r:.80}; known: {', '.join(known)}")


def _section(cls: Any, values: Any, prefix: str) -> Any:
    """An instance of a configuration class, every value checked against its field's type."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{prefix.rstrip('.')} must be a section of settings, got {values!r:.80}")
    hints = typing.get_type_hints(cls)
    for key in values:
        if not prefix and key in REMOVED:
            raise ValueError(f"setting {key} {REMOVED[key]}")
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(hints)}"
            raise ValueError(f"unknown setting {prefix}{key!s:.80}{hint}")
    return cls(**{key: _value(hints[key], value, f"{prefix}{key}") for key, value in values.items()})


def _value(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _section(hint, value, f"{name}.")
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} must be a list, got {value!r:.80}")
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, item, f"{name}[{i}]") for i, item in enumerate(value))
    if origin is not None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} must be a section of settings, got {_short(value)}")
        try:
            json.dumps(dict(value))
        except (TypeError, ValueError, RecursionError) as error:  # a date, a set; a section that holds itself
            raise ValueError(f"{name} must hold texts, numbers, lists and sections: {error}") from None
        return dict(value)
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        return _number(value, name)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{name} must be of type {hint.__name__}, got {_short(value)}")
    if hint is int and not -BELOW < value < BELOW:
        raise ValueError(f"{name} must be below {BELOW}, got {_short(value)}")
    if hint is str and ("\0" in value or value.encode(errors="ignore").decode() != value):
        raise ValueError(f"{name} must be a text without NUL and lone surrogates, got {_short(value)}")
    return value


def _number(value: float | str, name: str) -> float:
    """A finite float; YAML reads 1e-4 as a text."""
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{name} must be a number, got {_short(value)}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {_short(value)}")
    return number
