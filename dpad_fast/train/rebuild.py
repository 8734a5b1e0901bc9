"""Makes every shipped checkpoint again from nothing: `dpad-fast data shapes --rebuild`.

Stages by fixed step counts and seeds. Each stage starts from what the one before it wrote:

    clip                 the small CLIP
    vision               the policy's vision tower
    vision -> F          its language model on mixture F
    F -> E, F -> J       warm starts that continue from F, side by side
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from dpad_fast.data.shapes_text import MIXTURES
from dpad_fast.train.small_clip import ClipTraining
from dpad_fast.train.small_policy import Progress, Stage

CLIP = ClipTraining()
VISION = Stage(steps=1500, batch=48, lr=1e-3)
LANGUAGE = {  # setting -> (stage, share of batches that list the scene)
    "f": (Stage(steps=1500, batch=32, lr=1e-3), 0.5),
    "e": (Stage(steps=300, batch=32, lr=4e-4, seed=1), 0.0),
    "j": (Stage(steps=260, batch=32, lr=4e-4, seed=2), 0.0),
}


def _print_progress(name: str, step: int, steps: int, values: dict[str, float]) -> None:
    if step % 100 == 0 or step == steps:
        shown = "  ".join(f"{key} {value:.4f}" for key, value in values.items())
        print(f"{name:<10} step {step:>5}/{steps}  {shown}", flush=True)


def _progress(name: str) -> Progress:
    return partial(_print_progress, name)


def make_clip(out: Path) -> dict[str, float]:
    """Train and save the small CLIP; returns its held-out rates."""
    from dpad_fast.train import small_clip

    model = small_clip.train(CLIP, _progress("clip"))
    small_clip.save(model, out / "clip")
    return small_clip.held_out(model)


def make_vision(out: Path) -> float:
    """Train and save the vision tower in an otherwise untrained policy; returns its accuracy."""
    from dpad_fast.train import small_policy
    from dpad_fast.train.policy import build_policy

    model = build_policy(seed=0)
    right = small_policy.train_vision(model, VISION, _progress("vision"))
    small_policy.save(model, out / "vision")
    return right


def make_policy(out: Path, start: str, setting: str) -> None:
    """Train the language model of the policy in `out/start` on a mixture and save it as `out/policy-SETTING`."""
    from dpad_fast.train import small_policy
    from dpad_fast.train.policy import load_policy

    model, _ = load_policy(out / start)
    stage, listing = LANGUAGE[setting]
    progress = _progress(f"policy-{setting}")
    small_policy.train_language(model, MIXTURES[setting], stage, listing=listing, progress=progress)
    small_policy.save(model, out / f"policy-{setting}")


def _make_policy_alone(out: Path, start: str, setting: str) -> None:
    """`make_policy` in a process that shares the machine with another."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    make_policy(out, start, setting)


def rebuild(out: Path) -> dict[str, Any]:
    """Train all checkpoints into `out` and write `out/manifest.json`.

    Returns:
        What the manifest holds: settings, seconds, the small CLIP's held-out rates, the vision tower's accuracy.
    """
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    seconds: dict[str, float] = {}

    def finished(*names: str) -> None:
        seconds.update({name: round(time.perf_counter() - started, 1) for name in names})

    rates = make_clip(out)
    finished("clip")
    right = make_vision(out)
    finished("vision")
    make_policy(out, "vision", "f")
    finished("policy-f")
    # spawn, not fork: a forked child of a process whose OpenMP pool has run hangs in its first parallel region.
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(_make_policy_alone, out, "policy-f", setting) for setting in ("e", "j")]:
            future.result()
    finished("policy-e", "policy-j")
    shutil.rmtree(out / "vision")
    manifest = {
        "clip": {"settings": vars(CLIP), "p_s1_above_s2_on_600_held_out_scenes": rates},
        "vision": {"settings": vars(VISION), "cells_all_right": right},
        "language": {key: {**vars(stage), "listing": listing} for key, (stage, listing) in LANGUAGE.items()},
        "mixtures": {key: vars(mixture) for key, mixture in MIXTURES.items()},
        "finished_after_seconds": seconds,
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest
