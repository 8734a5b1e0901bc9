"""One training process of the demo: `python -m dpad_fast.demo.worker JOB.json [--end-with-stdin]`.

It reads the job, runs it on as many threads as the job says, and writes one JSON line per step to standard output. Run
again after a kill, it goes on from the last complete checkpoint. With `--end-with-stdin` it ends as soon as standard
input does, which is when the process that started it is gone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dpad_fast import files

SHOWN = ("reward", "completions/mean_length", "dpad/s1_over_s2", "rewards/iou/mean", "kl", "step_time")


def _tell(stage: str, done: int, of: int, metrics: Mapping[str, float]) -> None:
    if not of:  # a measurement begins; how long it is comes with its first batch
        return
    shown = {key: round(metrics[key], 4) for key in SHOWN if key in metrics}
    print(json.dumps({"stage": stage, "done": done, "of": of, "metrics": shown}), flush=True)


def _measure(config: Any, target: Path) -> None:
    """Sample and measure the untrained policy, once for all runs that start from it."""
    import torch

    from dpad_fast.evaluate.policies import evaluate_policy, judge
    from dpad_fast.experiment import before_mark, measured
    from dpad_fast.train.run import judging_encoder

    if config.threads:
        torch.set_num_threads(config.threads)
    encoder = judging_encoder(config)

    def progress(done: int, of: int) -> None:
        _tell("before", done, of, {})

    make = partial(evaluate_policy, config.policy, judge(encoder), config, progress)
    measured(target, before_mark(config), make)


def _make(config: Any, marker: Path) -> None:
    """Make a checkpoint that the package does not ship."""
    import torch

    from dpad_fast.demo import makes

    if config.threads:
        torch.set_num_threads(config.threads)
    makes.make(marker, lambda step, steps, _losses: _tell("make", step, steps, {}))


def _end_with_stdin() -> None:
    """End this process when standard input ends. What it was writing is whole or absent, as after any kill."""

    def wait() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def main(argv: list[str]) -> int:
    """Run one job.

    Args:
        argv: the job's file: `{"kind": "measure", "make" or "train", "config": {...}, "before": path}`, and options.

    Returns:
        0 when done; 2 for a job that cannot be run, with the reason on standard error.
    """
    if "--end-with-stdin" in argv[1:]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the starter ends its workers
        _end_with_stdin()
    from dpad_fast.train.config import from_dict

    job = json.loads(Path(argv[0]).read_text())
    try:
        config = from_dict(job["config"])
        before = Path(job["before"])
        if job["kind"] == "make":
            _make(config, before)
            return 0
        if job["kind"] == "measure":
            _measure(config, before)
            return 0
        from dpad_fast.experiment import run_experiment

        out = files.make_folder(config.out)
        if before.is_file() and not (out / "before.json").exists():
            files.write_bytes(out / "before.json", before.read_bytes())
        run_experiment(config, _tell)
        for checkpoint in out.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)  # the trained policy is in out/policy
        return 0
    except (ValueError, OSError) as error:  # a full disk is an OSError
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
