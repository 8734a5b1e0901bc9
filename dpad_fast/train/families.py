"""Properties of families of policies: the space of their answers, the steps of their picture sizes, their parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dpad_fast.train.sections import PARTS

SPACES = {"pixel": "pixel", "0-1000": "norm1000"}
"""A family's coordinates as `RewardConfig.coordinates` has them."""


@dataclass(frozen=True)
class Family:
    """A family of policies.

    Attributes:
        name: as people write it.
        model_types: `model_type` of the configurations in transformers.
        coordinates: of its answers as it was trained: "pixel" (of the picture as it was resized), "0-1000", or "" where
            its training fixed none.
        vision_tower: the module that turns pictures into features, by its name in the model.
        projector: the modules between the tower and the language model.
        language_model: the language model, without its head.
        side_multiple: sides of resized pictures are multiples of so many pixels (`model_size_for`); 0 where a picture
            is cut into tiles or squashed onto a square.
    """

    name: str
    model_types: tuple[str, ...]
    coordinates: str
    vision_tower: str
    projector: tuple[str, ...]
    language_model: str = "model.language_model"
    side_multiple: int = 0

    def part(self, name: str) -> tuple[str, ...]:
        """The modules of one of `PARTS`, by their names in the model."""
        return {
            "vision": (self.vision_tower,),
            "projector": self.projector,
            "language": (self.language_model, "lm_head"),
        }[name]


def _qwen(name: str, types: tuple[str, ...], coordinates: str, side: int, *more: str) -> Family:
    """The towers of the Qwen family end with their merger, which is the projector."""
    merger = tuple(f"model.visual.{part}" for part in ("merger", *more))
    return Family(name, types, coordinates, "model.visual", merger, side_multiple=side)


_PROJECTOR = ("model.multi_modal_projector",)
_TOWER = "model.vision_tower"
FAMILIES = (
    _qwen("Qwen2-VL", ("qwen2_vl",), "0-1000", 28),
    _qwen("Qwen2.5-VL", ("qwen2_5_vl",), "pixel", 28),
    _qwen("Qwen3-VL", ("qwen3_vl", "qwen3_vl_moe"), "0-1000", 32, "deepstack_merger_list"),
    _qwen("Qwen3.5", ("qwen3_5", "qwen3_5_moe"), "", 32),
    _qwen("GLM-4V", ("glm4v", "glm4v_moe", "glm46v"), "0-1000", 28),
    Family("InternVL", ("internvl",), "0-1000", _TOWER, _PROJECTOR),
    Family(
        "SmolVLM and Idefics",
        ("smolvlm", "idefics3", "idefics2"),
        "",
        "model.vision_model",
        ("model.connector",),
        "model.text_model",
    ),
    Family("LLaVA", ("llava", "llava_next", "llava_onevision"), "", _TOWER, _PROJECTOR),
    Family("Gemma 3", ("gemma3",), "", _TOWER, _PROJECTOR),
    Family("Mistral 3", ("mistral3",), "", _TOWER, _PROJECTOR),
    Family("Aya Vision", ("aya_vision",), "", _TOWER, _PROJECTOR),
    Family("LFM2-VL", ("lfm2_vl",), "", _TOWER, _PROJECTOR),
)

# Names of vision towers, tried in this order, each in the model's `model` and then in the model itself.
TOWERS = ("visual", "vision_tower", "vision_model", "vision_encoder")


def family_of(model_or_config: Any) -> Family:
    """The family of a policy.

    Args:
        model_or_config: a model of transformers, bare or wrapped by PEFT, or its configuration.

    Returns:
        The family.

    Raises:
        ValueError: for a family that is not in the table; says what to set.
    """
    kind = _model_type(model_or_config)
    for family in FAMILIES:
        if kind in family.model_types:
            return family
    raise ValueError(
        f"the policy's model type {kind!r:.60} is of no family that is known here "
        f"({', '.join(family.name for family in FAMILIES)}): set rewards.coordinates to what it answers in (pixel, "
        "norm1000 or norm1) and check_coordinates to false, and grpo.vision_tower to the tower's name (or "
        "grpo.freeze_vision to false)"
    )


def _model_type(model_or_config: Any) -> str:
    config = getattr(_bare(model_or_config), "config", model_or_config)
    return str(getattr(config, "model_type", type(model_or_config).__name__))


def check_coordinates(model_or_config: Any, coordinates: str, rewards: str = "rewards.coordinates") -> None:
    """Refuse rewards that read the answers in another space than the policy's family writes them in.

    Args:
        model_or_config: the policy.
        coordinates: of the `RewardConfig`: "pixel", "norm1000" or "norm1".
        rewards: what to call that setting.

    Raises:
        ValueError: for another space, or a family that is not known; says what to set.
    """
    family = family_of(model_or_config)
    wanted = SPACES.get(family.coordinates)
    if wanted is not None and coordinates != wanted:
        raise ValueError(
            f"{rewards} is {coordinates!r}, but {family.name} answers in {family.coordinates}: set {rewards} to "
            f"{wanted!r}, or check_coordinates to false if this policy was taught otherwise"
        )


def find_vision_tower(model: Any, path: str = "") -> Any:
    """The module that turns pictures into features.

    Args:
        model: a policy, bare or wrapped by PEFT.
        path: its name in the model, such as `model.vision_model`; when empty, the names of `TOWERS` are tried.

    Returns:
        The module, or None if the model has none that is known.
    """
    for name in [path] if path else [f"{where}{tower}" for tower in TOWERS for where in ("model.", "")]:
        found = _module(model, name)
        if found is not None:
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


def freeze_parts(model: Any, parts: tuple[str, ...], vision_tower: str = "") -> int:
    """Leave parts of a policy as they are: no gradients for their parameters.

    Args:
        model: a policy; changed in place.
        parts: of "vision", "projector" and "language".
        vision_tower: see `find_vision_tower`.

    Returns:
        The number of parameters without a gradient afterwards; weights that two parts share count once.

    Raises:
        ValueError: for a part that is not found; says what to set.
    """
    for part in parts:
        if part == "vision":
            freeze_vision_tower(model, vision_tower)
            continue
        modules = [module for name in family_of(model).part(part) if (module := _module(model, name)) is not None]
        if not modules:
            raise ValueError(
                f"grpo.frozen: {type(model).__name__} has no {part} at {', '.join(family_of(model).part(part))} "
                f"(modules with parameters: {', '.join(_modules(model))})"
            )
        for module in modules:
            module.requires_grad_(False)
    return sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)


def names_of_parts(model: Any, parts: tuple[str, ...], vision_tower: str = "") -> list[str]:
    """The names of the modules that parts of a policy are made of, as `named_modules` has them.

    Args:
        model: a policy.
        parts: of `PARTS`.
        vision_tower: see `find_vision_tower`.

    Returns:
        Names; those that the model does not have are left out.
    """
    found = []
    for part in (part for part in PARTS if part in parts):
        wanted = [vision_tower] if part == "vision" and vision_tower else family_of(model).part(part)
        found += [name for name in wanted if _module(model, name) is not None]
    return found


def _bare(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT's wrapper


def _module(model: Any, name: str) -> Any:
    """The module of a dotted name, None where there is none or it has no parameters."""
    found = _bare(model)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if hasattr(found, "parameters") and next(iter(found.parameters()), None) is not None else None


def _modules(model: Any) -> list[str]:
    """Names of the modules of the first two levels that have parameters."""
    return [
        name
        for name, module in model.named_modules()
        if name and name.count(".") < 2 and next(module.parameters(), None) is not None
    ][:12]
