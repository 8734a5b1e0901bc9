"""The sections of a training configuration, one line of documentation per field; `config.py` puts them together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from dpad_fast.data.forms import FORMS
from dpad_fast.segmenters import check_name

# "dataset" is what the `datasets` library loads, by name or from a folder, with columns of any names.
DATA_KINDS = ("shapes", "dataset", *(form for form in FORMS if form != "shapes"))
BAD_ROWS = ("stop", "skip")
PARTS = ("vision", "projector", "language")
VLLM_MODES = ("off", "colocate", "server")
TEMPLATES = ("dpad", "seg-zero", "vision-reasoner")  # of prompts.py
# Only one of the two places where vLLM can run reads these.
_SERVER_ONLY = ("server_base_url", "server_host", "server_port", "server_timeout", "group_port")
_COLOCATE_ONLY = ("gpu_memory_utilization", "max_model_length", "tensor_parallel_size", "enable_sleep_mode")


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a value that is none of the known ones.

    Raises:
        ValueError: names the setting, its value and what is known.
    """
    if value not in known:
        raise ValueError(f"{name} is {value!r:.80}; known: {', '.join(known)}")


@dataclass(frozen=True)
class DataConfig:
    """Where the prompts come from."""

    kind: str = "shapes"  # "shapes" (made on the fly) or a form of data: "reasonseg", "refcoco", "released", "rows" ...
    seed: int = 1  # the shapes world to train on; held-out scenes come from another one
    path: str = ""  # the folder or file of the form; for "dataset" also a name that `load_dataset` takes
    split: str = ""  # which split, where the form has several; for "dataset" it is train when empty
    images: str = ""  # folder of the pictures, where the annotation file names them relative to another place
    columns: Mapping[str, Any] = field(default_factory=dict)  # for "rows": which column holds what (`df.Columns`)
    bad_rows: str = "stop"  # "stop" at a row that cannot be read, or "skip" it with a warning
    question: str = "problem"  # for "dataset": column with the question
    solution: str = "solution"  # for "dataset": column with the ground truth text
    image: str = "image"  # for "dataset": column with the image
    id: str = "id"  # for "dataset": column that identifies the image; rows are numbered where it is missing
    prompt: str = "{question}"  # the user's turn: "dpad", "seg-zero", "vision-reasoner", or a text with {question}
    system_prompt: str = ""  # the system's turn before it; none when empty
    limit: int = 0  # use only so many rows; 0 for all
    shuffle: bool = False  # take the rows in another order in every pass, by the seed

    def check(self) -> None:
        """Refuse what is wrong or does not go together; see `TrainConfig`."""
        check_choice("data.kind", self.kind, DATA_KINDS)
        check_choice("data.bad_rows", self.bad_rows, BAD_ROWS)
        if self.kind != "shapes" and not self.path:
            raise ValueError(f"data.path is empty: data.kind {self.kind!r} needs a folder, a file or a name")
        if self.columns and self.kind != "rows":
            raise ValueError(f"data.columns is for data.kind 'rows', not {self.kind!r}")
        if self.prompt not in TEMPLATES and "{question}" not in self.prompt:
            raise ValueError(
                f"data.prompt is {self.prompt!r:.80}: neither a template ({', '.join(TEMPLATES)}) nor a text with "
                "{question}"
            )


