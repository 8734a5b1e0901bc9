"""`MicroBatcher`: rows that arrive one at a time, from threads and event loops, scored together."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any

from dpad_fast._native.streams import OwnStreams
from dpad_fast.rewards.arguments import tensors
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.scored_row import ScoredRow
from dpad_fast.rewards.spaces import ModelSizes, sizes_of
from dpad_fast.row_errors import RowErrors, moved
from dpad_fast.types import ScoreBatch, Target

Observer = Callable[[int, float, "ScoreBatch | None"], None]
_LATELY = 4  # batches


@dataclass
class _Request:
    """Rows that one caller handed in; they are scored in one batch, with others'."""

    completions: list[Any]
    targets: list[Any]
    images: list[Any] | None
    keys: list[Hashable] | None
    sizes: list[Any] | None
    streams: Callable[[], AbstractContextManager[None]] | None = None  # where pictures are on a GPU
    future: Future[ScoreBatch] = field(default_factory=Future)

    def __len__(self) -> int:
        return len(self.completions)


class MicroBatcher:
    """Collects rows for a moment and scores them at once; every caller gets what `scorer.score` gives for its rows.

    A batch begins with its first row and is scored `window_ms` later, by a single thread; at once where it has
    `max_batch` rows, or where as many callers wait as were seen to wait together lately: then nobody else is coming.
    What arrives meanwhile is the next batch. A row that cannot be scored is left unscored with a reason, and one that
    makes the scorer fail raises for its own caller; all others get their scores. Where no server answers
    (`ConnectionError`), all callers of the batch hear of it.

    Args:
        scorer: a `RewardScorer`, or anything with its `score` and `config`.
        window_ms: how long the first row of a batch waits for others at most, in milliseconds.
        max_batch: rows of a batch; rows that are handed in together (`submit_rows`) are not divided.
        observe: called after each call of the scorer with its rows, its seconds and its scores (None: it failed), from
            the thread that scores.

    Raises:
        ValueError: `window_ms` or `max_batch` is out of range.
    """

    def __init__(
        self, scorer: Any, window_ms: float = 30, max_batch: int = 256, *, observe: Observer | None = None
    ) -> None:
        if isinstance(window_ms, bool) or not isinstance(window_ms, int | float) or not 0 <= window_ms <= 60_000:
            raise ValueError(f"window_ms must be from 0 to 60000 milliseconds, got {window_ms!r:.80}")
        if type(max_batch) is not int or max_batch < 1:
            raise ValueError(f"max_batch must be a whole number of at least 1, got {max_batch!r:.80}")
        self.scorer = scorer
        self._queue = _Queue(scorer, window_ms / 1000, max_batch, observe)
        # At the end of the process, and when nobody holds this any more: what was accepted is scored, the thread ends.
        self._close = weakref.finalize(self, _Queue.close, self._queue)

    @property
    def config(self) -> RewardConfig:
        """The scorer's configuration."""
        config: RewardConfig = self.scorer.config
        return config

    @property
    def waiting(self) -> int:
        """Rows that are accepted and not yet answered."""
        return self._queue.waiting

    def submit(
        self,
        completion: str,
        target: Target | str,
        image: Any = None,
        image_key: Hashable = None,
        model_size: Any = None,
    ) -> Future[ScoredRow]:
        """Hands in one row.

        Args:
            completion: the answer's text. Here and below a `ValueError` stands for what could not be read.
            target: its ground truth, or the solution's text.
            image: the picture, where a term looks at one.
            image_key: images of equal keys must be equal, also those of other callers. None: compared by content.
            model_size: (width, height) of the picture that the model saw, or None.

        Returns:
            A future. A row that cannot be scored is NaN with its reason and error; the future raises only where the
            scorer itself fails. Cancelling it leaves the row out if its batch has not begun.

        Raises:
            RuntimeError: this is closed, or of the process that this one was forked from.
        """
        rows = self._queue.put(
            _Request(
                [completion],
                [target],
                None if image is None else [image],
                None if image_key is None else [image_key],
                None if model_size is None else [model_size],
            )
        )
        future: Future[ScoredRow] = Future()
        rows.add_done_callback(lambda done: _hand_on(done, future))
        future.add_done_callback(lambda row: rows.cancel() if row.cancelled() else None)
        return future

    async def score_one(
        self,
        completion: str,
        target: Target | str,
        image: Any = None,
        image_key: Hashable = None,
        model_size: Any = None,
    ) -> ScoredRow:
        """`submit`, awaited: for a reward function that is called once per sample, on any event loop."""
        return await asyncio.wrap_future(self.submit(completion, target, image, image_key, model_size))

    def submit_rows(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None = None,
        image_keys: Sequence[Hashable] | None = None,
        model_sizes: Sequence[Any] | None = None,
    ) -> Future[ScoreBatch]:
        """Hands in N rows of one caller, as `RewardScorer.score(..., on_error="row")` takes them.

        `model_sizes` is a list here, and no function.

        Returns:
            A future of their `ScoreBatch`; `timings` are those of the whole batch.

        Raises:
            ValueError: the lists have different lengths.
            RuntimeError: as `submit`.
        """
        given = {"targets": targets, "images": images, "image_keys": image_keys, "model_sizes": model_sizes}
        for name, column in given.items():
            if column is not None and len(column) != len(completions):
                raise ValueError(f"{name} has {len(column)} entries for {len(completions)} completions")
        images, image_keys, model_sizes = (
            None if column is None else list(column) for column in (images, image_keys, model_sizes)
        )
        return self._queue.put(_Request(list(completions), list(targets), images, image_keys, model_sizes))

    def score(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None = None,
        image_keys: Sequence[Hashable] | None = None,
        model_sizes: ModelSizes | None = None,
        on_error: str = "raise",
    ) -> ScoreBatch:
        """`RewardScorer.score`, with the rows of other callers; of several bad rows the first is raised."""
        keep = RowErrors(on_error).kept
        sizes = sizes_of(model_sizes, images) if callable(model_sizes) else model_sizes
        batch = self.submit_rows(completions, targets, images, image_keys, sizes).result()
        wrong = None if keep else next((error for error in batch.errors if error is not None), None)
        if wrong is not None:
            raise ValueError(wrong)
        return batch

    def close(self) -> None:
        """Accepts no more rows, and returns when those that were accepted are scored."""
        self._close()

    def __enter__(self) -> MicroBatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError(
            "a MicroBatcher cannot be pickled, for it has a thread and callers that wait. Send the ScorerSpec of its "
            "scorer and make one there, or serve one scorer to all processes (dpad-fast serve, RemoteScorer)"
        )


