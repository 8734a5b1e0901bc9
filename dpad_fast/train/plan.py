"""What a run at its true size will need: tokens, parameters, memory per card, steps and disk, each with its formula."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpad_fast.train.config import TrainConfig
from dpad_fast.train.families import freeze_parts, names_of_parts
from dpad_fast.train.known_policies import meta_model, true_config
from dpad_fast.train.lora import trained_layers
from dpad_fast.train.memory import Amount, Text, Vision, activations, kv_cache, logits
from dpad_fast.train.policy import quiet
from dpad_fast.train.prompt_sizes import PromptSize

GIB = 1 << 30
RESERVE = 1.0  # GiB for the CUDA context and libraries
SLACK = 1.1  # for blocks of the allocator that are not full
STRATEGIES = ("single", "zero-2", "zero-3", "fsdp")


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters: of the policy, those trained, and those of adapters (a part of the trained ones)."""

    total: int
    trained: int
    adapters: int = 0


@dataclass(frozen=True)
class Card:
    """What one card holds under one strategy.

    Attributes:
        strategy: one of `STRATEGIES`.
        cards: over how many cards.
        items: amounts by name, those of the whole run first.
        peak: bytes at the fullest moment.
        moment: "sampling" or "update".
    """

    strategy: str
    cards: int
    items: Mapping[str, Amount]
    peak: int
    moment: str

    def fits(self, gib: float) -> bool:
        """Whether a card of so many GiB holds it, with the reserve and the slack."""
        return self.peak / GIB * SLACK + RESERVE <= gib


def parameters(config: TrainConfig) -> Parameters:
    """Count the policy's parameters on the meta device, with what the run freezes and adds.

    Args:
        config: the run.

    Returns:
        The numbers, tied weights counted once.
    """
    with quiet():
        model = meta_model(true_config(config.policy))
    total = sum(parameter.numel() for parameter in model.parameters())
    if config.lora.r:
        frozen = names_of_parts(model, config.grpo.frozen_parts, config.grpo.vision_tower)
        layers = [model.get_submodule(name) for name in trained_layers(model, frozen, config.lora.target_modules)]
        adapters = sum(config.lora.r * (layer.in_features + layer.out_features) for layer in layers)
        return Parameters(total + adapters, adapters, adapters)
    return Parameters(total, total - freeze_parts(model, config.grpo.frozen_parts, config.grpo.vision_tower))


def strategy_of(config: TrainConfig) -> str:
    """How a run is spread over cards, from its DeepSpeed or FSDP file.

    Args:
        config: the run.

    Returns:
        One of `STRATEGIES`.

    Raises:
        ValueError: a file that cannot be read.
    """
    if config.grpo.fsdp:
        return "fsdp"
    file = config.grpo.deepspeed
    if not file:
        return "single"
    try:
        settings = json.loads(Path(file).read_text(encoding="utf-8"))
        stage = int(settings.get("zero_optimization", {}).get("stage", 0))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"grpo.deepspeed {file!r:.200} cannot be read: {error}") from error
    return {2: "zero-2", 3: "zero-3"}.get(stage, "single")


def card(config: TrainConfig, counts: Parameters, prompt: PromptSize, strategy: str, cards: int, gib: float) -> Card:
    """Memory of one card.

    Args:
        config: the run.
        counts: see `parameters`.
        prompt: the longest prompt.
        strategy: one of `STRATEGIES`.
        cards: N; with DeepSpeed and FSDP what is sharded is divided by it.
        gib: size of a card, of which vLLM in the training's own process takes its share.

    Returns:
        Every amount and the peak.
    """
    size = number_size(config)
    items = _states(config, counts, strategy, cards, size)
    rows = config.grpo.queries * config.grpo.generations
    sampled = math.ceil(rows / cards)
    trained = math.ceil(rows / config.grpo.accumulate / cards)
    whole = prompt.tokens + config.grpo.completion_tokens
    true = true_config(config.policy)
    text, vision = Text.of(true.text_config), Vision.of(true)
    tower = None if config.grpo.freeze_vision else vision
    flash = config_flash(config)
    checkpointing = config.grpo.gradient_checkpointing or bool(config.grpo.trl.get("gradient_checkpointing"))
    items["activations"] = activations(
        text, tower, trained, whole, prompt.patches, size, checkpointing=checkpointing, flash=flash
    )
    items["logits"] = logits(text, trained, config.grpo.completion_tokens, size)
    held = sum(amount.bytes for name, amount in items.items() if name not in ("gradients", "activations", "logits"))
    update = held + sum(items[name].bytes for name in ("gradients", "activations", "logits"))
    vllm = config.vllm.mode
    if vllm == "off":
        items["kv cache"] = kv_cache(text, sampled, whole, size)
    elif vllm == "colocate":
        share = config.vllm.gpu_memory_utilization
        items["vllm"] = Amount(int(share * gib * GIB), f"gpu_memory_utilization {share:g} x {gib:g} GiB")
        update += 0 if config.vllm.enable_sleep_mode else items["vllm"].bytes
    sampling = held + sum(items[name].bytes for name in ("kv cache", "vllm") if name in items)
    return Card(strategy, cards, items, max(update, sampling), "update" if update >= sampling else "sampling")


