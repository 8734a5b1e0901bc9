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
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from dpad_fast.integrations._fork_lock import ForkLock
from dpad_fast.integrations._row_reader import row_of
from dpad_fast.integrations._verl_advantage import dpad_advantage
from dpad_fast.integrations._verl_config import check_config
from dpad_fast.integrations._verl_rows import VerlRows, completed, scorer_settings

if TYPE_CHECKING:
    from dpad_fast.integrations._verl_data import DpadDataset
    from dpad_fast.integrations._verl_manager import DpadRewardManager

__all__ = ["DpadDataset", "DpadRewardManager", "check_config", "compute_score", "dpad_advantage"]

_OF_REWARD_MODELS = ("reward_router_address", "reward_model_tokenizer")  # verl may hand them to every reward function
_rows: dict[tuple[int, str], VerlRows] = {}
_making = ForkLock()


def __getattr__(name: str) -> Any:
    """Import what is made of verl's classes, and with it verl, only when it is asked for (PEP 562)."""
    if name == "DpadRewardManager":
        from dpad_fast.integrations._verl_manager import DpadRewardManager

        return DpadRewardManager
    if name == "DpadDataset":
        from dpad_fast.integrations._verl_data import DpadDataset

        return DpadDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
        ground_truth: the solution's text, or a mapping with the columns that `Target.from_row` knows, or its JSON text;
            `image_size` is (width, height) of the picture that it is about, where that is another one.
        extra_info: `image` is the picture's path (or `images`, or what else `images_from` reads), `model_size` the
            (width, height) at which the model saw it, unless `processor` says it.
        settings: `reward.custom_reward_function.reward_kwargs`: see `DpadRewardManager`, and `processor`, a name or
            folder of the policy's. Where they say nothing of a scorer, DPAD_FAST_SCORER names a YAML file of the
            others.

    Returns:
        "score", the reward, and the columns of `ScoredRow.for_log` (None in place of NaN): the same keys always.

    Raises:
        ValueError: a bad setting, or a second reward worker without a server.
        ConnectionError: the server did not answer.
    """
    rows = _shared_rows({name: value for name, value in settings.items() if name not in _OF_REWARD_MODELS})
    info = {} if extra_info is None else dict(extra_info)
    row = row_of(ground_truth)
    if isinstance(row, Mapping):
        row, info = {"model_size": info.get("model_size"), **row}, {**row, **info}
    reward, log = await rows.score(solution_str, row, info)
    return {"score": reward, **log}


def _shared_rows(settings: dict[str, Any]) -> VerlRows:
    """What scores for these settings, made once per process."""
    key = (os.getpid(), json.dumps(settings, sort_keys=True, default=str))
    with _making:
        if key not in _rows:
            processor = settings.pop("processor", None)
            make = None if processor is None else partial(_image_processor, processor)
            settings = completed(scorer_settings(settings))
            _check_alone(settings)
            _rows[key] = VerlRows(settings, processor=make)
        return _rows[key]


def _check_alone(settings: Mapping[str, Any]) -> None:
    """A reward function sees no configuration, but a reward worker knows its number."""
    ray = sys.modules.get("ray")
    if "url" in settings or ray is None or not ray.is_initialized():
        return
    name = ray.get_runtime_context().get_actor_name() or ""
    if name.startswith("reward_loop_worker_") and name != "reward_loop_worker_0":
        check_config({"reward": {"num_workers": "more than 1"}})


def _image_processor(name: str) -> Any:
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(name)