class _Queue:
    """What the thread of a `MicroBatcher` holds, so that the batcher itself can be collected."""

    def __init__(self, scorer: Any, window: float, most: int, observe: Observer | None) -> None:
        self._scorer, self._window, self._most, self._observe = scorer, window, most, observe
        self._process = os.getpid()
        self._streams = OwnStreams()
        self._changed = threading.Condition()
        self._requests: deque[tuple[float, _Request]] = deque()
        self._rows = 0
        self._lately: deque[int] = deque(maxlen=_LATELY)  # callers that waited when a batch was done
        self._closing = False
        self._thread: threading.Thread | None = None
        self.waiting = 0

    def put(self, request: _Request) -> Future[ScoreBatch]:
        if self._process != os.getpid():
            raise RuntimeError("this MicroBatcher belongs to the process that this one was forked from; make one here")
        pixels = tensors(request.images)
        if any(image.is_cuda for image in pixels):  # on the stream that this caller's kernels fill them on
            request.streams = self._streams.beside(pixels, None)
        with self._changed:
            if self._closing:
                raise RuntimeError("this MicroBatcher is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dpad-batch", daemon=True)
                self._thread.start()
            self._requests.append((time.monotonic(), request))
            self._rows += len(request)
            self.waiting += len(request)
            if len(self._requests) == 1 or self._complete():
                self._changed.notify()
        return request.future

    def close(self) -> None:
        if self._process != os.getpid():
            return
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while self._work(self._take()):
            pass  # no name here keeps the rows of a batch that is done

    def _work(self, requests: list[_Request]) -> bool:
        """Scores a batch; whether there was one."""
        live = [request for request in requests if request.future.set_running_or_notify_cancel()]
        # A list of images has no entry that says "none": rows without are scored apart.
        for group in ([j for j in live if j.images is not None], [j for j in live if j.images is None]):
            if group:
                self._score(group)
        with self._changed:
            self.waiting -= sum(map(len, requests))
        found = bool(requests)
        requests.clear()  # as in `_score`
        live.clear()
        return found

    def _take(self) -> list[_Request]:
        """The next batch, when its time has come; empty when there will be none."""
        with self._changed:
            while not self._requests:
                if self._closing:
                    return []
                self._changed.wait()
            due = self._requests[0][0] + self._window
            while not self._complete() and not self._closing and (left := due - time.monotonic()) > 0:
                self._changed.wait(left)
            taken: list[_Request] = []
            count = 0
            while self._requests and (not taken or count + len(self._requests[0][1]) <= self._most):
                taken.append(self._requests.popleft()[1])
                count += len(taken[-1])
            self._rows -= count
            return taken

    def _complete(self) -> bool:
        """Whether a batch has all the rows that it will get."""
        everybody = bool(self._lately) and len(self._requests) >= max(self._lately)
        return everybody or self._rows >= self._most

    def _score(self, requests: list[_Request]) -> None:
        """Scores requests together; where the scorer fails, in halves, until it fails for one request alone."""
        started = time.perf_counter()
        batch: ScoreBatch | None = None
        failure: BaseException | None = None
        try:
            with ExitStack() as there:
                for streams in [request.streams for request in requests if request.streams is not None]:
                    there.enter_context(streams())
                batch = self._scorer.score(*_merged(requests), on_error="row")
        except BaseException as error:  # also what ends a thread: the callers must hear of it
            failure = error
        self._tell(sum(map(len, requests)), time.perf_counter() - started, batch)
        self._lately.append(len(requests) + len(self._requests))  # before the answers, for who has one comes again
        # A server that is not there is no row's fault: to try each half would take its time over and over.
        if batch is not None or len(requests) == 1 or isinstance(failure, ConnectionError):
            _settle(requests, batch, failure)
        else:
            middle = len(requests) // 2
            self._score(requests[:middle])
            self._score(requests[middle:])
        # A failure's traceback holds this frame: with the futures in it, they and all rows would keep each other.
        failure = None
        requests.clear()

    def _tell(self, rows: int, seconds: float, batch: ScoreBatch | None) -> None:
        if self._observe is not None:
            try:
                self._observe(rows, seconds, batch)
            except Exception:  # of whoever watches; those who wait for scores are no part of it
                logging.getLogger(__name__).exception("the observer of a MicroBatcher failed")


