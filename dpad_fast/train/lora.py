"""LoRA adapters of a run: which layers get one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from dpad_fast.train.config import TrainConfig
from dpad_fast.train.families import names_of_parts

if TYPE_CHECKING:
    from peft import LoraConfig

HEADS = ("lm_head", "embed_tokens")


def adapters(model: Any, config: TrainConfig) -> LoraConfig | None:
    """The adapters as peft takes them.

    Args:
        model: the policy.
        config: its `lora`; layers of `grpo.frozen_parts` get none.

    Returns:
        peft's configuration, None for training without adapters.

    Raises:
        ValueError: for names of layers that the trained parts do not have.
    """
    lora = config.lora
    if not lora.r:
        return None
    from peft import LoraConfig

    frozen = names_of_parts(model, config.grpo.frozen_parts, config.grpo.vision_tower)
    layers = trained_layers(model, frozen, lora.target_modules)
    return LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=layers, task_type="CAUSAL_LM"
    )


def trained_layers(model: Any, frozen: list[str], targets: tuple[str, ...] = ()) -> list[str]:
    """The linear layers that get an adapter, by their full names.

    Args:
        model: the policy.
        frozen: modules whose layers get none, by name.
        targets: the last parts of the layers' names, such as q_proj; all linear layers but the head when empty.

    Returns:
        Names.

    Raises:
        ValueError: for a target that no layer of the trained parts has.
    """
    outside = re.compile("|".join(f"{re.escape(name)}(\\..*)?" for name in frozen)) if frozen else None
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and name.rpartition(".")[2] not in HEADS
        and not (outside and outside.fullmatch(name))
    ]
    if not targets:
        return linear
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in linear):
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise ValueError(
                f"lora.target_modules: no trained linear layer is named {target!r:.80}; there are {', '.join(known)}"
            )
    return [name for name in linear if any(f".{name}".endswith(f".{target}") for target in targets)]
