"""How a policy is asked for an evaluation: by the options, or as its own training run asked it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from dpad_fast.checkpoints import POLICIES
from dpad_fast.evaluate.infer import ask_as
from dpad_fast.evaluate.readers import DEFAULT, FORMATS
from dpad_fast.rewards.config import COORDINATES
from dpad_fast.train import resume
from dpad_fast.train.config import TrainConfig, from_dict
from dpad_fast.train.policy import load_policy, quiet
from dpad_fast.train.sections import TEMPLATES
from dpad_fast.types import Size

TOKENS = 512


@dataclass(frozen=True)
class Asking:
    """A policy and how it is asked.

    Attributes:
        policy: a shipped name, a folder or a name on the hub.
        prompt: "dpad", "seg-zero", "vision-reasoner", or a text with {question}.
        system: the system's turn; none when empty.
        coordinates: what its answers are in: "pixel" (of the picture as it sees it), "norm1000" or "norm1"; None: as
            its family has it.
        model_size: (width, height) that answers in pixels refer to; None: the picture as the policy sees it.
        format: of `readers.FORMATS`, how its answers are written.
        samples: completions per sample.
        temperature: of sampling; 0 is greedy.
        seed: of sampling.
        batch: completions generated at a time.
        tokens: longest completion.
        loading: further arguments of `load_policy`: pixels and picture settings of its run.
        dtype: of the weights; "auto" is float32 on the CPU, else bfloat16.
    """

    policy: str
    prompt: str = "dpad"
    system: str = ""
    coordinates: str | None = None
    model_size: Size | None = None
    format: str = DEFAULT.name
    samples: int = 1
    temperature: float = 0.0
    seed: int = 9000
    batch: int = 8
    tokens: int = TOKENS
    loading: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "auto"

    def __post_init__(self) -> None:
        for name in ("samples", "batch", "tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature must be 0 (greedy) or more, got {self.temperature}")
        if not 0 <= self.seed < 1 << 63:
            raise ValueError(f"seed must be at least 0 and below 2^63, got {self.seed}")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(f"samples is {self.samples}, but greedy answers are all the same: give a temperature")
        if self.coordinates is not None and self.coordinates not in COORDINATES:
            raise ValueError(f"coordinates must be one of {', '.join(COORDINATES)}, got {self.coordinates!r:.80}")
        if self.format not in FORMATS:
            raise ValueError(f"format {self.format!r:.80} is unknown; known: {', '.join(FORMATS)}")
        ask_as(self.prompt, self.system)  # refuses a text without {question}

    def load(self, device: torch.device) -> tuple[Any, Any]:
        """The model on a device, and its processor.

        Raises:
            ValueError: if it cannot be loaded.
        """
        usual = "float32" if device.type == "cpu" else "bfloat16"
        dtype = getattr(torch, {"auto": usual}.get(self.dtype, self.dtype))
        with quiet():
            model, processor = load_policy(self.policy, dtype, **self.loading)
        return model.to(device), processor  # type: ignore[arg-type]


def asking_of(policy: str, **given: Any) -> Asking:
    """How a policy is asked where the options do not say it.

    Args:
        policy: a shipped name, a folder, a name on the hub, or the folder of a training run (or `policy` in it), whose
            configuration then gives prompt, coordinates, format, longest completion and limits for pictures.
        **given: fields of `Asking`; None leaves one to the policy.

    Returns:
        The asking.

    Raises:
        ValueError: a field is wrong, or a run's folder has no policy.
    """
    fields = {name: value for name, value in given.items() if value is not None}
    run = _run_of(Path(policy))
    if run is not None:
        return Asking(**(_of_run(*run) | fields))
    prompt = fields.get("prompt", "{question}" if policy in POLICIES else "dpad")
    form = prompt if prompt in TEMPLATES and prompt != "dpad" else DEFAULT.name
    usual: dict[str, Any] = {"prompt": prompt, "format": form}
    return Asking(policy, **(usual | fields))


def _run_of(folder: Path) -> tuple[Path, TrainConfig] | None:
    """The policy of a run and the run's configuration; None where the folder is no run's."""
    for root in (folder, folder.parent) if folder.name == "policy" else (folder,):
        content = resume.read_json(root / "config.json") if (root / "config.json").is_file() else None
        if not isinstance(content, dict) or not {"fingerprint", "config"} <= content.keys():
            continue
        if not (root / "policy").is_dir():
            raise ValueError(f"policy {str(folder)!r:.200} is a run that has no policy folder yet: let it end first")
        return root / "policy", from_dict(content["config"])
    return None


def _of_run(policy: Path, config: TrainConfig) -> dict[str, Any]:
    rewards = config.reward_config()
    names = ("min_pixels", "max_pixels", "image_processor")
    loading = {name: value for name in names if (value := getattr(config, name))}
    return {
        "policy": str(policy),
        "prompt": config.data.prompt,
        "system": config.data.system_prompt,
        "coordinates": rewards.coordinates,
        "model_size": rewards.model_size,
        "format": rewards.name if rewards.name in FORMATS else DEFAULT.name,
        "tokens": config.grpo.completion_tokens,
        "loading": loading,
        "dtype": config.dtype,
    }
