"""Scoring beside other work: two threads, so that one batch is parsed while the encoder works on the one before it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from dpad_fast._native.streams import OwnStreams
from dpad_fast.types import ScoreBatch

FirstResult = TypeVar("FirstResult")


class PendingScore:
    """A batch that is being scored. `result()` waits for it; inside `async def`, `await` does.

    Both raise the error of the batch, such as the `ValueError` of a bad target.
    """

    def __init__(self, future: Future[ScoreBatch]) -> None:
        self._future = future
        self._process = os.getpid()

    def result(self, timeout: float | None = None) -> ScoreBatch:
        """Waits for the scores; after `timeout` seconds a TimeoutError."""
        return self._in_its_process().result(timeout)

    def done(self) -> bool:
        """Whether `result` would return at once."""
        return self._in_its_process().done()

    def __await__(self) -> Generator[Any, None, ScoreBatch]:
        return asyncio.wrap_future(self._in_its_process()).__await__()

    def _in_its_process(self) -> Future[ScoreBatch]:
        if self._process != os.getpid():  # the threads that would finish it are not in this process
            raise RuntimeError("this batch was begun by the process that this one was forked from; score it here")
        return self._future


class Background:
    """Runs jobs of two stages in order, the first stage of one beside the second stage of another.

    On a GPU they have a stream of their own, so that they run beside what the caller's streams are given meanwhile.
    """

    def __init__(self) -> None:
        self._process = 0
        self._stages: tuple[ThreadPoolExecutor, ThreadPoolExecutor] | None = None
        self._streams = OwnStreams()

    def submit(
        self,
        prepare: Callable[[], FirstResult],
        finish: Callable[[FirstResult], ScoreBatch],
        inputs: Iterable[Any] = (),
        device: torch.device | None = None,
    ) -> PendingScore:
        """Queues one job; a job that fails in its first stage never gets to the second.

        Args:
            prepare: the first stage.
            finish: the second, of what the first returns.
            inputs: what they read; those on a GPU are read as the caller's current stream leaves them.
            device: where else they work; None: on the CPU.
        """
        if self._stages is None or self._process != os.getpid():  # threads do not survive a fork
            self._stages = (ThreadPoolExecutor(1, "dpad-parse"), ThreadPoolExecutor(1, "dpad-encode"))
            self._process = os.getpid()
        first, second = self._stages
        streams = self._streams.beside(inputs, device)

        def begin() -> FirstResult:
            with streams():
                return prepare()

        prepared = first.submit(begin)

        def end() -> ScoreBatch:
            with streams():
                return finish(prepared.result())

        return PendingScore(second.submit(end))
