"""One training run from a configuration: data, rewards, TRL's arguments, training with resume.

    config -> prompts, reward functions, policy -> DpadTrainer -> out/policy and out/training.json

Everything is in `out`: run the same configuration again after a kill and it goes on from the last complete checkpoint.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dpad_fast.data import shapes
from dpad_fast.data.shapes_text import named_shape
from dpad_fast.rewards import RewardScorer, parse_completion
from dpad_fast.train import resume
from dpad_fast.train.config import SCENES_PER_SEED, TrainConfig
from dpad_fast.train.families import freeze_vision_tower
from dpad_fast.train.lock import only_one
from dpad_fast.train.policy import load_policy
from dpad_fast.train.reward_functions import RewardFunction, TrlRewards, completion_texts
from dpad_fast.train.saving import keep_policy, policy_is_whole
from dpad_fast.types import Target

if TYPE_CHECKING:
    from datasets import Dataset

    from dpad_fast.clip import ClipEncoder

Watch = Callable[[int, Mapping[str, float]], None]
"""Called after every logged step with (step, metrics), and once without metrics when going on from a checkpoint."""


def make_encoder(config: TrainConfig) -> ClipEncoder:
    """The frozen CLIP of a run.

    Args:
        config: the run.

    Returns:
        The encoder.

    Raises:
        ValueError: if it cannot be loaded.
    """
    from dpad_fast.clip import load_encoder

    with quiet():
        return load_encoder(config.encoder, backend=config.encoder_backend, precision=config.encoder_precision)


def make_scorer(config: TrainConfig, encoder: ClipEncoder | None = None) -> RewardScorer:
    """The scorer of a run.

    Args:
        config: the run.
        encoder: loaded from the configuration when None and a term needs one.

    Returns:
        The scorer.

    Raises:
        ValueError: if the encoder cannot be loaded.
    """
    rewards = config.reward_config()
    return RewardScorer(rewards, encoder=encoder or (make_encoder(config) if rewards.needs_encoder else None))


def make_dataset(config: TrainConfig) -> Dataset:
    """The prompts of a run, in the order in which they are used.

    Args:
        config: the run.

    Returns:
        A data set with the columns `prompt` (conversational), `image`, `solution` and `id`.

    Raises:
        ValueError: for a data set without the configured columns.
    """
    data = config.data
    if data.kind == "shapes":
        count = config.steps * config.grpo.queries
        return shapes.dataset(data.seed, config.seed * SCENES_PER_SEED, count)
    from datasets import Dataset, load_dataset, load_from_disk

    rows = load_from_disk(data.path) if Path(data.path).is_dir() else load_dataset(data.path)
    if not isinstance(rows, Dataset):
        if data.split not in rows:
            raise ValueError(f"data.split is {data.split!r:.80}; {data.path} has {', '.join(rows)}")
        rows = rows[data.split]
    for name in (data.question, data.solution, data.image):
        if name not in rows.column_names:
            raise ValueError(f"data.path {data.path} has no column {name!r:.80}; it has {', '.join(rows.column_names)}")
    if data.limit:
        rows = rows.select(range(min(data.limit, len(rows))))

    def turn(row: dict[str, Any], index: int) -> dict[str, Any]:
        text = data.prompt.replace("{question}", str(row[data.question]))
        return {
            "prompt": [{"role": "user", "content": text}],
            "image": row[data.image],
            "solution": row[data.solution],
            "id": str(row.get(data.id, index)),
        }

    return rows.map(turn, with_indices=True, remove_columns=rows.column_names)


@lru_cache(maxsize=4096)
def _scene_target(identifier: str) -> Target:
    return shapes.from_id(identifier).target


def _target_of(row: Mapping[str, Any]) -> Target:
    """The full target of a scene: mask and other boxes too, which the solution text does not hold."""
    return _scene_target(row["id"])


def names_any_object(scorer: RewardScorer) -> RewardFunction:
    """The control of setting J: 1 where the caption names any one object of the scene, be it the target or not.

    Args:
        scorer: its configuration says how completions are read, and whether a format failure zeroes the bonus.

    Returns:
        A reward function for TRL, for data with shapes-world ids.
    """
    config = scorer.config

    def names_any_object(*, completions: Sequence[Any], id: Sequence[str], **columns: Any) -> list[float | None]:
        rewards: list[float | None] = []
        for text, identifier in zip(completion_texts(completions), id, strict=True):
            answer = parse_completion(text, config)
            named = named_shape(answer.caption or "", shapes.from_id(identifier).scene.objects)
            well_formed = answer.tags_ok and answer.fields_ok
            rewards.append(float(named is not None and (well_formed or not config.gate)))
        return rewards

    return names_any_object


def _rewards(config: TrainConfig, scorer: RewardScorer, processor: Any) -> tuple[list[RewardFunction], list[float]]:
    """Reward functions and their weights: the scorer's terms, then the extra ones."""
    shared = TrlRewards(scorer, _target_of if config.data.kind == "shapes" else None, processor=processor)
    extra = {"names_any_object": names_any_object}
    functions = shared.functions() + [extra[name](scorer) for name in config.extra_rewards]
    weights = shared.weights() + list(config.extra_weights or [1.0] * len(config.extra_rewards))
    return functions, weights