def number_size(config: TrainConfig) -> int:
    """Bytes of a weight: 4 on a CPU or with dtype float32, else 2."""
    return 4 if config.dtype == "float32" or (config.dtype == "auto" and config.device == "cpu") else 2


def config_flash(config: TrainConfig) -> bool:
    """Whether the run's attention is a flash attention (flash-attn 2 or 3, or kernels of the hub)."""
    return config.attention not in ("", "sdpa", "eager")


def _states(config: TrainConfig, counts: Parameters, strategy: str, cards: int, size: int) -> dict[str, Amount]:
    """Weights, gradients, optimiser and reference of one card."""
    base, trained = counts.total - counts.adapters, counts.trained
    sharded = cards if strategy in ("zero-3", "fsdp") else 1
    split = cards if strategy != "single" else 1
    own = 4 if counts.adapters else size  # peft keeps adapters in float32
    weights = (base * size + counts.adapters * own) / sharded
    moments = 2 * own
    words = f"2 moments x {own} B x trained {trained:,}"
    if strategy in ("zero-2", "zero-3") and size == 2:
        moments, words = 12, f"(2 moments + float32 copy) x 4 B x trained {trained:,}"
    if strategy == "fsdp" and size == 2:  # accelerate trains float32 copies where bf16 is the precision of the work
        weights, own, moments = ((counts.total - trained) * size + trained * 4) / sharded, 4, 8
        words = f"2 moments x 4 B x trained {trained:,}"
    gradients, over = trained * own, f" / {split} cards" if split > 1 else ""
    if strategy == "single" and cards > 1:
        gradients *= 2
    note = " x 2 (buckets of all-reduce)" if strategy == "single" and cards > 1 else over
    shards = f" / {sharded} cards" if sharded > 1 else ""
    held = f"parameters {base:,} x {size} B"
    if counts.adapters:
        held = (
            f"({held} + adapters {counts.adapters:,} x 4 B)"
            if shards
            else f"{held} + adapters {counts.adapters:,} x 4 B"
        )
    items = {
        "weights": Amount(math.ceil(weights), f"{held}{shards}"),
        "gradients": Amount(math.ceil(gradients / split), f"trained {trained:,} x {own} B{note}"),
        "optimiser": Amount(math.ceil(trained * moments / split), f"{words}{over}"),
    }
    if strategy == "fsdp" and size == 2:
        items["weights"] = Amount(
            items["weights"].bytes,
            f"(trained {trained:,} x 4 B + frozen {counts.total - trained:,} x {size} B){shards}",
        )
    if config.grpo.beta > 0 and not counts.adapters:
        items["reference"] = Amount(math.ceil(base * size / sharded), f"parameters {base:,} x {size} B{shards}")
    return items


