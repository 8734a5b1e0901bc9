"""Packages, files and the GPU that a configuration asks for: what is missing is said before anything is loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from dpad_fast.train.config import TrainConfig


def check_packages(config: TrainConfig) -> None:
    """Refuse a run whose packages, files or GPU are not here.

    Args:
        config: the run.

    Raises:
        ValueError: for the first that is missing; says which setting asks for it and how to install it.
    """
    for setting, modules, install in _needed_packages(config):
        if not any(importlib.util.find_spec(module) for module in modules):
            raise ValueError(f"{setting} needs the package {modules[0]}, which is not installed: {install}")
    for setting, path in {"grpo.deepspeed": config.grpo.deepspeed, "grpo.fsdp": config.grpo.fsdp}.items():
        if path and not Path(path).is_file():
            raise ValueError(f"{setting}: there is no file {path!r:.200}")
    if config.device == "auto" and config.dtype != "float32" and not _has_gpu(config.dtype):
        raise ValueError(
            f"device auto finds no GPU here that computes in {config.dtype.replace('auto', 'bfloat16')}: "
            "set device to cpu, or plan the run with --dry-run"
        )


def _has_gpu(dtype: str) -> bool:
    """Whether transformers would find a GPU for it; it says so itself, but only after the first measurement."""
    import torch
    from transformers.utils import is_torch_bf16_gpu_available

    return bool(is_torch_bf16_gpu_available()) or (dtype == "float16" and torch.cuda.is_available())


def _needed_packages(config: TrainConfig) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Setting, modules of which one must be there, and how to install the first."""
    yield "training", ("trl",), "pip install 'dpad-fast[train]'"
    if config.lora.r:
        yield "lora.r", ("peft",), "pip install 'dpad-fast[lora]'"
    if config.vllm.mode != "off":
        yield "vllm.mode", ("vllm",), "pip install 'dpad-fast[vllm]'"
    if config.grpo.deepspeed:
        yield "grpo.deepspeed", ("deepspeed",), "pip install 'dpad-fast[deepspeed]'"
    attention = f"attention {config.attention!r}"
    if config.attention == "flash_attention_2":
        yield attention, ("flash_attn", "kernels"), "pip install 'dpad-fast[flash]'"
    elif config.attention == "flash_attention_3":
        yield attention, ("flash_attn_interface", "kernels"), "pip install kernels, which fetches it from the hub"
    elif "/" in config.attention:
        yield attention, ("kernels",), "pip install kernels"
