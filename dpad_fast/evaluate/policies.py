"""A policy measured by sampling on held-out data: scenes of the shapes world, or samples of a form of data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from dpad_fast.evaluate.answers import InPictures
from dpad_fast.evaluate.held_out import held_out
from dpad_fast.evaluate.measure import Record, measure
from dpad_fast.evaluate.sampling import sample_completions
from dpad_fast.model_size import model_size_for
from dpad_fast.rewards import RewardConfig, RewardScorer
from dpad_fast.segmenters import Segmenter, make_segmenter
from dpad_fast.train import processes
from dpad_fast.train.config import TrainConfig
from dpad_fast.train.policy import quiet
from dpad_fast.train.prompts import turns, with_picture
from dpad_fast.train.run import load_run_policy, make_reward_segmenter
from dpad_fast.types import Sample, Size

if TYPE_CHECKING:
    from PIL import Image

    from dpad_fast.clip import ClipEncoder

_AT_ONCE = 64  # small pictures generated for at a time; of real ones, fewer
_AT_ONCE_LARGE = 16
_DRAWN = ("box", "polygon")  # segmenters whose masks the answer's box and polygons say already
Progress = Callable[[int, int], None]

__all__ = ["evaluate_policy", "held_out", "judge", "judge_config", "measure_policy", "segmenter_name"]


def judge_config(config: TrainConfig | None = None) -> RewardConfig:
    """The configuration that measures every arm of a comparison: the `dpad` preset, whatever the arm trains on.

    Args:
        config: the run. Its answers are read in its own coordinates; where they have no caption, as Seg-Zero's, or are
            lists of objects, as VisionReasoner's, by its own rewards.

    Returns:
        The configuration of the judge.
    """
    if config is None or config.measures_scenes:
        return RewardConfig.preset("dpad")
    mine = config.reward_config()
    if "caption" not in mine.tags or mine.answer == "objects":
        return mine
    return RewardConfig.preset("dpad", coordinates=mine.coordinates, geometry=mine.geometry, model_size=mine.model_size)


def judge(encoder: ClipEncoder | None, config: TrainConfig | None = None) -> RewardScorer:
    """The scorer that measures; see `judge_config`.

    Args:
        encoder: the run's CLIP.
        config: the run.

    Returns:
        A scorer.
    """
    judging = judge_config(config)
    segmenter = None if config is None or judging.segmenter is None else make_reward_segmenter(config)
    return RewardScorer(judging, encoder, segmenter)


def evaluate_policy(
    policy: str | Path,
    scorer: RewardScorer,
    config: TrainConfig,
    progress: Progress | None = None,
) -> list[Record]:
    """Load a policy, sample it on held-out data and measure every completion.

    Args:
        policy: a shipped checkpoint, a folder or a name.
        scorer: see `judge`.
        config: the run.
        progress: called with (completions done, completions in all).

    Returns:
        One record per completion, samples in order. The processes of a distributed run share the samples, and all of
        them get all records.

    Raises:
        ValueError: if the policy or a sample cannot be read.
    """
    with quiet():
        model, processor = load_run_policy(config, policy)
    if config.device != "cpu" and torch.cuda.is_available():
        model.to("cuda")
    return measure_policy(model, processor, scorer, config, progress)


def measure_policy(
    model: Any, processor: Any, scorer: RewardScorer, config: TrainConfig, progress: Progress | None = None
) -> list[Record]:
    """Sample a policy on held-out data and measure every completion, a batch of samples at a time.

    Args:
        model: the policy.
        processor: its processor.
        scorer: see `judge`.
        config: its `evaluation`, prompt, completion length and temperature are used.
        progress: called with (completions done, completions in all); of how many is known at the end of data.

    Returns:
        One record per completion, samples in order. The processes of a distributed run share the samples, and all of
        them get all records.

    Raises:
        ValueError: if a sample cannot be read.
    """
    evaluation = config.evaluation
    # All scenes of a process at once, as ever: how many are generated together decides the random numbers.
    at_once = max(1, -(-evaluation.scenes // processes.count())) if config.measures_scenes else _AT_ONCE_LARGE
    segmenter = _segmenter(config, scorer, model.device)
    parts: list[tuple[int, list[Record]]] = []
    done = 0
    for number, chunk in enumerate(_chunks(held_out(config), at_once)):
        if number % processes.count() != processes.rank():
            continue
        told = progress if config.measures_scenes else None
        parts.append((number, _measured(model, processor, scorer, segmenter, config, chunk, number * at_once, told)))
        done += len(parts[-1][1])
        if progress is not None and not config.measures_scenes:
            progress(done, max(evaluation.data.limit * evaluation.samples, done + 1))  # the last word comes below
    parts = sorted(processes.gather(parts), key=lambda part: part[0])
    records = [record for _, part in parts for record in part]
    if progress is not None and not (config.measures_scenes and processes.count() == 1):
        progress(len(records), len(records))
    return records


def _measured(
    model: Any,
    processor: Any,
    scorer: RewardScorer,
    segmenter: Segmenter,
    config: TrainConfig,
    items: Sequence[Sample],
    first: int,
    progress: Progress | None,
) -> list[Record]:
    evaluation = config.evaluation
    texts = sample_completions(
        model,
        processor,
        items,
        per_item=evaluation.samples,
        batch=_AT_ONCE if config.measures_scenes else _AT_ONCE_LARGE,
        max_new_tokens=config.grpo.completion_tokens,
        temperature=config.grpo.temperature,
        seed=evaluation.seed + first,  # not the run's: every arm and seed is measured with the same random numbers
        progress=progress,
        ask=lambda query: with_picture(turns(query, config)),
    )
    tokenizer = processor.tokenizer

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    rows = [item for item in items for _ in range(evaluation.samples)]
    return measure(
        [text for group in texts for text in group],
        rows,
        scorer,
        count,
        InPictures(segmenter, scorer.config.coordinates, processor),
        model_sizes=_sizes(rows, scorer.config, processor),
        keep_masks=segmenter_name(config, scorer.config) not in _DRAWN,
    )


def segmenter_name(config: TrainConfig, judging: RewardConfig) -> str:
    """The segmenter that makes the masks which are measured.

    Args:
        config: the run. Its `evaluation.segmenter`, else the one of its rewards, else what fits the form of answers.
        judging: how answers are read.

    Returns:
        A name for `make_segmenter`.
    """
    if config.evaluation.segmenter:
        return config.evaluation.segmenter
    if config.measures_scenes:
        return "background"
    return config.reward_config().segmenter or ("polygon" if judging.geometry == "mask" else "box")


def _segmenter(config: TrainConfig, scorer: RewardScorer, device: Any) -> Segmenter:
    """The one of `segmenter_name`: the scorer's, where that is it; a model is loaded once."""
    name = segmenter_name(config, scorer.config)
    if scorer.segmenter is not None and scorer.config.segmenter == name:
        return scorer.segmenter
    return make_segmenter(name, device=device)


def _sizes(rows: Sequence[Sample], config: RewardConfig, processor: Any) -> list[Size | None] | None:
    """At which sizes the policy saw the pictures, where its answers are in their pixels."""
    if config.coordinates != "pixel" or config.model_size is not None:
        return None
    shown: list[Size] = [cast("Image.Image", row.image).size for row in rows]  # `held_out` has decoded them
    return [model_size_for(size, processor) or size for size in shown]


def _chunks(items: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
