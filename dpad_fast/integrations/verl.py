"""verl (0.9.1): a reward manager that scores in batches, a reward function, a data set, and the group advantage.

    reward:
      num_workers: 1
      reward_manager:
        source: importlib
        name: DpadRewardManager
        module: {path: "pkg://dpad_fast.integrations.verl"}
      reward_kwargs: {preset: dpad, encoder: openai/clip-vit-base-patch32, device: cpu, threads: 8}

docs/verl.md says what else is set, and examples/verl/ has a whole configuration. Nothing of verl is imported before
`DpadRewardManager` or `DpadDataset` is asked for.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from dpad_fast.integrations._verl_rows import Rows, scorer_settings
from dpad_fast.ops.group_advantage import group_advantage

if TYPE_CHECKING:
    from dpad_fast.integrations._verl_data import DpadDataset
    from dpad_fast.integrations._verl_manager import DpadRewardManager

__all__ = ["DpadDataset", "DpadRewardManager", "check_config", "compute_score", "dpad_advantage"]

_ADVANTAGE = ("scale", "eps", "singleton")
_SCALES = ("std", "none", "batch", "rloo")
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

_OF_REWARD_MODELS = ("reward_router_address", "reward_model_tokenizer")  # verl may hand them to every reward function
_rows: dict[tuple[int, str], Rows] = {}
_making = threading.Lock()


def __getattr__(name: str) -> Any:
    """Import what is made of verl's classes, and with it verl, only when it is asked for (PEP 562)."""
    if name == "DpadRewardManager":
        from dpad_fast.integrations._verl_manager import DpadRewardManager

        return DpadRewardManager
    if name == "DpadDataset":
        from dpad_fast.integrations._verl_data import DpadDataset

        return DpadDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def check_config(config: Mapping[str, Any]) -> None:
    """Refuses settings that verl accepts and then ignores, and those under which samples would be scattered.

    `DpadRewardManager` calls it when it is made. To know before Ray starts, call it on the composed configuration.

    Args:
        config: verl's whole configuration, as Hydra composes it.

    Raises:
        ValueError: a setting that nothing reads is set, or several reward workers each would load an encoder of their
            own; says what to set.
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
    workers = _look(config, "reward.num_workers")
    if workers != 1 and _look(config, "reward.reward_kwargs.url") is None:
        raise ValueError(
            f"reward.num_workers is {workers!r} (verl's default is 8): each worker would load an encoder of its own, "
            "and a step's samples would be scattered over them. Set reward.num_workers=1, or start `dpad-fast serve` "
            "and set +reward.reward_kwargs.url=ADDRESS"
        )


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """A reward function for verl's own managers (naive, dapo, gdpo), which do not hand pictures on.

    Calls that wait at the same time are scored together. Set `reward.custom_reward_function.path` to
    `pkg://dpad_fast.integrations.verl` and `reward.num_workers` to 1, or use a server.

    Args:
        data_source: not looked at.
        solution_str: the completion. verl decodes it without special tokens, so tags that are such are lost.
        ground_truth: the solution's text, or a mapping with the columns that `Target.from_row` knows.
        extra_info: `image` is the picture's path (or `images`, or what else `images_from` reads), `model_size` the
            (width, height) at which the model saw it, unless `processor` says it.
        settings: `reward.custom_reward_function.reward_kwargs`: see `DpadRewardManager`, and `processor`, a name or
            folder of the policy's. Without any, DPAD_FAST_SCORER names a YAML file of them.

    Returns:
        "score", the reward, and the columns of `ScoredRow.for_log` (None in place of NaN): the same keys always.

    Raises:
        ValueError: a bad setting, or a second reward worker without a server.
        ConnectionError: the server did not answer.
    """
    rows = _shared_rows({name: value for name, value in settings.items() if name not in _OF_REWARD_MODELS})
    info = {} if extra_info is None else dict(extra_info)
    row = dict(ground_truth) if isinstance(ground_truth, Mapping) else {"solution": ground_truth}
    reward, log = await rows.score(solution_str, row, info, model_size=info.get("model_size"))
    return {"score": reward, **log}


def dpad_advantage(
    token_level_rewards: torch.Tensor,
    response_mask: torch.Tensor,
    config: Any = None,
    index: Sequence[Hashable] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`group_advantage` in the form of verl's estimators; `algorithm.adv_estimator=dpad` uses it.

    Args:
        token_level_rewards: float [N, T].
        response_mask: [N, T], 1 where a token counts.
        config: verl's `algorithm`: `norm_adv_by_std_in_grpo`, and a mapping `dpad` with `scale` ("std", "none",
            "batch", "rloo"), `eps` (1e-6) and `singleton` ("reward", as verl's GRPO; "zero").
        index: N ids; rows of equal ids are one group.

    Returns:
        Advantages and returns, the same float [N, T]. A group with a NaN reward goes on without it.

    Raises:
        ValueError: there are no ids, or an unknown setting.
    """
    if index is None:
        raise ValueError("index is missing: the batch has no uid, so that groups are not known")
    normed = True if config is None else config.get("norm_adv_by_std_in_grpo", True)
    given = {} if config is None else dict(config.get("dpad", None) or {})
    for name in given:
        if name not in _ADVANTAGE:
            raise ValueError(f"unknown setting algorithm.dpad.{name:.80}; known: {', '.join(_ADVANTAGE)}")
    settings = {"scale": "std" if normed else "none", "eps": 1e-6, "singleton": "reward", **given}
    if settings["scale"] not in _SCALES:
        raise ValueError(f"algorithm.dpad.scale must be one of {', '.join(_SCALES)}, got {settings['scale']!r:.80}")
    rewards = token_level_rewards.sum(dim=-1)
    advantages = group_advantage(rewards, list(index), token_mask=response_mask, **settings)
    return advantages, advantages


def _shared_rows(settings: dict[str, Any]) -> Rows:
    """What scores for these settings, made once per process."""
    key = (os.getpid(), json.dumps(settings, sort_keys=True, default=str))
    with _making:
        if key not in _rows:
            _check_alone(settings)
            processor = settings.pop("processor", None)
            make = None if processor is None else partial(_image_processor, processor)
            _rows[key] = Rows(scorer_settings(settings), processor=make)
        return _rows[key]


def _check_alone(settings: Mapping[str, Any]) -> None:
    """A reward function sees no configuration, but a reward worker knows its number."""
    ray = sys.modules.get("ray")
    if settings.get("url") is not None or ray is None or not ray.is_initialized():
        return
    name = ray.get_runtime_context().get_actor_name() or ""
    if name.startswith("reward_loop_worker_") and name != "reward_loop_worker_0":
        check_config({"reward": {"num_workers": "more than 1"}})


def _image_processor(name: str) -> Any:
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(name)


def _look(config: Any, name: str) -> Any:
    for part in name.split("."):
        if not isinstance(config, Mapping) or part not in config:
            return None
        config = config[part]
    return config
