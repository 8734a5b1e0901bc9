"""A queue of worker processes, and whoever watches their progress."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from dpad_fast.train.config import TrainConfig
from dpad_fast.train.resume import read_json, write_json


@dataclass(frozen=True)
class Job:
    """One process: train a configuration, or measure its untrained policy.

    Attributes:
        label: shown to the reader.
        kind: "train" or "measure".
        config: of the run.
        before: the shared measurement of the untrained policy.
    """

    label: str
    kind: str
    config: TrainConfig
    before: Path

    @property
    def finished(self) -> bool:
        """Whether its result is there already, from an earlier call."""
        if self.kind == "measure":
            from dpad_fast.evaluate.experiment import before_mark

            there = read_json(self.before)
            return isinstance(there, dict) and there.get("mark") == before_mark(self.config)
        there = read_json(Path(self.config.out) / "result.json")
        return isinstance(there, dict) and there.get("fingerprint") == self.config.fingerprint()


class Watcher(Protocol):
    """Sees what happens; see `display.py`."""

    def started(self, job: Job) -> None:
        """A process was started."""

    def progressed(self, job: Job, line: Mapping[str, Any]) -> None:
        """It wrote a line: stage, done, of, metrics."""

    def ended(self, job: Job, seconds: float, skipped: bool) -> None:
        """It ended well, or was found finished."""


class JobFailed(ValueError):
    """A worker ended with an error; the message has its last words."""


def _start(job: Job) -> tuple[subprocess.Popen[str], Path]:
    """Start a worker with its own thread count, its errors in a file."""
    folder = Path(job.config.out) if job.kind == "train" else job.before.parent
    folder.mkdir(parents=True, exist_ok=True)
    order = folder / f"job-{job.kind}.json"
    write_json(order, {"kind": job.kind, "config": job.config.as_dict(), "before": str(job.before)})
    threads = str(max(1, job.config.threads))
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    environment |= {name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    log = folder / f"job-{job.kind}.log"
    command = [sys.executable, "-m", "dpad_fast.demo.worker", str(order)]
    with log.open("w") as errors:
        # A byte of a library's own words that is no UTF-8 must not end the thread that listens.
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8", errors="replace", env=environment
        )
    return process, log


def _listen(job: Job, process: subprocess.Popen[str], events: SimpleQueue[tuple[Job, Any]]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            try:
                events.put((job, json.loads(line)))
            except ValueError:  # a library printed something
                continue
    events.put((job, process.wait()))


def run_jobs(jobs: Sequence[Job], watcher: Watcher, workers: int) -> None:
    """Run all jobs, `workers` at a time; jobs that are finished from an earlier call are not run again.

    Args:
        jobs: in the order in which to start them.
        watcher: told what happens.
        workers: processes at a time.

    Raises:
        JobFailed: if a worker ended with an error; the others are stopped.
    """
    events: SimpleQueue[tuple[Job, Any]] = SimpleQueue()
    waiting = []
    for job in jobs:
        if job.finished:
            watcher.ended(job, 0.0, skipped=True)
        else:
            waiting.append(job)
    running: dict[str, tuple[subprocess.Popen[str], Path, float]] = {}
    listeners: list[threading.Thread] = []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                process, log = _start(job)
                running[job.label] = (process, log, time.perf_counter())
                watcher.started(job)
                listeners.append(threading.Thread(target=_listen, args=(job, process, events), daemon=True))
                listeners[-1].start()
            job, event = events.get()
            if isinstance(event, dict):
                watcher.progressed(job, event)
                continue
            _, log, began = running.pop(job.label)
            if event != 0:
                raise JobFailed(f"{job.label} ended with status {event}: {_last_words(log)} (all of it: {log})")
            watcher.ended(job, time.perf_counter() - began, skipped=False)
    finally:
        for process, _, _ in running.values():
            process.terminate()
        for listener in listeners:
            listener.join()


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
