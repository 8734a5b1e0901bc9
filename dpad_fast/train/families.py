"""Where the vision tower of a policy lives: a name per family of models, and a way to say another."""

from __future__ import annotations

from typing import Any

# Looked for in this order, in the model and in its `model`. What stands between the tower and the language model
# (`connector`, `multi_modal_projector`) is no part of it, except in the Qwen family, whose tower ends with its merger.
TOWERS: dict[str, str] = {
    "visual": "Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Qwen3.5, GLM-4V",
    "vision_tower": "InternVL (hf), LLaVA, LLaVA-OneVision, Gemma 3, Mistral 3, Aya Vision, LFM2-VL",
    "vision_model": "SmolVLM, Idefics 2 and 3, Llama 4, Mllama, DeepSeek-VL, Janus",
    "vision_encoder": "LightOnOCR",
}


def find_vision_tower(model: Any, path: str = "") -> Any:
    """The module that turns pictures into features.

    Args:
        model: a policy, bare or wrapped by PEFT.
        path: its name in the model, such as `model.vision_model`; looked for among `TOWERS` when empty.

    Returns:
        The module, or None if the model has none that is known.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT's wrapper
    for name in [path] if path else [f"{where}{tower}" for tower in TOWERS for where in ("model.", "")]:
        found = model
        for part in name.split("."):
            found = getattr(found, part, None)
        if hasattr(found, "parameters") and next(iter(found.parameters()), None) is not None:
            return found
    return None


def freeze_vision_tower(model: Any, path: str = "") -> int:
    """Leave the vision tower as it is: no gradients for its parameters.

    Args:
        model: a policy; changed in place.
        path: see `find_vision_tower`.

    Returns:
        The number of parameters that were frozen.

    Raises:
        ValueError: if there is no such module; says what to set instead.
    """
    tower = find_vision_tower(model, path)
    if tower is None:
        raise ValueError(
            f"grpo.freeze_vision: {type(model).__name__} has no vision tower at "
            f"{path or ', '.join(f'model.{tower}' for tower in TOWERS)}. Set grpo.vision_tower to its name (modules "
            f"with parameters: {', '.join(_modules(model))}), or grpo.freeze_vision to false"
        )
    tower.requires_grad_(False)
    return sum(parameter.numel() for parameter in tower.parameters())


def _modules(model: Any) -> list[str]:
    """Names of the modules of the first two levels that have parameters."""
    return [
        name
        for name, module in model.named_modules()
        if name and name.count(".") < 2 and next(module.parameters(), None) is not None
    ][:12]
