"""One step of a trainer, watched from outside: its completions, rewards and updates, and how long each stage took."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch

from dpad_fast.ops.group_advantage import group_advantage
from dpad_fast.rewards import RewardScorer
from dpad_fast.rewards.spaces import ModelSizes
from dpad_fast.train.group_advantage_mixin import TRL_EPS
from dpad_fast.train.right_answer import full_marks, right_answer
from dpad_fast.types import ScoreBatch, Target

GENERATIONS = 2
Done = Callable[..., None]
"""Called with the name of a stage, when it started, and facts."""


class WatchedScorer(RewardScorer):
    """A scorer that remembers its last batch and how long it took."""

    last: ScoreBatch | None = None
    given: tuple[list[Any], list[Any], Any] = ([], [], None)
    seconds = 0.0

    def score(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None = None,
        image_keys: Sequence[Hashable] | None = None,
        model_sizes: ModelSizes | None = None,
        on_error: str = "raise",
    ) -> ScoreBatch:
        """As `RewardScorer.score`; the arguments, the result and the seconds are kept."""
        started = time.perf_counter()
        self.given = (list(targets), list(images or ()), model_sizes)
        self.last = super().score(completions, targets, images, image_keys, model_sizes, on_error)
        self.seconds = time.perf_counter() - started
        return self.last


class WatchedStep:
    """A trainer whose one step is watched from outside."""

    def __init__(self, trainer: Any, scorer: WatchedScorer) -> None:
        self.trainer, self.scorer, self.processor = trainer, scorer, trainer.processing_class
        self.seconds: dict[str, float] = {}
        self.seen: dict[str, Any] = {}
        self._watch("_generate", lambda args, found: found)
        self._watch("_calculate_rewards", self._tell_apart)
        self._watch("_generate_and_score_completions", lambda args, found: found)

    def _watch(self, name: str, after: Callable[[Any, Any], Any]) -> None:
        plain = getattr(self.trainer, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            found = after(args, plain(*args, **kwargs))
            self.seconds[name] = time.perf_counter() - started
            self.seen[name] = (args, found)
            return found

        setattr(self.trainer, name, watched)

    def _tell_apart(self, args: Any, rewards: torch.Tensor) -> torch.Tensor:
        """Changes some rewards: a random policy's answers are equally bad, and equal rewards give no update."""
        weighted = torch.nan_to_num(rewards * self.trainer.reward_weights.to(rewards)).sum(dim=1)
        groups = weighted.view(-1, GENERATIONS)
        self.seen["equal"] = bool((groups == groups[:, :1]).all())
        if self.seen["equal"]:
            rewards = rewards.clone()
            column = int((self.trainer.reward_weights != 0).nonzero()[0])
            rewards[::GENERATIONS, column] = torch.nan_to_num(rewards[::GENERATIONS, column]) + 1.0
            self.trainer._gathered = rewards
        return rewards

    def step(self, done: Done) -> None:
        """One optimiser step, told as generation, reward, advantage and update."""
        before = {name: value.detach().clone() for name, value in self._trained()}
        started = time.perf_counter()
        self.trainer.train()
        whole = time.perf_counter() - started
        (_, _, completions, ids), rewards = self.seen["_calculate_rewards"]
        lengths = [len(each) for each in ids]
        text = completions[0][0]["content"] if isinstance(completions[0], list) else completions[0]
        now = time.perf_counter()
        done("generation", now - self.seconds["_generate"], completions=len(ids), tokens=lengths, first=text)
        self._tell_reward(now, done)
        again = time.perf_counter()
        weights = self.trainer.reward_weights
        expected = group_advantage(rewards, GENERATIONS, scale=self.trainer._advantage, eps=TRL_EPS, weights=weights)
        found = self.seen["_generate_and_score_completions"][1]["advantages"]
        if not torch.allclose(expected.to(found), found):
            raise ValueError(
                f"the trainer's advantages {found.tolist()} are not those of its rewards {expected.tolist()}"
            )
        note = {"note": "equal rewards; the first of each group was given 1 more"} if self.seen["equal"] else {}
        done("advantage", again, values=[round(value, 3) for value in found.tolist()], **note)
        self._tell_update(now, whole - self.seconds["_generate_and_score_completions"], before, done)

    def _trained(self) -> list[tuple[str, torch.Tensor]]:
        return [(name, value) for name, value in self.trainer.model.named_parameters() if value.requires_grad]

    def _tell_reward(self, now: float, done: Done) -> None:
        batch = self.scorer.last
        if batch is None:
            raise ValueError("no reward function scored the completions")
        totals = [round(value, 3) for value in batch.total.tolist()]
        done("reward", now - self.scorer.seconds, totals=totals, reasons=[str(reason) for reason in batch.reasons])

    def _tell_update(self, now: float, seconds: float, before: Mapping[str, torch.Tensor], done: Done) -> None:
        line = next(line for line in self.trainer.state.log_history if "loss" in line or "grad_norm" in line)
        loss, norm = float(line.get("loss", math.nan)), float(line.get("grad_norm", math.nan))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise ValueError(f"the update is no number: loss {loss}, norm of the gradient {norm}")
        moved = sum(not torch.equal(value, before[name]) for name, value in self._trained())
        if not moved:
            raise ValueError("the update changed no weight: see grpo.learning_rate and what is frozen")
        done("update", now - seconds, loss=loss, gradient=norm, tensors_moved=moved, tensors_trained=len(before))


def check_right_answers(scorer: WatchedScorer, done: Done) -> None:
    """A right answer, made from the truth, through the reward: format, coordinates and sizes go together."""
    started = time.perf_counter()
    config, marks = scorer.config, full_marks(scorer.config)
    targets, images, sizes = (scorer.given[0][::GENERATIONS], scorer.given[1][::GENERATIONS], scorer.given[2])
    texts = []
    for target, image in zip(targets, images, strict=True):
        size = target.image_size or image.size
        seen = sizes(image.size) if callable(sizes) else config.model_size
        texts.append(right_answer(target, config, size, seen))
    batch = scorer.score(texts, targets, images, model_sizes=sizes)
    for i, text in enumerate(texts):
        got = {term: float(batch.terms[term][i]) for term in marks}
        short = {term: value for term, value in got.items() if value < marks[term] - 1e-6}
        if short:
            raise ValueError(
                f"a right answer to row {i} gets {short} where it should get full marks ({batch.reasons[i]}): the "
                f"data's coordinates, data.prompt and rewards do not go together. The answer: {text:.400}"
            )
    done("right answer", started, first=texts[0], **{term: float(batch.terms[term][0]) for term in config.terms})
