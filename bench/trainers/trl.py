"""TRL's `GRPOTrainer` with a tiny policy of Qwen2.5-VL's class: the rewards are real, the rest of a step is short."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from transformers import set_seed
from transformers.trainer_callback import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from bench.trainers.work import OURS_ASYNC, PLAIN, Clock, Step, Work
from dpad_fast.integrations.trl import GroupAdvantageMixin, TrlRewards, completion_texts
from dpad_fast.train.tiny_policy import tiny_policy

POLICY = "Qwen/Qwen2.5-VL-3B-Instruct"
TOKENS = 16


class _Timed(GRPOTrainer):  # type: ignore[misc]
    """Replaces the completions' texts by the work's, and takes the time."""

    def __init__(self, work: Work, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.work, self.clock, self.steps = work, Clock(), list[Step]()
        self.totals: list[float] = []

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        loss = super().training_step(*args, **kwargs)
        self.steps.append(Step(time.perf_counter() - started, self.clock.take(), self.totals))
        return loss

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self.ids = [int(row["id"]) for row in inputs]
        return super()._generate_and_score_completions(inputs)

    def _generate(self, prompts: Any) -> Any:
        output = super()._generate(prompts)
        for place, (row, [message]) in enumerate(zip(self.ids, output[3], strict=True)):
            message["content"] = self.work.texts[row][place % self.work.generations]
        return output

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        with self.clock:
            rewards = super()._calculate_rewards(*args, **kwargs)
        self.totals = (rewards * self.reward_weights).sum(dim=1).tolist()
        return rewards


class _TimedWithMixin(GroupAdvantageMixin, _Timed):
    """The same, whose async functions begin with the completions."""

    def __init__(self, work: Work, *args: Any, **kwargs: Any) -> None:
        super().__init__(work, *args, **kwargs)


def train(way: str, work: Work, steps: int) -> list[Step]:
    """Trains for some steps with the rewards of a way."""
    set_seed(0)
    model, processor = tiny_policy(POLICY)
    processor.tokenizer.padding_side = "left"
    functions, weights = _rewards(way, work)
    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            folder,
            use_cpu=True,
            bf16=False,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            max_steps=steps,
            per_device_train_batch_size=work.queries * work.generations,
            num_generations=work.generations,
            max_completion_length=TOKENS,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            gradient_checkpointing=False,
            shuffle_dataset=False,
            reward_weights=weights,
        )
        kind = _TimedWithMixin if way == OURS_ASYNC else _Timed
        rows = Dataset.from_list(work.rows)
        trainer = kind(work, model, functions, arguments, train_dataset=rows, processing_class=processor)
        trainer.remove_callback(PrinterCallback)  # it prints a summary of every run
        trainer.train()
    return trainer.steps


def _rewards(way: str, work: Work) -> tuple[list[Any], list[float]]:
    if way != PLAIN:
        rewards = TrlRewards(work.scorer(torch.get_num_threads()), model_size_of=lambda size: size, on_error="raise")
        return rewards.functions(async_=way == OURS_ASYNC), rewards.weights()
    score = work.one_at_a_time()

    def dpad(*, completions: Any, solution: Any, image: Any, **columns: Any) -> list[float]:
        return score(completion_texts(completions), solution, image)

    return [dpad], [1.0]
