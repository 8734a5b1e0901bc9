"""One training run from a configuration: data, rewards, TRL's arguments, training with resume.

    config -> prompts, reward functions, policy -> DpadTrainer -> out/policy and out/training.json

Everything is in `out`: run the same configuration again after a kill and it goes on from the last complete checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dpad_fast.rewards import RewardScorer
from dpad_fast.train import processes, resume
from dpad_fast.train.config import TrainConfig
from dpad_fast.train.extra_rewards import make_extra_reward
from dpad_fast.train.families import check_coordinates, freeze_parts
from dpad_fast.train.grpo_arguments import grpo_arguments
from dpad_fast.train.lora import adapters
from dpad_fast.train.packages import check_packages
from dpad_fast.train.policy import load_policy, quiet
from dpad_fast.train.prompts import make_dataset, scene_target, with_steps
from dpad_fast.train.reward_functions import RewardFunction, TargetOf, TrlRewards
from dpad_fast.train.run_folder import claim, finished
from dpad_fast.train.saving import keep_policy, policy_is_whole
from dpad_fast.train.targets import target_of_row

if TYPE_CHECKING:
    from dpad_fast.clip import ClipEncoder
    from dpad_fast.segmenters import Segmenter

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
    from dpad_fast.clip import EmbeddingCache, load_encoder

    folder = config.encoder_cache or (Path(config.out) / "embeddings" if processes.count() > 1 else None)
    cache = None if folder is None else EmbeddingCache(folder=folder)
    with quiet():
        return load_encoder(
            config.encoder, backend=config.encoder_backend, precision=config.encoder_precision, cache=cache
        )


def judging_encoder(config: TrainConfig, own: ClipEncoder | None = None) -> ClipEncoder:
    """The frozen CLIP that a run is measured with.

    Args:
        config: the run.
        own: that of its rewards, where it is loaded already.

    Returns:
        The encoder: that of `evaluation.encoder`, else the run's own.

    Raises:
        ValueError: if it cannot be loaded.
    """
    wanted = config.evaluation.encoder
    if not wanted or wanted == config.encoder:
        return own or make_encoder(config)
    return make_encoder(replace(config, encoder=wanted))


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
    return RewardScorer(rewards, encoder, make_reward_segmenter(config))


def make_reward_segmenter(config: TrainConfig) -> Segmenter | None:
    """The segmenter of a run's rewards, on its device; None where they name none.

    Args:
        config: the run.

    Returns:
        The segmenter.

    Raises:
        ValueError: if it cannot be loaded.
    """
    name = config.reward_config().segmenter
    if name is None:
        return None
    from dpad_fast.segmenters import make_segmenter

    there = config.device != "cpu" and torch.cuda.is_available()
    return make_segmenter(name, device="cuda" if there else "cpu")


def load_run_policy(config: TrainConfig, policy: str | Path | None = None) -> tuple[Any, Any]:
    """The policy of a run with its processor, in the run's dtype and attention and with its limits for pictures.

    Args:
        config: the run.
        policy: another than the run's, such as the trained one.

    Returns:
        The model and the processor.

    Raises:
        ValueError: if it cannot be loaded, or the run's rewards read answers in another space than its family's.
    """
    cpu = config.device == "cpu"
    dtype = getattr(torch, {"auto": "float32" if cpu else "bfloat16"}.get(config.dtype, config.dtype))
    model, processor = load_policy(
        config.policy if policy is None else policy,
        dtype,
        attention=config.attention,
        min_pixels=config.min_pixels,
        max_pixels=config.max_pixels,
        image_processor=config.image_processor,
    )
    if config.check_coordinates:
        check_coordinates(model, config.reward_config().coordinates)
    return model, processor


def _target_of(config: TrainConfig) -> TargetOf | None:
    return {"shapes": scene_target, "dataset": None}.get(config.data.kind, target_of_row)


def _rewards(config: TrainConfig, scorer: RewardScorer, processor: Any) -> tuple[list[RewardFunction], list[float]]:
    """Reward functions and their weights: the scorer's terms, then the extra ones."""
    on_error = "row" if config.data.bad_rows == "skip" else "raise"
    shared = TrlRewards(scorer, _target_of(config), processor=processor, on_error=on_error)
    functions = shared.functions() + [make_extra_reward(name, scorer) for name in config.extra_rewards]
    weights = shared.weights() + list(config.extra_weights or [1.0] * len(config.extra_rewards))
    return functions, weights


