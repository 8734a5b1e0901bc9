"""verl's reward loop on Ray: a step's samples at once to one reward worker, as its agent loop hands them over.

A step here is its rewards alone; the rest needs GPUs. The one-at-a-time way goes through verl's naive manager, ours
through `DpadRewardManager`, and through the naive manager with our reward function.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.trainers.work import OURS, PLAIN, PRESET, Step, Work
from dpad_fast.testing.verl import configuration, sample
from dpad_fast.train.tiny_policy import write_tiny_policy

POLICY = "Qwen/Qwen2.5-VL-3B-Instruct"
FUNCTION = "dpad_fast, as a reward function"
WAYS = (PLAIN, OURS, FUNCTION)
ROOT = Path(__file__).parents[2]
_NAIVE = ("reward.reward_manager.source=register", "reward.reward_manager.name=naive")


def train(way: str, work: Work, steps: int) -> list[Step]:
    """Rewards some steps by a way."""
    import ray
    from verl.experimental.reward_loop import RewardLoopManager
    from verl.utils import hf_tokenizer

    with tempfile.TemporaryDirectory() as folder, _ray():
        policy, clip, paths = saved(work, Path(folder))
        manager = RewardLoopManager(configured(way, policy, clip))
        (worker,) = manager.reward_loop_worker_handles
        tokenizer = hf_tokenizer(policy)
        made = []
        for step in range(steps):
            samples = samples_of(work, step, tokenizer, paths)
            started = time.perf_counter()
            found = ray.get([worker.compute_score.remote(one) for one in samples])
            seconds = time.perf_counter() - started
            made.append(Step(seconds, seconds, [float(one["reward_score"]) for one in found]))
    return made


@contextlib.contextmanager
def _ray() -> Iterator[None]:
    """A Ray of this machine's cores, whose workers find this package and the benchmarks."""
    import ray

    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's spelling; its 15 would wait for all other work
    ray.init(
        num_cpus=max(2, os.cpu_count() or 2),
        object_store_memory=400 << 20,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    try:
        yield
    finally:
        ray.shutdown()


def configured(way: str, policy: str, clip: str) -> Any:
    """The configuration of verl for a way."""
    threads = torch.get_num_threads()
    ours = {"preset": PRESET, "encoder": clip, "threads": threads, "model_sizes": "picture"}
    if way == OURS:
        return configuration(policy, kwargs=ours)
    module = "dpad_fast.integrations.verl" if way == FUNCTION else "bench.trainers._verl_plain"
    settings = ours if way == FUNCTION else {"clip": clip, "threads": threads}
    overrides = [f"+reward.custom_reward_function.reward_kwargs.{name}={value}" for name, value in settings.items()]
    return configuration(policy, *_NAIVE, f"reward.custom_reward_function.path=pkg://{module}", *overrides)


def samples_of(work: Work, step: int, tokenizer: Any, paths: dict[int, str]) -> list[Any]:
    """One step's samples, with the picture in the prompt and its path beside it."""
    made = []
    for row in work.rows[step * work.queries : (step + 1) * work.queries]:
        blocks = [{"type": "image", "image": row["image"]}, {"type": "text", "text": "find the object"}]
        columns = {
            "raw_prompt": [{"role": "user", "content": blocks}],
            "reward_model": {"ground_truth": row["solution"], "style": "rule"},
            "data_source": "bench",
            "extra_info": {"image": paths[row["id"]]},
        }
        made += [sample(tokenizer, text, **columns) for text in work.texts[row["id"]]]
    return made


def saved(work: Work, folder: Path) -> tuple[str, str, dict[int, str]]:
    """Folders of a tiny policy and of the work's CLIP, and the paths of its pictures, by the id of their rows."""
    policy = write_tiny_policy(folder / "policy", POLICY)
    model, processor = work.clip
    for part in (model, processor.tokenizer, processor.image_processor):
        part.save_pretrained(folder / "clip")
    paths = {row["id"]: str(folder / f"{row['id']}.png") for row in work.rows}
    for row in work.rows:
        row["image"].save(paths[row["id"]])
    return str(policy), str(folder / "clip"), paths
