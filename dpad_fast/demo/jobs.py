"""A queue of worker processes, and whoever watches their progress."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, NamedTuple, Protocol

from dpad_fast import files
from dpad_fast.train.config import TrainConfig
from dpad_fast.train.resume import write_json

PATIENCE = 5.0  # seconds that workers have between being asked to end and being killed


@dataclass(frozen=True)
class Job:
    """One process: train a configuration, measure its untrained policy, or make a checkpoint.

    Attributes:
        label: shown to the reader.
        kind: "train", "measure" or "make".
        config: of the run.
        before: the shared measurement of the untrained policy; of a checkpoint, its marker.
    """

    label: str
    kind: str
    config: TrainConfig
    before: Path

    @property
    def finished(self) -> bool:
        """Whether its result is there already, from an earlier call."""
        from dpad_fast.experiment import before_mark, kept_records, kept_result

        if self.kind == "make":
            from dpad_fast.demo import makes

            return makes.kept(self.before) is not None
        if self.kind == "measure":
            return kept_records(self.before, before_mark(self.config)) is not None
        return kept_result(self.config) is not None


class JobWatcher(Protocol):
    """Sees what happens; see `display.py`."""

    def started(self, job: Job) -> None:
        """A process was started."""

    def progressed(self, job: Job, line: Mapping[str, Any]) -> None:
        """It wrote a line: stage, done, of, metrics."""

    def ended(self, job: Job, seconds: float, skipped: bool) -> None:
        """It ended well, or was found finished."""

    def stopped(self, job: Job) -> None:
        """It was ended before it was done."""


class JobFailed(ValueError):
    """A worker ended with an error; the message has its last words."""


def _start(job: Job) -> tuple[subprocess.Popen[str], Path]:
    """Start a worker with its own thread count, its errors in a file."""
    folder = Path(job.config.out) if job.kind == "train" else job.before.parent
    files.make_folder(folder)
    order = folder / f"job-{job.kind}.json"
    write_json(order, {"kind": job.kind, "config": job.config.as_dict(), "before": str(job.before)})
    threads = str(max(1, job.config.threads))
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    environment |= {name: threads for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    log = folder / f"job-{job.kind}.log"
    # A pipe that nobody writes to: it ends when this process does, however it does, and the worker ends with it.
    command = [sys.executable, "-m", "dpad_fast.demo.worker", str(order), "--end-with-stdin"]
    with log.open("w") as errors:
        # A byte of a library's own words that is no UTF-8 must not end the thread that listens.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            errors="replace",
            env=environment,
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
    status = process.wait()
    if process.stdin is not None:
        process.stdin.close()
    events.put((job, status))


def run_jobs(jobs: Sequence[Job], watcher: JobWatcher, workers: int) -> None:
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
    running: dict[str, _Running] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop(0)
                process, log = _start(job)
                listener = threading.Thread(target=_listen, args=(job, process, events), daemon=True)
                running[job.label] = _Running(job, process, log, time.perf_counter(), listener)
                watcher.started(job)
                listener.start()
            job, event = events.get()
            if isinstance(event, dict):
                watcher.progressed(job, event)
                continue
            ended = running.pop(job.label)
            if event != 0:
                raise JobFailed(f"{job.label} ended with status {event}: {_last_words(ended.log)} (all: {ended.log})")
            watcher.ended(job, time.perf_counter() - ended.began, skipped=False)
    finally:
        _end(list(running.values()))
        with suppress(OSError, ValueError):  # the terminal may be gone, which is why it ends
            for left in running.values():
                watcher.stopped(left.job)


class _Running(NamedTuple):
    """A worker that has been started."""

    job: Job
    process: subprocess.Popen[str]
    log: Path
    began: float
    listener: threading.Thread


def _end(running: Sequence[_Running]) -> None:
    """End workers: ask, wait together for `PATIENCE` seconds at most, then kill. None is left when it returns."""
    for worker in running:
        worker.process.terminate()
    limit = time.monotonic() + PATIENCE
    for worker in running:
        try:
            worker.process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
    for worker in running:
        if worker.listener.ident is not None:
            worker.listener.join(1.0)  # it reads to the end of a pipe that a worker's own child may hold open


class Ended(SystemExit):
    """This process was told to end by a signal; its status is 128 + the signal's number, as a shell gives it."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signal = signal.Signals(signum).name


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `Ended`, so that what is in `finally` is done; Ctrl-C is an exception by itself.

    While that is done, further signals are ignored: it takes seconds at most. A signal that was ignored stays so
    (nohup), and threads other than the main one are left alone.

    Yields:
        Nothing.
    """

    def end(signum: int, frame: FrameType | None) -> None:
        for name in (signal.SIGINT, *taken):
            signal.signal(name, signal.SIG_IGN)
        raise Ended(signum)

    taken: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            before = signal.getsignal(name)
            if name not in taken and before is not signal.SIG_IGN:
                taken[name] = before
                signal.signal(name, end)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        for name, before in taken.items():
            signal.signal(name, before)
        if taken:
            signal.signal(signal.SIGINT, interrupt)


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