def make_trainer(
    config: TrainConfig,
    scorer: RewardScorer,
    rows: Any = None,
    watch: Watch | None = None,
    during: Sequence[Any] = (),
) -> Any:
    """The trainer of a run, ready to train.

    Args:
        config: the run.
        scorer: of its rewards.
        rows: its prompts; made from the configuration when None (see `make_dataset`).
        watch: see `Watch`.
        during: further callbacks of transformers' Trainer.

    Returns:
        A `DpadTrainer`.

    Raises:
        ValueError: if the configuration cannot be run.
    """
    from transformers.trainer_callback import PrinterCallback

    from dpad_fast.train.callbacks import LogWatcher, SaveAtEnd, tensorboard
    from dpad_fast.train.trainer import DpadTrainer

    if (Path(config.policy) / "adapter_config.json").is_file():
        # The reference and the saved adapter would be of the policy below it.
        raise ValueError(
            f"policy {config.policy!r} is a LoRA adapter, and training goes on from whole weights: write them with "
            "load_policy(FOLDER), and save_pretrained of the model and the processor"
        )
    model, processor = load_run_policy(config)
    # TRL prepends nothing itself: it takes the padding side from the processor, and completions follow prompts.
    processor.tokenizer.padding_side = "left"
    freeze_parts(model, config.grpo.frozen_parts, config.grpo.vision_tower)
    functions, weights = _rewards(config, scorer, processor)
    callbacks: list[Any] = [LogWatcher(watch), SaveAtEnd(), *during]
    if config.tensorboard and processes.is_main():
        callbacks.append(tensorboard(Path(config.out) / "tensorboard"))
    lora = adapters(model, config)
    trainer = DpadTrainer(
        model,
        functions,
        grpo_arguments(config, weights),
        train_dataset=make_dataset(config) if rows is None else rows,
        processing_class=processor,
        callbacks=callbacks,
        advantage=config.grpo.advantage,
        share_images=config.device == "cpu",
        paired=config.grpo.paired_sampling,
        **({} if lora is None else {"peft_config": lora}),
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


def train_claimed(
    config: TrainConfig,
    scorer: RewardScorer | None,
    watch: Watch | None,
    rows: Any = None,
    during: Sequence[Any] = (),
) -> dict[str, Any]:
    """`train` in a folder that the caller has claimed.

    Args:
        config: the run.
        scorer: made from the configuration when None.
        watch: see `Watch`.
        rows: its prompts; made from the configuration when None.
        during: see `make_trainer`.

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
    done = processes.from_main(lambda: _trained(out, mark))
    if done is not None:
        return done
    check_packages(config)
    started = time.perf_counter()
    with quiet():
        rows = make_dataset(config) if rows is None else rows
        config = with_steps(config, rows)
        trainer = make_trainer(config, scorer or make_scorer(config), rows, watch, during)
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
    processes.from_main(lambda: resume.write_json(out / "training.json", result))
    return result


def _trained(out: Path, mark: str) -> dict[str, Any] | None:
    """The content of training.json from an earlier call that finished, or None."""
    done = finished(out / "training.json", mark, _LEFT)
    return done if done is not None and policy_is_whole(out / "policy") else None


def _restore_last(trainer: Any, final: Path) -> list[dict[str, float]]:
    """Load the weights of a run that was killed after its last step, and return its log."""
    trainer._load_from_checkpoint(str(final))
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
