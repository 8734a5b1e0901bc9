"""One training run from a configuration: data, rewards, TRL's arguments, training with resume.

    config -> prompts, reward functions, policy -> DpadTrainer -> out/policy and out/training.json

Everything is in `out`: run the same configuration again after a kill and it goes on from the last complete checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dpad_fast.rewards import RewardScorer
from dpad_fast.train import resume
from dpad_fast.train.config import TrainConfig
from dpad_fast.train.extra_rewards import make_extra_reward
from dpad_fast.train.families import freeze_vision_tower
from dpad_fast.train.grpo_arguments import grpo_arguments
from dpad_fast.train.policy import load_policy, quiet
from dpad_fast.train.prompts import make_dataset, scene_target
from dpad_fast.train.reward_functions import RewardFunction, TrlRewards
from dpad_fast.train.run_folder import claim, finished
from dpad_fast.train.saving import keep_policy, policy_is_whole

if TYPE_CHECKING:
    from dpad_fast.clip import ClipEncoder

_LEFT: dict[str, type | tuple[type, ...]] = {  # of training.json
    "history": list,
    "resumed_at": (int, type(None)),
    "seconds": (int, float),
}
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
    encoder = encoder or (make_encoder(config) if rewards.needs_encoder else None)
    segmenter = None
    if rewards.segmenter is not None:
        from dpad_fast.segmenters import make_segmenter

        there = config.device != "cpu" and torch.cuda.is_available()
        segmenter = make_segmenter(rewards.segmenter, device="cuda" if there else "cpu")
    return RewardScorer(rewards, encoder, segmenter)


def _rewards(config: TrainConfig, scorer: RewardScorer, processor: Any) -> tuple[list[RewardFunction], list[float]]:
    """Reward functions and their weights: the scorer's terms, then the extra ones."""
    shared = TrlRewards(scorer, scene_target if config.data.kind == "shapes" else None, processor=processor)
    functions = shared.functions() + [make_extra_reward(name, scorer) for name in config.extra_rewards]
    weights = shared.weights() + list(config.extra_weights or [1.0] * len(config.extra_rewards))
    return functions, weights


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
        grpo_arguments(config, weights),
        train_dataset=make_dataset(config),
        processing_class=processor,
        callbacks=callbacks,
        advantage=config.grpo.advantage,
        share_images=config.device == "cpu",
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


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
        return train_claimed(config, scorer, watch)


def train_claimed(config: TrainConfig, scorer: RewardScorer | None, watch: Watch | None) -> dict[str, Any]:
    """`train` in a folder that the caller has claimed.

    Args:
        config: the run.
        scorer: made from the configuration when None.
        watch: see `Watch`.

    Returns:
        As `train`.

    Raises:
        ValueError: if the configuration cannot be run, or the policy's weights are no numbers any more.
        OSError: if the disk is full; what was there before is kept.
    """
    out = Path(config.out)
    mark = config.fingerprint()
    if config.threads:
        torch.set_num_threads(config.threads)
    done = finished(out / "training.json", mark, _LEFT)
    if done is not None and policy_is_whole(out / "policy"):
        return done
    started = time.perf_counter()
    with quiet():
        trainer = _trainer(config, scorer or make_scorer(config), watch)
        start = trainer.from_main(lambda: resume.last_complete(out))
        if start is not None and watch is not None:
            watch(resume.step_of(start), {})
        if start is not None and resume.step_of(start) >= config.steps:
            history = _restore_last(trainer, start)
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


def _restore_last(trainer: Any, final: Path) -> list[dict[str, float]]:
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