def _arguments(config: TrainConfig, weights: list[float]) -> Any:
    """TRL's `GRPOConfig` of a run."""
    from trl import GRPOConfig

    from dpad_fast.train.trainer import TRL_SETTINGS

    grpo = config.grpo
    cpu = config.device == "cpu"
    settings: dict[str, Any] = {
        "output_dir": config.out,
        "use_cpu": cpu,
        "bf16": not cpu,
        "dataloader_pin_memory": not cpu,
        "remove_unused_columns": False,
        "per_device_train_batch_size": grpo.queries * grpo.generations // grpo.accumulate,
        "gradient_accumulation_steps": grpo.accumulate,
        "num_generations": grpo.generations,
        "max_completion_length": grpo.completion_tokens,
        "temperature": grpo.temperature,
        "learning_rate": grpo.learning_rate,
        "lr_scheduler_type": grpo.schedule,
        "warmup_steps": grpo.warmup_steps,
        "weight_decay": grpo.weight_decay,
        "max_grad_norm": grpo.clip_norm,
        "beta": grpo.beta,
        "loss_type": grpo.loss,
        "gradient_checkpointing": grpo.gradient_checkpointing,
        "reward_weights": weights,
        "shuffle_dataset": False,
        "max_steps": config.steps,
        "seed": config.seed,
        "save_strategy": "steps",
        "save_steps": config.save_every,
        "save_total_limit": config.keep,
        "logging_steps": config.log_every,
        "report_to": [],
        "disable_tqdm": True,
        "log_level": "error",
        **TRL_SETTINGS[grpo.advantage],
    }
    known = GRPOConfig.__dataclass_fields__
    for name in grpo.trl:
        if name not in known:
            raise ValueError(f"grpo.trl.{name} is not a field of TRL's GRPOConfig")
    try:
        return GRPOConfig(**{**settings, **grpo.trl})
    except TypeError as error:
        raise ValueError(f"grpo.trl holds a value of the wrong type: {error}") from error


def _trainer(config: TrainConfig, scorer: RewardScorer, watch: Watch | None) -> Any:
    from transformers.trainer_callback import PrinterCallback

    from dpad_fast.train.callbacks import SaveAtEnd, Watcher, tensorboard
    from dpad_fast.train.trainer import DpadTrainer

    model, processor = load_policy(config.policy, torch.float32 if config.device == "cpu" else torch.bfloat16)
    # TRL prepends nothing itself: it takes the padding side from the processor, and completions follow prompts.
    processor.tokenizer.padding_side = "left"
    if config.grpo.freeze_vision:
        freeze_vision_tower(model, config.grpo.vision_tower)
    functions, weights = _rewards(config, scorer, processor)
    callbacks: list[Any] = [Watcher(watch), SaveAtEnd()]
    if config.tensorboard:
        callbacks.append(tensorboard(Path(config.out) / "tensorboard"))
    trainer = DpadTrainer(
        model,
        functions,
        _arguments(config, weights),
        train_dataset=make_dataset(config),
        processing_class=processor,
        callbacks=callbacks,
        advantage=config.grpo.advantage,
        share_images=config.device == "cpu",
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars for loading a few megabytes, and its warnings about names that TRL uses inside."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*gradient_checkpointing.*")
            yield
    finally:
        if bars:
            logging.enable_progress_bar()


