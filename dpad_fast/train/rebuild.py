"""Makes every shipped checkpoint again from nothing: `dpad-fast data shapes --rebuild`.

Stages by fixed step counts and seeds, two at a time, one thread each:

    clip                         the small CLIP
    vision -> language (F) -> E  the policy's warm starts; E and J continue from F
                           -> J
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from dpad_fast.data.shapes_text import MIXTURES
from dpad_fast.train.small_clip import ClipTraining
from dpad_fast.train.small_policy import Progress, Stage

CLIP = ClipTraining()
VISION = Stage(steps=1500, batch=48, lr=1e-3)
LANGUAGE = Stage(steps=1100, batch=32, lr=1e-3)
CONTINUED = {"e": Stage(steps=300, batch=32, lr=4e-4, seed=1), "j": Stage(steps=260, batch=32, lr=4e-4, seed=2)}


def _print_progress(name: str, step: int, steps: int, values: dict[str, float]) -> None:
    if step % 100 == 0 or step == steps:
        shown = "  ".join(f"{key} {value:.4f}" for key, value in values.items())
        print(f"{name:<10} step {step:>5}/{steps}  {shown}", flush=True)


def _progress(name: str) -> Progress:
    return partial(_print_progress, name)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def make_clip(out: Path) -> dict[str, float]:
    """Train and save the small CLIP; returns its held-out rates."""
    from dpad_fast.train import small_clip

    _one_thread()
    model = small_clip.train(CLIP, _progress("clip"))
    small_clip.save(model, out / "clip")
    return small_clip.held_out(model)


def make_base(out: Path) -> dict[str, float]:
    """Train the vision tower and the language model on mixture F, and save F; returns the vision tower's accuracy."""
    from dpad_fast.train import small_policy
    from dpad_fast.train.policy import build_policy

    _one_thread()
    model = build_policy(seed=0)
    right = small_policy.train_vision(model, VISION, _progress("vision"))
    small_policy.train_language(model, MIXTURES["f"], LANGUAGE, listing=0.5, progress=_progress("policy-f"))
    small_policy.save(model, out / "policy-f")
    return {"vision_cells_right": right}


def make_continued(out: Path, setting: str) -> None:
    """Continue F on mixture E or J and save the result."""
    from dpad_fast.train import small_policy
    from dpad_fast.train.policy import load_policy

    _one_thread()
    model, _ = load_policy(out / "policy-f")
    stage = CONTINUED[setting]
    small_policy.train_language(model, MIXTURES[setting], stage, listing=0.0, progress=_progress(f"policy-{setting}"))
    small_policy.save(model, out / f"policy-{setting}")


def rebuild(out: Path) -> dict[str, Any]:
    """Train all checkpoints into `out` and write `out/manifest.json`.

    Returns:
        What the manifest holds: settings, seconds, the small CLIP's held-out rates, the vision tower's accuracy.
    """
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    seconds: dict[str, float] = {}

    def run(pool: ProcessPoolExecutor, name: str, work: Callable[..., Any], *args: Any) -> Future[Any]:
        future = pool.submit(work, *args)
        future.add_done_callback(lambda _: seconds.__setitem__(name, round(time.perf_counter() - started, 1)))
        return future

    # spawn, not fork: a forked child of a process whose OpenMP pool has run hangs in its first parallel region.
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        clip = run(pool, "clip", make_clip, out)
        base = run(pool, "policy-f", make_base, out).result()
        continued = [run(pool, f"policy-{key}", make_continued, out, key) for key in CONTINUED]
        rates = clip.result()
        for future in continued:
            future.result()
    manifest = {
        "clip": {"settings": vars(CLIP), "p_s1_above_s2_on_600_held_out_scenes": rates},
        "vision": {"settings": vars(VISION), **base},
        "language": {"f": vars(LANGUAGE), **{key: vars(stage) for key, stage in CONTINUED.items()}},
        "mixtures": {key: vars(mixture) for key, mixture in MIXTURES.items()},
        "finished_after_seconds": seconds,
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest
