"""Measuring a policy while it trains, every so many steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from dpad_fast.evaluate.measure import summarise
from dpad_fast.evaluate.metrics import plain
from dpad_fast.evaluate.policies import measure_policy
from dpad_fast.evaluate.unfinished import DURING, read_during
from dpad_fast.rewards import RewardScorer
from dpad_fast.train import resume
from dpad_fast.train.config import TrainConfig


class Measuring(TrainerCallback):  # type: ignore[misc]
    """Sample the policy on held-out samples every `evaluation.every` steps, and keep the metrics in `out/during.json`.

    The measurement after the last step is not made here: that of the finished policy follows. The random numbers of
    training are left as they were.

    Args:
        config: the run.
        scorer: measures; see `policies.judge`.
        tell: called with (completions done, completions in all).
    """

    def __init__(self, config: TrainConfig, scorer: RewardScorer, tell: Callable[[int, int], None] | None) -> None:
        self._config, self._scorer, self._tell = config, scorer, tell

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Called by the trainer after every step.

        Args:
            args: unused.
            state: tells the step and the number of steps.
            control: unused.
            **others: the model and the processor.
        """
        step = int(state.global_step)
        if step % self._config.evaluation.every or step >= state.max_steps:
            return
        model = getattr(others["model"], "module", others["model"])
        records = measure_policy(model, others["processing_class"], self._scorer, self._config, self._tell)
        if not state.is_world_process_zero:
            return
        # A resumed run repeats the steps after its checkpoint.
        kept = [line for line in read_during(Path(self._config.out)) if line["step"] < step]
        resume.write_json(
            Path(self._config.out) / DURING, [*kept, {"step": step, "metrics": plain(summarise(records))}]
        )
