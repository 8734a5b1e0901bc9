"""The scorings of training steps: whoever asks first begins one, from any thread, and all who ask for it share it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dpad_fast.types import ScoreBatch

_KEPT = 4  # scorings that are done and may still be asked for
_THREADS = 8  # batches that a scorer of several callers, such as a server, gets at once


class StepScoring:
    """One scoring, begun or done.

    Attributes:
        completions: the list object that a trainer hands to all reward functions of a step.
        content: what it and the columns hold, to be compared.
        future: the scores.
        seconds: how long the scoring took; 0 until it is done.
        told: whether it was logged.
    """

    def __init__(self, completions: Sequence[Any], content: Hashable) -> None:
        self.completions, self.content = completions, content
        self.future: Future[ScoreBatch] = Future()
        self.future.set_running_or_notify_cancel()  # one who stops waiting does not stop it for the others
        self.seconds = 0.0
        self.told = False

    def run(self, make: Callable[[], ScoreBatch], turn: AbstractContextManager[Any]) -> None:
        """Scores, and hands the scores or the error to all who wait."""
        try:
            with turn:
                started = time.perf_counter()
                batch = make()
                self.seconds = time.perf_counter() - started
        except BaseException as error:  # whoever waits must hear of it
            self.future.set_exception(error)
        else:
            self.future.set_result(batch)


class StepScorings:
    """The scorings that are under way, and the last ones that are done.

    Args:
        one_at_a_time: whether the scorer takes one batch at a time; others wait for their turn.
    """

    def __init__(self, *, one_at_a_time: bool) -> None:
        self.lock = threading.Lock()
        self._turn: AbstractContextManager[Any] = threading.Lock() if one_at_a_time else nullcontext()
        self._known: list[StepScoring] = []
        self._threads: tuple[int, ThreadPoolExecutor] | None = None

    def get(
        self, completions: Sequence[Any], content: Hashable, make: Callable[[], ScoreBatch], *, background: bool
    ) -> StepScoring:
        """The scoring of these completions; begun now, unless somebody has begun it.

        Args:
            completions: the list object.
            content: what it and the columns hold; another content is another scoring.
            make: scores.
            background: return at once, or when it is done.
        """
        with self.lock:
            for known in self._known:
                if known.completions is completions and known.content == content and not _failed(known):
                    return known
            done = [known for known in self._known if known.future.done()]
            forgotten = done[: max(0, len(done) - _KEPT + 1)]
            self._known = [known for known in self._known if known not in forgotten]
            scoring = StepScoring(completions, content)
            self._known.append(scoring)
        if background:
            self._pool().submit(scoring.run, make, self._turn)
        else:
            scoring.run(make, self._turn)
        return scoring

    def _pool(self) -> ThreadPoolExecutor:
        with self.lock:
            if self._threads is None or self._threads[0] != os.getpid():  # threads do not survive a fork
                self._threads = (os.getpid(), ThreadPoolExecutor(_THREADS, "dpad-step"))
            return self._threads[1]


def _failed(scoring: StepScoring) -> bool:
    return scoring.future.done() and scoring.future.exception() is not None
