"""One experiment: measure the policy, train it, measure it again, and write `result.json`.

Every stage leaves a file in the run's folder, so that an experiment that was killed goes on where it stopped:
`before.json`, the checkpoints and `training.json`, `after.json`, and at the end `result.json`.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dpad_fast._version import __version__
from dpad_fast.data import shapes
from dpad_fast.evaluate.measure import Record, from_rows, measure, summarise, to_rows
from dpad_fast.evaluate.metrics import Estimate
from dpad_fast.evaluate.sampling import sample_completions
from dpad_fast.evaluate.segment import from_background
from dpad_fast.rewards import RewardConfig, RewardScorer
from dpad_fast.train import resume
from dpad_fast.train.config import EvaluationConfig, TrainConfig
from dpad_fast.train.policy import load_policy
from dpad_fast.train.run import claim, make_encoder, make_scorer, quiet, train

if TYPE_CHECKING:
    from dpad_fast.clip import ClipEncoder
    from dpad_fast.data.shapes import ShapesSample

Tell = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with (stage, done, of, metrics); stages are "before", "train" and "after"."""


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
        One record per completion, scenes in order.
    """
    evaluation = config.evaluation
    items = held_out(evaluation)
    with quiet():
        model, processor = load_policy(policy)
    texts = sample_completions(
        model,
        processor,
        items,
        per_item=evaluation.samples,
        max_new_tokens=config.grpo.completion_tokens,
        temperature=config.grpo.temperature,
        seed=evaluation.seed,  # not the run's: every arm and seed is measured with the same random numbers
        progress=progress,
    )
    tokenizer = processor.tokenizer

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    rows = [item for item in items for _ in range(evaluation.samples)]
    return measure([text for group in texts for text in group], rows, scorer, count, from_background)


def plain(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    """Estimates as JSON takes them: NaN becomes None."""
    return {key: {k: None if v != v else v for k, v in asdict(e).items()} for key, e in estimates.items()}


def kept_records(path: Path, mark: str) -> list[Record] | None:
    """The records that an earlier call left, if they are whole and of this configuration.

    Args:
        path: `before.json` or `after.json`.
        mark: see `before_mark`.

    Returns:
        The records, or None where there is nothing to go on from: damage costs a measurement, never the run.
    """
    there = resume.read_json(path)
    if not isinstance(there, dict) or there.get("mark") != mark or not isinstance(there.get("records"), list):
        return None
    try:
        return from_rows(there["records"])
    except ValueError:
        return None


def kept_result(config: TrainConfig) -> dict[str, Any] | None:
    """The result of a run that is finished, if it is whole and of this configuration.

    Args:
        config: the run.

    Returns:
        The content of `config.out`/result.json, or None.
    """
    there = resume.read_json(Path(config.out) / "result.json")
    if not isinstance(there, dict) or there.get("fingerprint") != config.fingerprint():
        return None
    return there if all(isinstance(there.get(name), kind) for name, kind in _RESULT.items()) else None


_RESULT: dict[str, type] = {
    **dict.fromkeys(("config", "before", "after", "records", "seconds", "versions"), dict), "history": list,
}  # fmt: skip


def _measured(path: Path, mark: str, make: Callable[[], list[Record]]) -> list[Record]:
    """The records in `path` if they are whole and of this configuration, else new ones, written there."""
    there = kept_records(path, mark)
    if there is not None:
        return there
    records = make()
    resume.write_json(path, {"mark": mark, "records": to_rows(records)})
    return records


def before_mark(config: TrainConfig) -> str:
    """Names what the measurement before training depends on, so that all runs from one policy can share it."""
    evaluation = config.evaluation
    grpo = config.grpo
    return f"{config.policy} {config.encoder} {evaluation} {grpo.completion_tokens} {grpo.temperature}"


def run_experiment(config: TrainConfig, tell: Tell | None = None) -> dict[str, Any]:
    """Measure, train, measure; go on from what is in `config.out`.

    Args:
        config: the run.
        tell: told about the progress of every stage.

    Returns:
        The content of `result.json`.

    Raises:
        ValueError: if `config.out` holds another run, or the configuration cannot be run.
    """
    with claim(Path(config.out), config):
        return _run(config, tell)


def _run(config: TrainConfig, tell: Tell | None) -> dict[str, Any]:
    """`run_experiment` in a folder that is ours."""
    out = Path(config.out)
    done = kept_result(config)
    if done is not None:
        return done
    if config.threads:
        torch.set_num_threads(config.threads)
    started = time.perf_counter()
    measured = config.evaluation.scenes > 0 and config.data.kind == "shapes"
    encoder = make_encoder(config) if measured or config.reward_config().needs_encoder else None

    def stage(name: str) -> Callable[[int, int], None]:
        return lambda done, of: tell(name, done, of, {}) if tell is not None else None

    before: list[Record] = []
    after: list[Record] = []
    if measured:
        before = _measured(
            out / "before.json",
            before_mark(config),
            lambda: evaluate_policy(config.policy, judge(encoder), config, stage("before")),
        )
    watch = None if tell is None else lambda step, metrics: tell("train", step, config.steps, metrics)
    training = train(config, make_scorer(config, encoder), watch)
    if measured:
        after = _measured(
            out / "after.json",
            config.fingerprint(),
            lambda: evaluate_policy(out / "policy", judge(encoder), config, stage("after")),
        )
    result = _result(config, training, before, after, time.perf_counter() - started)
    resume.write_json(out / "result.json", result)
    return result


def _result(
    config: TrainConfig, training: Mapping[str, Any], before: Sequence[Record], after: Sequence[Record], seconds: float
) -> dict[str, Any]:
    import transformers
    import trl

    return {
        "kind": "run",
        "complete": True,
        "fingerprint": config.fingerprint(),
        "config": config.as_dict(),
        "before": plain(summarise(before)),
        "after": plain(summarise(after)),
        "records": {"before": to_rows(before), "after": to_rows(after)},
        "history": training["history"],
        "resumed_at": training["resumed_at"],
        "seconds": {"this_call": round(seconds, 2), "training": training["seconds"]},
        "versions": {
            "dpad-fast": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "trl": trl.__version__,
            "python": platform.python_version(),
        },
    }


def with_out(config: TrainConfig, out: str | Path) -> TrainConfig:
    """The same run in another folder."""
    return replace(config, out=str(out))
