"""verl's configuration: what it would ignore, and what would scatter samples."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dpad_fast.integrations._verl_rows import completed, scorer_settings

# Accepted by verl's schema, read by nothing in main_ppo; what is live instead.
_IGNORED = {
    "custom_reward_function.path": "reward.custom_reward_function.path",
    "custom_reward_function.name": "reward.custom_reward_function.name",
    "reward_model.reward_manager": "reward.reward_manager.source, .name and .module.path",
    "reward_model.reward_loop_source": "reward.reward_manager.source",
    "reward_model.reward_loop_module_path": "reward.reward_manager.module.path",
    "reward_model.reward_loop_class_name": "reward.reward_manager.name",
    "reward_model.num_workers": "reward.num_workers",
    "reward_model.reward_kwargs": "reward.reward_kwargs",
}
_ALWAYS_NUMBERS = ("reward", "s1_over_s2", "malformed", "unscored")


def check_config(config: Mapping[str, Any]) -> None:
    """Refuses settings that verl accepts and then ignores, and those under which samples would be scattered.

    `DpadRewardManager` calls it when it is made. To know before Ray starts, call it on the composed configuration.

    Args:
        config: verl's whole configuration, as Hydra composes it.

    Raises:
        ValueError: a setting that nothing reads is set, the manager would never be asked, verl would filter by a
            column that has gaps, or several reward workers each would load an encoder of their own; says what to set.
    """
    for name, live in _IGNORED.items():
        value = _look(config, name)
        if value is not None:
            raise ValueError(f"{name} is {value!r:.80}, which verl ignores in silence: set {live} instead")
    function = _look(config, "reward.custom_reward_function.path")
    if function is not None:
        raise ValueError(
            f"reward.custom_reward_function.path is {function!r:.80}, which DpadRewardManager does not call: leave it "
            "out, or use reward.reward_manager.name=naive with source=register"
        )
    if _look(config, "reward.reward_model.enable"):
        raise ValueError(
            "reward.reward_model.enable is true: verl then asks the reward model alone, and never DpadRewardManager. "
            "Set reward.reward_model.enable=false"
        )
    metric = _look(config, "algorithm.filter_groups.metric")
    if _look(config, "algorithm.filter_groups.enable") and metric not in (None, *_ALWAYS_NUMBERS):
        raise ValueError(
            f"algorithm.filter_groups.metric is {metric!r:.80}, of which a sample that cannot be scored has none, and "
            f"verl would end there: take one of {', '.join(_ALWAYS_NUMBERS)}"
        )
    workers = _look(config, "reward.num_workers")
    if workers != 1 and not _has_server(config):
        raise ValueError(
            f"reward.num_workers is {workers!r} (verl's default is 8): each worker would load an encoder of its own, "
            "and a step's samples would be scattered over them. Set reward.num_workers=1, or start `dpad-fast serve` "
            "and set +reward.reward_kwargs.url=ADDRESS"
        )


def _has_server(config: Mapping[str, Any]) -> bool:
    with suppress(ValueError, OSError):  # what is wrong with the settings is said where they are used
        return "url" in completed(scorer_settings(_look(config, "reward.reward_kwargs")))
    return False


def _look(config: Any, name: str) -> Any:
    for part in name.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return None
        config = config[part]
    return config
