"""The work of a contest of trainers: queries with pictures, fixed completions, and the rewards of each way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dpad_fast as df
from bench.reward import work as ways

PLAIN, OURS, OURS_ASYNC = "one at a time", "dpad_fast", "dpad_fast, async"
WAYS = (PLAIN, OURS, OURS_ASYNC)
PRESET = "dpad"  # the paper's rewards, which the one-at-a-time way computes too


@dataclass
class Step:
    """One step of a trainer.

    Attributes:
        seconds: of the whole step: generation, rewards, update.
        waited: seconds of it in which the trainer waited for rewards.
        rewards: the total of each completion, in the order of the rows.
    """

    seconds: float
    waited: float
    rewards: list[float]


@dataclass
class Work:
    """Rows and what the policy is taken to answer.

    Attributes:
        rows: one per query: prompt, image, solution and id. A step takes `queries` of them.
        texts: the completions of each row, by its id.
        queries: of a step.
        generations: completions of a query.
    """

    rows: list[dict[str, Any]]
    texts: dict[int, list[str]]
    queries: int
    generations: int
    clip: Any = field(repr=False)  # the model and its processor

    @classmethod
    def make(cls, steps: int, queries: int, generations: int) -> Work:
        """Photographs of 640 x 480 with answers of 6 to 24 words, and CLIP ViT-B/32 of the true size."""
        count = steps * queries
        pictures = [ways.photograph(i) for i in range(count)]
        made = ways.make_work(pictures, count * generations, seed=0, group=generations)
        rows, texts = [], {}
        for i in range(count):
            first = i * generations
            prompt = [{"role": "user", "content": "find the object"}]
            rows.append({"prompt": prompt, "image": pictures[i], "solution": made.solutions[first], "id": i})
            texts[i] = made.texts[first : first + generations]
        model, slow, _ = ways.make_clip()
        return cls(rows, texts, queries, generations, (model, slow))

    def scorer(self, threads: int) -> df.RewardScorer:
        """Ours, with the same rewards as the one-at-a-time way."""
        encoder = df.ClipEncoder.from_transformers(*self.clip, threads=threads)
        return df.RewardScorer(df.RewardConfig.preset(PRESET), encoder)

    def one_at_a_time(self) -> Callable[[Sequence[str], Sequence[str], Sequence[Any]], list[float]]:
        """A plain reward function as the DPAD authors' code has it."""
        return partial(plain_reward, *self.clip)


def plain_reward(
    model: Any, processor: Any, texts: Sequence[str], solutions: Sequence[str], pictures: Sequence[Any]
) -> list[float]:
    """The released rewards as the DPAD authors' code has them: two CLIP forwards a completion, one by one."""
    values = []
    for text, solution, picture in zip(texts, solutions, pictures, strict=True):
        pair = ways.one_at_a_time(ways.Work([text], [solution], [picture]), model, processor)[0]
        values.append(sum(ways.discrete(text, solution)) + float(pair[0] > pair[1]))
    return values


class Clock:
    """Adds up the seconds between `start` and `stop`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = 0.0

    def __enter__(self) -> Clock:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started

    def take(self) -> float:
        """What has added up since the last call."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds
