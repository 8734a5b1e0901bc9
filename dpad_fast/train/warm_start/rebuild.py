"""Makes every shipped checkpoint again from nothing: `dpad-fast data shapes --rebuild`.

Every stage has a fixed number of steps and a fixed seed:

    clip                 the small CLIP
    vision               the policy's vision tower
    policy-f             the policy's language model, from vision: half lists of shapes with boxes, half mixture F
    policy-e, policy-j   warm starts that continue from policy-f, at the same time
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dpad_fast import files
from dpad_fast.data.shapes_text import MIXTURES
from dpad_fast.train.warm_start.small_clip import ClipTraining
from dpad_fast.train.warm_start.small_policy import TrainingProgress, TrainingStage
from dpad_fast.workers import worker_pool

CLIP = ClipTraining()
VISION = TrainingStage(steps=1000, batch=48, lr=1e-3)


@dataclass(frozen=True)
class Lesson:
    """One stage of the language model's training.

    Attributes:
        name: folder that it writes.
        start: folder that it starts from.
        mixture: key of `MIXTURES`.
        stage: steps, batch, learning rate, seed.
        listing: share of batches that list shapes with boxes; see `listing_of`.
    """

    name: str
    start: str
    mixture: str
    stage: TrainingStage
    listing: float = 0.0


BASE = Lesson("policy-f", "vision", "f", TrainingStage(1600, 32, 2.5e-3, seed=0), listing=0.5)
CONTINUED = (  # at the same time, in two processes
    Lesson("policy-e", "policy-f", "e", TrainingStage(300, 32, 4e-4, seed=1)),
    Lesson("policy-j", "policy-f", "j", TrainingStage(260, 32, 4e-4, seed=2)),
)


def _print_progress(name: str, step: int, steps: int, values: dict[str, float]) -> None:
    if step % 100 == 0 or step == steps:
        shown = "  ".join(f"{key} {value:.4f}" for key, value in values.items())
        print(f"{name:<10} step {step:>5}/{steps}  {shown}", flush=True)


def _progress(name: str) -> TrainingProgress:
    return partial(_print_progress, name)


def make_clip(out: Path) -> dict[str, float]:
    """Train and save the small CLIP; returns its held-out rates."""
    from dpad_fast.train.warm_start import small_clip

    model = small_clip.train(CLIP, _progress("clip"))
    small_clip.save(model, out / "clip")
    return small_clip.held_out(model)


def make_vision(out: Path) -> float:
    """Train and save the vision tower in an otherwise untrained policy; returns its accuracy."""
    from dpad_fast.train.policy import build_policy
    from dpad_fast.train.warm_start import small_policy

    model = build_policy(seed=0)
    right = small_policy.train_vision(model, VISION, _progress("vision"))
    small_policy.save(model, out / "vision")
    return right


def make_policy(out: Path, lesson: Lesson) -> None:
    """Train the language model of the policy in `out/START` and save it as `out/NAME`."""
    from dpad_fast.train.policy import load_policy
    from dpad_fast.train.warm_start import small_policy

    model, _ = load_policy(out / lesson.start)
    small_policy.train_language(
        model,
        MIXTURES[lesson.mixture],
        lesson.stage,
        listing=lesson.listing,
        progress=_progress(lesson.name),
    )
    small_policy.save(model, out / lesson.name)


def _make_policy_alone(out: Path, lesson: Lesson) -> None:
    """`make_policy` in a process that shares the machine with another."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    make_policy(out, lesson)


def rebuild(out: Path) -> dict[str, Any]:
    """Train all checkpoints into `out` and write `out/manifest.json`.

    Returns:
        What the manifest holds: settings, seconds, the small CLIP's held-out rates, the vision tower's accuracy.
    """
    files.make_folder(out)
    started = time.perf_counter()
    seconds: dict[str, float] = {}

    def finished(*names: str) -> None:
        seconds.update({name: round(time.perf_counter() - started, 1) for name in names})

    rates = make_clip(out)
    finished("clip")
    right = make_vision(out)
    finished("vision")
    make_policy(out, BASE)
    finished(BASE.name)
    with worker_pool(2) as pool:
        for future in [pool.submit(_make_policy_alone, out, lesson) for lesson in CONTINUED]:
            future.result()
    finished(*(lesson.name for lesson in CONTINUED))
    shutil.rmtree(out / "vision")
    manifest = {
        "clip": {"settings": vars(CLIP), "p_s1_above_s2_on_600_held_out_scenes": rates},
        "vision": {"settings": vars(VISION), "cells_all_right": right},
        "language": {lesson.name: asdict(lesson) for lesson in (BASE, *CONTINUED)},
        "mixtures": {key: vars(mixture) for key, mixture in MIXTURES.items()},
        "finished_after_seconds": seconds,
    }
    files.write_json(out / "manifest.json", manifest, indent=2)
    return manifest
