"""A policy measured by sampling on held-out scenes of the shapes world."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dpad_fast.data import shapes
from dpad_fast.evaluate.measure import Record, measure
from dpad_fast.evaluate.sampling import sample_completions
from dpad_fast.evaluate.segment import from_background
from dpad_fast.rewards import RewardConfig, RewardScorer
from dpad_fast.train import processes
from dpad_fast.train.config import EvaluationConfig, TrainConfig
from dpad_fast.train.policy import load_policy, quiet

if TYPE_CHECKING:
    from dpad_fast.clip import ClipEncoder
    from dpad_fast.data.shapes import ShapesSample


def held_out(evaluation: EvaluationConfig) -> list[ShapesSample]:
    """The scenes that policies are measured on.

    Args:
        evaluation: seed and number.

    Returns:
        The scenes.
    """
    return [shapes.sample(evaluation.seed, index) for index in range(evaluation.scenes)]


def judge(encoder: ClipEncoder | None) -> RewardScorer:
    """The scorer that measures every arm alike: the `dpad` preset, whatever the arm trains on.

    Args:
        encoder: the run's CLIP.

    Returns:
        A scorer.
    """
    return RewardScorer(RewardConfig.preset("dpad"), encoder=encoder)


def evaluate_policy(
    policy: str | Path,
    scorer: RewardScorer,
    config: TrainConfig,
    progress: Callable[[int, int], None] | None = None,
) -> list[Record]:
    """Sample a policy on the held-out scenes and measure every completion.

    Args:
        policy: a shipped checkpoint, a folder or a name.
        scorer: see `judge`.
        config: its `evaluation`, completion length, temperature and seed are used.
        progress: called with (completions done, completions in all).

    Returns:
        One record per completion, scenes in order. The processes of a distributed run share the scenes, and all get all
        records.
    """
    evaluation = config.evaluation
    items = processes.share(held_out(evaluation))
    with quiet():
        model, processor = load_policy(policy)
    texts = sample_completions(
        model,
        processor,
        items,
        per_item=evaluation.samples,
        max_new_tokens=config.grpo.completion_tokens,
        temperature=config.grpo.temperature,
        seed=evaluation.seed + processes.rank(),  # not the run's: every arm and seed is measured with the same random numbers
        progress=progress,
    )
    tokenizer = processor.tokenizer

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    rows = [item for item in items for _ in range(evaluation.samples)]
    records = measure([text for group in texts for text in group], rows, scorer, count, from_background)
    return processes.gather(records)