def _settle(requests: list[_Request], batch: ScoreBatch | None, failure: BaseException | None) -> None:
    """Answers the callers: each with its rows of the batch, or all with the failure."""
    first = 0
    for request in requests:
        if batch is None:
            request.future.set_exception(failure)
        else:
            request.future.set_result(_part(batch, first, len(request)))
            first += len(request)


def _merged(requests: list[_Request]) -> tuple[Any, ...]:
    """The arguments of `score` for the rows of several requests."""
    completions = [text for request in requests for text in request.completions]
    targets = [target for request in requests for target in request.targets]
    images = None if requests[0].images is None else [image for request in requests for image in request.images or ()]
    columns = []
    for name in ("keys", "sizes"):
        given = any(getattr(request, name) is not None for request in requests)
        merged = [value for request in requests for value in getattr(request, name) or [None] * len(request)]
        columns.append(merged if given else None)
    return completions, targets, images, *columns


def _part(batch: ScoreBatch, first: int, count: int) -> ScoreBatch:
    """The rows of one request, with messages that name its own rows."""
    if len(batch) == count:
        return batch
    rows = slice(first, first + count)
    errors = (moved(error, -first) for error in batch.errors[rows])
    return ScoreBatch(
        total=batch.total[rows].clone(),
        terms={name: column[rows].clone() for name, column in batch.terms.items()},
        similarity={name: column[rows].clone() for name, column in batch.similarity.items()},
        reasons=batch.reasons[rows],
        timings=batch.timings,
        errors=tuple(errors),
    )


def _hand_on(done: Future[ScoreBatch], row: Future[ScoredRow]) -> None:
    if done.cancelled() or not row.set_running_or_notify_cancel():
        return
    failure = done.exception()
    if failure is not None:
        row.set_exception(failure)
        return
    row.set_result(ScoredRow.of(done.result(), 0))
