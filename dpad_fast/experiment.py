"""One experiment: measure the policy, train it, measure it again, and write `result.json`.

Every stage leaves a file in the run's folder, so that an experiment that was killed goes on where it stopped:
`before.json`, the checkpoints and `training.json`, `after.json`, and at the end `result.json`.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dpad_fast._version import __version__
from dpad_fast.evaluate.during import Measuring
from dpad_fast.evaluate.measure import Record, from_rows, summarise, to_rows
from dpad_fast.evaluate.metrics import plain
from dpad_fast.evaluate.policies import evaluate_policy, judge, judge_config
from dpad_fast.evaluate.unfinished import read_during
from dpad_fast.train import processes, resume
from dpad_fast.train.config import TrainConfig
from dpad_fast.train.extra_rewards import check_extra_rewards
from dpad_fast.train.packages import check_packages
from dpad_fast.train.policy import quiet
from dpad_fast.train.prompts import make_dataset, with_steps
from dpad_fast.train.run import judging_encoder, make_encoder, make_scorer, train_claimed
from dpad_fast.train.run_folder import claim, finished

Tell = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with (stage, done, of, metrics); stages are "before", "train", "during" and "after". A measurement begins with
0 of 0, before its policy is loaded."""


_RESULT: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("config", "before", "after", "records", "seconds", "versions"), dict),
    "history": list,
}


def kept_records(path: Path, mark: str) -> list[Record] | None:
    """The records that an earlier call left, if they are whole and of this configuration.

    Args:
        path: `before.json` or `after.json`.
        mark: see `before_mark`.

    Returns:
        The records, or None where there is nothing to go on from.
    """
    there = finished(path, mark, {"records": list}, key="mark")
    if there is None:
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
    return finished(Path(config.out) / "result.json", config.fingerprint(), _RESULT)


def measured(path: Path, mark: str, make: Callable[[], list[Record]]) -> list[Record]:
    """A measurement that is kept in a file, and made only where it is not there yet.

    Args:
        path: the file.
        mark: names all that the records depend on.
        make: measures.

    Returns:
        The records.
    """
    there = processes.from_main(lambda: kept_records(path, mark))
    if there is not None:
        return there
    records = make()
    processes.from_main(lambda: resume.write_json(path, {"mark": mark, "records": to_rows(records)}))
    return records


def before_mark(config: TrainConfig) -> str:
    """Names what the measurement before training depends on, so that all runs from one policy can share it."""
    evaluation = config.evaluation
    encoder = evaluation.encoder or config.encoder
    grpo = config.grpo
    if not config.measures_scenes:
        seen = (config.min_pixels, config.max_pixels, dict(config.image_processor), config.dtype)
        how: tuple[Any, ...] = (config.data.prompt, config.data.system_prompt, *seen, dict(config.rewards))
        if segmenter := "" if evaluation.segmenter else config.reward_config().segmenter:
            how = (*how, segmenter)  # earlier versions measured by the box
        rest = str(replace(evaluation, encoder="")).replace(" encoder='',", "")  # as before there was the setting
        return f"{config.policy} {encoder} {rest} {how} {grpo.completion_tokens} {grpo.temperature}"
    # As runs from before there was other held-out data have it.
    scenes = ", ".join(f"{name}={getattr(evaluation, name)}" for name in ("scenes", "samples", "seed", "show"))
    return f"{config.policy} {encoder} EvaluationConfig({scenes}) {grpo.completion_tokens} {grpo.temperature}"


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
    done = processes.from_main(lambda: kept_result(config))
    if done is not None:
        return done
    check_extra_rewards(config.extra_rewards)
    if config.threads:
        torch.set_num_threads(config.threads)
    started = time.perf_counter()
    check_packages(config)
    rows, steps = _prompts(config)
    measuring = config.measures
    judging = measuring and judge_config(config).needs_encoder
    other = bool(judging and config.evaluation.encoder)
    encoder = make_encoder(config) if config.reward_config().needs_encoder or (judging and not other) else None
    measures_with = judging_encoder(config, encoder) if judging else None

    def stage(name: str) -> Callable[[int, int], None]:
        return lambda done, of: tell(name, done, of, {}) if tell is not None else None

    def measure(name: str, policy: str | Path) -> list[Record]:
        stage(name)(0, 0)
        return evaluate_policy(policy, judge(measures_with, config), config, stage(name))

    before: list[Record] = []
    after: list[Record] = []
    if measuring:
        before = measured(out / "before.json", before_mark(config), lambda: measure("before", config.policy))
    watch = None if tell is None else lambda step, metrics: tell("train", step, steps, metrics)
    during: list[Any] = []
    if config.evaluation.every:
        during = [Measuring(config, judge(measures_with, config), stage("during"))]
    training = train_claimed(config, make_scorer(config, encoder), watch, rows, during)
    if measuring:
        after = measured(out / "after.json", config.fingerprint(), lambda: measure("after", out / "policy"))
    result = _result(config, training, before, after, time.perf_counter() - started)
    processes.from_main(lambda: resume.write_json(out / "result.json", result))
    return result


def _prompts(config: TrainConfig) -> tuple[Any, int]:
    """The prompts, read before the first measurement so that a mistake in them is told first, and the steps they make.

    Scenes of the shapes world hold no mistakes; they are drawn when they are needed.
    """
    if config.data.kind == "shapes":
        return None, config.steps
    with quiet():
        rows = make_dataset(config)
    return rows, with_steps(config, rows).steps


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
        "during": read_during(Path(config.out)) if config.evaluation.every else [],
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