@dataclass(frozen=True)
class GrpoConfig:
    """The optimisation, in the words of the papers; `trl` passes anything else on to TRL's `GRPOConfig`."""

    queries: int = 8  # prompts per step, of all processes together
    generations: int = 8  # completions per prompt, G
    completion_tokens: int = 100  # longest completion
    temperature: float = 1.0  # of sampling
    paired_sampling: bool = False  # the same completions on any number of processes
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
    frozen: tuple[str, ...] = ()  # further parts that stay as they are: "projector", "language"
    accumulate: int = 1  # split a step into so many backward passes, for memory
    gradient_checkpointing: bool = False  # trade time for memory
    deepspeed: str = ""  # JSON file of DeepSpeed's settings
    fsdp: str = ""  # JSON or YAML file of transformers' `fsdp_config`
    trl: Mapping[str, Any] = field(default_factory=dict)  # further fields of TRL's GRPOConfig

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """Those of `PARTS` that are not trained."""
        asked = {*self.frozen, *(["vision"] if self.freeze_vision else [])}
        return tuple(part for part in PARTS if part in asked)

    def check(self) -> None:
        """Refuse what is wrong or does not go together; see `TrainConfig`."""
        if self.temperature <= 0:
            raise ValueError(f"grpo.temperature must be above 0, got {self.temperature}")
        if self.generations < 2:
            raise ValueError("grpo.generations must be at least 2: an advantage compares a completion with its group")
        rows = self.queries * self.generations
        if rows % self.accumulate:
            raise ValueError(f"grpo.accumulate {self.accumulate} does not divide queries x generations = {rows}")
        for part in self.frozen:
            check_choice("grpo.frozen", part, PARTS)
        if "vision" in self.frozen and not self.freeze_vision:
            raise ValueError("grpo.frozen names vision, but grpo.freeze_vision is false")
        if self.frozen_parts == PARTS:
            raise ValueError("grpo.frozen leaves nothing to train: vision, projector and language are all frozen")
        if self.deepspeed and self.fsdp:
            raise ValueError("grpo.deepspeed and grpo.fsdp are both set: a run is sharded by one of them")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (peft) in place of training all weights."""

    r: int = 0  # rank of the adapters; 0 for none: all weights that are not frozen are trained
    alpha: int = 32  # adapters are scaled by alpha / r
    dropout: float = 0.0  # of the adapters' inputs
    target_modules: tuple[str, ...] = ()  # names of the layers that get one; all linear layers of the trained parts

    def check(self, frozen: tuple[str, ...]) -> None:
        """Refuse what is wrong or does not go together; see `TrainConfig`.

        Args:
            frozen: the parts of the policy that are not trained.
        """
        if self.dropout >= 1:
            raise ValueError(f"lora.dropout must be below 1, got {self.dropout}")
        if not self.r and self != LoraConfig():
            raise ValueError("lora has settings but lora.r is 0: set the rank, such as 16")
        if self.r and "language" in frozen:
            raise ValueError("lora.r is set and grpo.frozen names language: adapters go into the language model")


@dataclass(frozen=True)
class VllmConfig:
    """Sampling completions by vLLM, as TRL's `GRPOConfig` has it."""

    mode: str = "off"  # "off", "colocate" (on the training's own GPUs) or "server" (`trl vllm-serve` elsewhere)
    server_base_url: str = ""  # for "server": its address, in place of host and port
    server_host: str = "0.0.0.0"  # for "server"
    server_port: int = 8000  # for "server"
    server_timeout: float = 240.0  # for "server": seconds to wait until it is up
    group_port: int = 51216  # for "server": of the group that passes the weights on
    gpu_memory_utilization: float = 0.3  # for "colocate": share of a GPU's memory
    max_model_length: int = 0  # for "colocate": longest prompt and completion together; 0 for the model's own
    tensor_parallel_size: int = 1  # for "colocate": GPUs that share one copy of the weights
    enable_sleep_mode: bool = False  # for "colocate": give the memory back while the weights are updated

    def check(self) -> None:
        """Refuse what is wrong or does not go together; see `TrainConfig`."""
        check_choice("vllm.mode", self.mode, VLLM_MODES)
        unread = {"off": (*_SERVER_ONLY, *_COLOCATE_ONLY), "colocate": _SERVER_ONLY, "server": _COLOCATE_ONLY}
        plain = VllmConfig()
        for name in unread[self.mode]:
            if getattr(self, name) != getattr(plain, name):
                raise ValueError(f"vllm.{name} is set, but vllm.mode {self.mode!r} does not read it")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(f"vllm.gpu_memory_utilization must be in (0, 1], got {self.gpu_memory_utilization}")

    def arguments(self) -> dict[str, Any]:
        """The fields of TRL's `GRPOConfig`."""
        if self.mode == "off":
            return {}
        names = _SERVER_ONLY if self.mode == "server" else _COLOCATE_ONLY
        read = {name: getattr(self, name) for name in names}
        plain = {entry.name: entry.default for entry in fields(VllmConfig)}
        given = {f"vllm_{name}": value for name, value in read.items() if value != plain[name] or value}
        return {"use_vllm": True, "vllm_mode": self.mode, **given}


@dataclass(frozen=True)
class HeldOutConfig:
    """Held-out data of a form, in place of scenes of the shapes world."""

    path: str = ""  # the folder or file; none when empty
    kind: str = ""  # its form, as `data.kind`; told from what is there when empty
    split: str = ""  # which split, where the form has several
    images: str = ""  # as `data.images`
    columns: Mapping[str, Any] = field(default_factory=dict)  # as `data.columns`
    limit: int = 0  # use only so many samples; 0 for all

    def check(self) -> None:
        """Refuse what is wrong or does not go together; see `TrainConfig`."""
        if self.kind:
            check_choice("evaluation.data.kind", self.kind, tuple(kind for kind in DATA_KINDS if kind != "shapes"))
        if not self.path and self != HeldOutConfig():
            raise ValueError("evaluation.data has settings but evaluation.data.path is empty")


@dataclass(frozen=True)
class EvaluationConfig:
    """Measuring before, during and after training, by sampling."""

    scenes: int = 256  # held-out scenes of the shapes world, for policies trained there; 0 for no evaluation
    samples: int = 1  # completions per scene or sample
    seed: int = 9000  # of sampling, and the shapes world of the held-out scenes; not data.seed
    show: int = 8  # sampled completions kept for the report
    every: int = 0  # steps between measurements during training; 0 for none
    segmenter: str = ""  # "box", "polygon", "background", "sam2:FOLDER", MODULE:FUNCTION; else the rewards', or by form
    encoder: str = ""  # the CLIP that measures S1 and S2, where runs with several are compared; the run's own
    data: HeldOutConfig = field(default_factory=HeldOutConfig)  # held-out samples in place of scenes

    def check(self) -> None:
        """Refuse what is wrong or does not go together; see `TrainConfig`."""
        if self.segmenter:
            try:
                check_name(self.segmenter)
            except ValueError as error:
                raise ValueError(f"evaluation.{error}") from None
        self.data.check()


_HUB_KERNEL = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?(:\w+)?")
ATTENTIONS = ("sdpa", "eager", "flash_attention_2", "flash_attention_3")


def check_attention(value: str) -> None:
    """Refuse what transformers does not take as an implementation of attention.

    Args:
        value: one of `ATTENTIONS`, or OWNER/NAME of kernels on the hub (the package `kernels`); empty for its choice.

    Raises:
        ValueError: for anything else.
    """
    if value and value not in ATTENTIONS and not _HUB_KERNEL.fullmatch(value):
        raise ValueError(f"attention is {value!r:.80}; known: {', '.join(ATTENTIONS)}, or OWNER/NAME of hub kernels")