def train(config: TrainConfig, scorer: RewardScorer | None = None, watch: Watch | None = None) -> dict[str, Any]:
    """Train, or go on from the last complete checkpoint in `config.out`, or return at once what is finished.

    Args:
        config: the run.
        scorer: made from the configuration when None.
        watch: see `Watch`.

    Returns:
        `{"fingerprint", "steps", "history", "resumed_at", "seconds"}`, also in `out/training.json`; the trained policy
        is in `out/policy`.

    Raises:
        ValueError: if `config.out` holds a run of another configuration, or another process is at work there, or the
            configuration cannot be run, or the policy's weights are no numbers any more.
        OSError: if the disk is full; what was there before is kept.
    """
    with claim(Path(config.out), config):
        return _train(config, scorer, watch)


def _train(config: TrainConfig, scorer: RewardScorer | None, watch: Watch | None) -> dict[str, Any]:
    """`train` in a folder that is ours."""
    out = Path(config.out)
    mark = config.fingerprint()
    if config.threads:
        torch.set_num_threads(config.threads)
    done = resume.read_json(out / "training.json")
    if isinstance(done, dict) and done.get("fingerprint") == mark and policy_is_whole(out / "policy"):
        return done
    started = time.perf_counter()
    with quiet():
        trainer = _trainer(config, scorer or make_scorer(config), watch)
        start = trainer.from_main(lambda: resume.last_complete(out))
        if start is not None and watch is not None:
            watch(resume.step_of(start), {})
        if start is not None and resume.step_of(start) >= config.steps:
            history = _finished(trainer, start)
        else:
            trainer.train(resume_from_checkpoint=None if start is None else str(start))
            history = trainer.state.log_history
        keep_policy(trainer, out / "policy", config.steps)
    result = {
        "fingerprint": mark,
        "steps": config.steps,
        "resumed_at": None if start is None else resume.step_of(start),
        "seconds": round(time.perf_counter() - started, 2),
        "history": _curves(history),
    }
    resume.write_json(out / "training.json", result)
    return result


@contextmanager
def claim(out: Path, config: TrainConfig) -> Iterator[None]:
    """Hold a run's folder: nobody else writes to it meanwhile, and no other configuration's run is there.

    Writes the configuration to `out/config.json`.

    Args:
        out: the run's folder; made if missing.
        config: the run.

    Yields:
        Nothing.

    Raises:
        ValueError: if another process is at work there (named), or another configuration's run is there (the settings
            that differ are named).
    """
    main = os.environ.get("RANK", "0") == "0"  # of the processes of one distributed run, the first holds the folder
    with only_one(out) if main else nullcontext():
        path = out / "config.json"
        there = resume.read_json(path)
        if isinstance(there, dict) and there.get("fingerprint") != config.fingerprint():
            changed = sorted(_differing(there.get("config", {}), config.as_dict()))
            raise ValueError(
                f"{out} holds a run with another configuration (differs in {', '.join(changed) or 'its version'}); "
                "give another --out, or delete that folder to start over"
            )
        ours = {"fingerprint": config.fingerprint(), "config": config.as_dict()}
        if there != ours:
            resume.write_json(path, ours)
        yield


def _differing(old: Any, new: Any, prefix: str = "") -> list[str]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [prefix.rstrip(".")]
    names = sorted({*old, *new} - ({"out", "name"} if not prefix else set()))
    return [found for name in names for found in _differing(old.get(name), new.get(name), f"{prefix}{name}.")]


def _finished(trainer: Any, final: Path) -> list[dict[str, float]]:
    """Load the weights of a run that was killed after its last step, and return its log."""
    resume.restore_weights(trainer.model, final)
    state = resume.read_json(final / resume.STATE)
    history: list[dict[str, float]] = state["log_history"]
    return history


def _curves(history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The per-step log lines, without the trainer's closing summary."""
    return [
        {key: round(float(value), 6) for key, value in line.items() if isinstance(value, (int, float))}
        for line in history
        if "reward" in line
    ]
