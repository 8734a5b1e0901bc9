"""A pool of Ray actors, each with a scorer of its own, behind the `score` of a scorer. See docs/scale.md."""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
import weakref
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch

from dpad_fast.rewards.arguments import check_lengths, snapshot
from dpad_fast.rewards.background import PendingScore
from dpad_fast.rewards.batch import joined
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.spaces import ModelSizes, sizes_of
from dpad_fast.rewards.spec import ScorerSpec
from dpad_fast.row_errors import RowErrors
from dpad_fast.types import ScoreBatch, Target

_TRIES = 4  # actors that may die under the same rows before these are given up


class RayScorer:
    """Scores like a `RewardScorer`, in Ray actors.

    Rows go to the actors in turn, `rows` of them at a time. An actor that dies or stands still is replaced, and its
    rows are scored by the next one, so that no row is lost. Embeddings of pictures are kept in one folder for all
    actors. May be called from several threads.

    Args:
        spec: the scorer. Its device is "cpu", or "cuda" with `num_gpus`.
        actors: how many.
        num_cpus: CPUs that Ray keeps for each actor; a fraction is possible.
        num_gpus: GPUs that Ray keeps for each actor; a fraction is possible. Without any, Ray hides them.
        threads: CPU threads of each actor, since Ray allows one otherwise. `spec.threads` when None, else as many as
            `num_cpus`, at least one.
        rows: rows of one call of an actor; a larger batch is scored by several actors at once.
        timeout_s: how long an actor may take for a call, and to start, in seconds.

    Raises:
        ValueError: an argument is out of range, or device and `num_gpus` contradict each other.
        RuntimeError: Ray is not initialised, or the actors did not start in time; says what Ray has.
    """

    def __init__(
        self,
        spec: ScorerSpec,
        actors: int = 2,
        *,
        num_cpus: float = 1,
        num_gpus: float = 0,
        threads: int | None = None,
        rows: int = 128,
        timeout_s: float = 600,
    ) -> None:
        import ray

        for name, value in (("actors", actors), ("rows", rows)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r:.80}")
        _check_device(spec.device, num_gpus)
        if not ray.is_initialized():
            raise RuntimeError("Ray is not initialised: call ray.init() first, here or on a cluster")
        threads = threads or spec.threads or max(1, int(num_cpus))
        self._folder = None
        if spec.cache is None and spec.config.needs_encoder:
            self._folder = tempfile.TemporaryDirectory(prefix="dpad-fast-embeddings-")
            spec = replace(spec, cache=self._folder.name)
        self.spec = replace(spec, threads=threads)
        self._rows, self._timeout = rows, timeout_s
        self._options = {
            "num_cpus": num_cpus,
            "num_gpus": num_gpus,
            # OpenMP reads it when it starts, before the actor's first line.
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads)}},
        }
        self._lock = threading.Lock()
        self._turn = itertools.count()
        self._threads = ThreadPoolExecutor(max(8, actors), "dpad-ray")
        self._actors = [self._new() for _ in range(actors)]
        self._close = weakref.finalize(self, _end, self._actors, self._threads)
        self._start()

    @property
    def config(self) -> RewardConfig:
        """The scorers' configuration."""
        return self.spec.config

    @property
    def pids(self) -> list[int]:
        """The process number of each actor, on its own machine."""
        import ray

        numbers: list[int] = ray.get([actor.pid.remote() for actor in self._actors], timeout=self._timeout)
        return numbers

    def score(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None = None,
        image_keys: Sequence[Hashable] | None = None,
        model_sizes: ModelSizes | None = None,
        on_error: str = "raise",
    ) -> ScoreBatch:
        """`RewardScorer.score`, by the actors; that images of equal keys are equal is looked at among `rows` rows.

        Raises:
            ValueError: as `RewardScorer.score`; of several bad rows the first is named.
            RuntimeError: the scorer itself failed, or actors died under these rows again and again.
        """
        keep = RowErrors(on_error).kept
        count = check_lengths(completions, targets, images, model_sizes)
        sizes = sizes_of(model_sizes, images) if callable(model_sizes) else model_sizes
        columns = {"completions": completions, "targets": targets, "images": images}
        columns |= {"image_keys": image_keys, "model_sizes": sizes}
        if image_keys is not None and len(image_keys) != count:
            raise ValueError(f"image_keys has {len(image_keys)} entries for {count} completions")
        begun = []
        for first in range(0, max(count, 1), self._rows):
            rows = slice(first, first + self._rows)
            piece = {name: None if column is None else list(column[rows]) for name, column in columns.items()}
            begun.append((first, *self._send(piece)))
        parts = [joined([self._result(*each)], first) for first, *each in begun]
        batch = parts[0] if len(parts) == 1 else joined(parts)
        wrong = None if keep else next((error for error in batch.errors if error is not None), None)
        if wrong is not None:
            raise ValueError(wrong)
        return batch

    def score_async(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None = None,
        image_keys: Sequence[Hashable] | None = None,
        model_sizes: ModelSizes | None = None,
        on_error: str = "raise",
    ) -> PendingScore:
        """`score` in the background: returns at once a handle as `RewardScorer.score_async` does."""
        texts, truths, shown, keys, sizes = map(snapshot, (completions, targets, images, image_keys, model_sizes))
        return PendingScore(self._threads.submit(self.score, texts, truths, shown, keys, sizes, on_error))

    def close(self) -> None:
        """Ends the actors."""
        self._close()
        if self._folder is not None:
            self._folder.cleanup()

    def __enter__(self) -> RayScorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise TypeError("a RayScorer cannot be pickled, for it owns actors; send its spec and make one there")

    def _new(self) -> Any:
        import ray

        return ray.remote(_Actor).options(**self._options).remote(self.spec)

    def _start(self) -> None:
        import ray

        try:
            ray.get([actor.pid.remote() for actor in self._actors], timeout=self._timeout)
        except ray.exceptions.GetTimeoutError:
            has, wanted = ray.cluster_resources(), {name: self._options[name] for name in ("num_cpus", "num_gpus")}
            self.close()
            raise RuntimeError(
                f"{len(self._actors)} actors of {wanted} did not start in {self._timeout:g} s; the cluster has "
                f"{has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs"
            ) from None
        except ray.exceptions.RayActorError as error:  # its scorer could not be made
            self.close()
            raise RuntimeError(f"an actor could not make its scorer: {error}") from error

    def _send(self, piece: dict[str, Any]) -> tuple[dict[str, Any], Any, Any]:
        """Gives rows to the next actor: the rows, the actor, and what will be its answer."""
        with self._lock:
            actor = self._actors[next(self._turn) % len(self._actors)]
        return piece, actor, actor.score.remote(piece)

    def _result(self, piece: dict[str, Any], actor: Any, answer: Any) -> ScoreBatch:
        import ray

        for _ in range(_TRIES):
            try:
                batch: ScoreBatch = ray.get(answer, timeout=self._timeout)
                return batch
            except ray.exceptions.RayTaskError as error:
                raise RuntimeError(f"the scorer of a Ray actor failed: {error.cause}") from error
            except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
                last = error
                self._replace(actor)
            _, actor, answer = self._send(piece)
        raise RuntimeError(f"{_TRIES} actors died under the same {len(piece['completions'])} rows: {last}") from last

    def _replace(self, dead: Any) -> None:
        """Puts a new actor where one is dead; several rows may have waited for it."""
        import ray

        with self._lock:
            if dead in self._actors:
                ray.kill(dead)
                self._actors[self._actors.index(dead)] = self._new()


class _Actor:
    """What runs in an actor."""

    def __init__(self, spec: ScorerSpec) -> None:
        torch.set_num_threads(spec.threads or 1)
        self._scorer = spec.build()

    def pid(self) -> int:
        return os.getpid()

    def score(self, columns: dict[str, Any]) -> ScoreBatch:
        return self._scorer.score(**columns, on_error="row")


def _check_device(device: str, num_gpus: float) -> None:
    if num_gpus and device != "cuda":
        raise ValueError(
            f"spec.device is {device!r}: with num_gpus={num_gpus:g} it must be 'cuda', the GPU that Ray gives"
        )
    if not num_gpus and device != "cpu":
        raise ValueError(f"spec.device is {device!r}, but num_gpus is 0, and Ray hides all GPUs from such an actor")


def _end(actors: list[Any], threads: ThreadPoolExecutor) -> None:
    import ray

    threads.shutdown(wait=False)
    if ray.is_initialized():
        for actor in actors:
            ray.kill(actor)