def steps_of(config: TrainConfig, rows: int | None) -> int | None:
    """Optimiser steps of a run; of `epochs` over data whose rows are not counted, None."""
    epochs = config.epochs
    if not epochs:
        return config.steps
    return None if rows is None else max(1, round(epochs * (rows // config.grpo.queries)))


def plan(
    config: TrainConfig,
    prompts: Sequence[PromptSize],
    cards: int = 1,
    gib: Sequence[float] = (24, 80),
    rows: int | None = None,
) -> dict[str, Any]:
    """The plan of a run, in plain data.

    Args:
        config: the run.
        prompts: sizes of some of its prompts.
        cards: number of cards.
        gib: sizes of cards to hold it against.
        rows: rows of the data where counted.

    Returns:
        `{"tokens", "parameters", "memory": [one entry per strategy], "run"}`.
    """
    counts = parameters(config)
    longest = max(prompts, key=lambda prompt: prompt.tokens)
    configured = strategy_of(config)
    names = [name for name in STRATEGIES if cards > 1 or name in ("single", configured)]
    memory = []
    for name in names:
        per_size = {size: card(config, counts, longest, name, cards, size) for size in gib}
        one = per_size[max(gib)]
        items = {item: asdict(amount) for item, amount in one.items.items()}
        fits = {f"{size:g}": each.fits(size) for size, each in per_size.items()}
        memory.append({"strategy": name, "configured": name == configured, "items": items, "peak": one.peak})
        memory[-1] |= {"moment": one.moment, "fits": fits}
    size = number_size(config)
    saved = counts.adapters * 4 if counts.adapters else counts.total * size
    steps = steps_of(config, rows)
    per_step = config.grpo.queries * config.grpo.generations
    run: dict[str, Any] = {
        "steps": steps,
        "rollouts a step": per_step,
        "rollouts": None if steps is None else steps * per_step,
    }
    run |= {"completion tokens at most": None if steps is None else steps * per_step * config.grpo.completion_tokens}
    moments = (
        12
        if configured.startswith("zero") and size == 2
        else 8
        if counts.adapters or configured == "fsdp"
        else 2 * size
    )
    each = saved + counts.trained * moments
    run |= {"checkpoint bytes": each, "kept": config.keep, "checkpoints bytes": each * (config.keep + 1)}
    run |= {
        "checkpoint formula": f"weights {saved:,} B + optimiser {counts.trained:,} x {moments} B; one more while saving"
    }
    tokens = {"prompts": [asdict(prompt) for prompt in prompts], "longest": longest.tokens}
    tokens["completion"] = config.grpo.completion_tokens
    return {"tokens": tokens, "parameters": asdict(counts), "cards": cards, "memory": memory, "run": run}


def text_of(found: Mapping[str, Any]) -> str:
    """A plan as text.

    Args:
        found: from `plan`.

    Returns:
        Several lines.
    """
    first, counts, run = found["tokens"]["prompts"][0], found["parameters"], found["run"]
    frozen = counts["total"] - counts["trained"]
    lines = [
        f"tokens        first prompt {first['tokens']} = text {first['text']} ({first['text_by']}) + picture "
        f"{first['picture']} ({first['picture_by']}); longest prompt {found['tokens']['longest']}, completion up to "
        f"{found['tokens']['completion']}",
        f"parameters    {counts['total']:,}, trained {counts['trained']:,}, frozen {frozen:,}"
        + (f", adapters {counts['adapters']:,}" if counts["adapters"] else ""),
    ]
    for entry in found["memory"]:
        fits = ", ".join(f"{'fits' if good else 'does not fit'} {size} GB" for size, good in entry["fits"].items())
        mark = " (configured)" if entry["configured"] else ""
        lines.append(
            f"memory        {entry['strategy']}{mark}, {found['cards']} card(s): {entry['peak'] / GIB:.2f} GiB at the "
            f"{entry['moment']}; {fits}"
        )
        if entry["configured"] or len(found["memory"]) == 1:
            for name, amount in entry["items"].items():
                lines.append(f"  {name:<12}{amount['bytes'] / GIB:9.3f} GiB  {amount['formula']}")
    steps = "unknown steps (rows are not counted)" if run["steps"] is None else f"{run['steps']} steps"
    lines.append(f"run           {steps}, {run['rollouts a step']} rollouts a step, {run['rollouts']} in all")
    lines.append(
        f"disk          checkpoint {run['checkpoint bytes'] / GIB:.2f} GiB ({run['checkpoint formula']}), "
        f"{run['checkpoints bytes'] / GIB:.2f} GiB with {run['kept']} kept"
    )
    return "\n".join(lines)
