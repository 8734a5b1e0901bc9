"""What tests and benchmarks with verl share: its configuration, and samples as its agent loop hands them to rewards.

Needs verl where a function is called, and not before.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpad_fast.data import shapes
from dpad_fast.data.shapes_text import MIXTURES, completion_of

FOLDER = Path(__file__).parents[2] / "examples" / "verl"
NAME = "qwen2_5_vl_7b"
LOCAL = {"encoder": "shapes", "threads": 1, "window_ms": 200}
SIZE = (150, 130)  # which Qwen2.5-VL sees at 140x140


def configuration(policy: str | os.PathLike[str], *overrides: str, kwargs: dict[str, Any] | None = None) -> Any:
    """The example's configuration, composed by Hydra.

    Args:
        policy: a folder.
        overrides: Hydra's.
        kwargs: in place of `reward.reward_kwargs`.
    """
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf, open_dict

    with initialize_config_dir(version_base=None, config_dir=str(FOLDER)):
        config = compose(NAME, overrides=[f"actor_rollout_ref.model.path={policy}", *overrides])
    if kwargs is not None:
        with open_dict(config):
            config.reward.reward_kwargs = OmegaConf.create(kwargs)
    return config


def sample(tokenizer: Any, text: str, **columns: Any) -> Any:
    """One sample as `AgentLoopWorker._compute_score` makes it: a `DataProto` of one row."""
    import torch
    from tensordict import TensorDict
    from verl import DataProto

    prompt = torch.tensor([[7, 8, 9]])
    response = torch.tensor([[*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]])
    whole = torch.cat([prompt, response], dim=1)
    batch = TensorDict(
        {
            "prompts": prompt,
            "responses": response,
            "input_ids": whole,
            "attention_mask": torch.ones_like(whole),
            "position_ids": torch.arange(whole.shape[1])[None],
        },
        batch_size=1,
    )
    extra = {"__num_turns__": np.array([2]), "tool_extra_fields": np.array([{}], dtype=object)}
    return DataProto(batch=batch, non_tensor_batch={**{k: np.array([v]) for k, v in columns.items()}, **extra})


def answers(count: int, seed: int = 0) -> list[str]:
    """Completions to the first six scenes of world 3 in turn, some of them malformed."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        text = completion_of(shapes.sample(3, i % 6), MIXTURES["j" if i % 3 else "e"], rng)
        made.append("no idea" if i % 11 == 5 else text)
    return made


def scored(config: Any, samples: Sequence[Any]) -> list[dict[str, Any]]:
    """What verl's `RewardLoopWorker`, in this process, gives samples that arrive together."""
    from verl.experimental.reward_loop import RewardLoopWorker

    async def run() -> list[dict[str, Any]]:
        worker = RewardLoopWorker(config)
        return list(await asyncio.gather(*(worker.compute_score(one) for one in samples)))

    return asyncio.run(run())
