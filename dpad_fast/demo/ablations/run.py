"""The jobs of the ablations, in an order that leaves complete comparisons wherever it is broken off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpad_fast.checkpoints import SMALL_CLIP, SMALL_SIGLIP
from dpad_fast.demo import makes
from dpad_fast.demo.ablations.arms import BASE, SETTINGS, Arm, config, made_by_arms
from dpad_fast.demo.ablations.outcome import Runs, undecided
from dpad_fast.demo.jobs import Job, JobWatcher, run_jobs
from dpad_fast.train.config import TrainConfig
from dpad_fast.train.resume import read_json


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        arms: R_dpad first.
        settings: of `SETTINGS`; those that an arm has.
        seeds: per arm.
        key_seeds: of the rows that the paper rests on, where `seeds` cannot tell.
        out: folder of everything.
        changes: of the command line, to every configuration.
    """

    arms: Sequence[Arm]
    settings: Sequence[str]
    seeds: int
    key_seeds: int
    out: Path
    changes: Mapping[str, Any]

    def cells(self) -> list[tuple[str, Arm]]:
        """Setting and arm of every row. R_dpad alone is no comparison: a setting that no other arm has is left out."""
        wanted = [s for s in SETTINGS if s in self.settings]
        wanted = [s for s in wanted if len(self.arms) == 1 or any(s in arm.settings for arm in self.arms[1:])]
        return [(setting, arm) for setting in wanted for arm in self.arms if setting in arm.settings]

    def config(self, setting: str, arm: Arm, seed: int) -> TrainConfig:
        """The run of a row and seed."""
        return config(setting, arm, seed, self.out, dict(self.changes))


def run_all(plan: Plan, watcher: JobWatcher, workers: int) -> Runs:
    """Make, measure and train what is not there yet.

    Args:
        plan: what is to be run.
        watcher: told what happens.
        workers: processes at a time, of one thread each.

    Returns:
        What came out, by setting and arm.

    Raises:
        JobFailed: if a worker ended with an error.
    """
    cells = plan.cells()
    firsts = [plan.config(setting, arm, 0) for setting, arm in cells]
    encoders = [SMALL_CLIP, *([SMALL_SIGLIP] if any(one.encoder == SMALL_SIGLIP for one in firsts) else [])]
    names = [*made_by_arms(firsts, plan.out), *encoders]
    run_jobs([_making(plan, name, firsts[0]) for name in names], watcher, workers)
    measured = {_before(plan, one): one for one in firsts}
    audits = [
        Job(f"warm start {Path(one.policy).name}", "measure", replace(one, out=str(place.parent)), place)
        for place, one in measured.items()
    ]
    run_jobs(audits, watcher, workers)
    jobs = {
        (setting, arm.name): [_training(plan, setting, arm, seed) for seed in range(plan.seeds)]
        for setting, arm in cells
    }
    run_jobs([job for group in zip(*jobs.values(), strict=True) for job in group], watcher, workers)
    found = _collected(plan, jobs, names, measured)
    more = [cell for cell in undecided(found) if plan.key_seeds > plan.seeds]
    if not more:
        return found
    by_name = {arm.name: arm for arm in plan.arms}
    later = {
        (setting, name): [_training(plan, setting, by_name[name], seed) for seed in range(plan.seeds, plan.key_seeds)]
        for setting, name in _with_base(more)
    }
    run_jobs([job for group in zip(*later.values(), strict=True) for job in group], watcher, workers)
    return _collected(plan, {cell: [*some, *later.get(cell, [])] for cell, some in jobs.items()}, names, measured)


def _with_base(cells: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return list(dict.fromkeys(cell for setting, name in cells for cell in ((setting, BASE), (setting, name))))


def _making(plan: Plan, name: str, like: TrainConfig) -> Job:
    return Job(f"checkpoint {name}", "make", replace(like, threads=1), makes.marker(plan.out, name))


def _before(plan: Plan, one: TrainConfig) -> Path:
    return plan.out / "before" / Path(one.policy).name / "before.json"


def _training(plan: Plan, setting: str, arm: Arm, seed: int) -> Job:
    one = plan.config(setting, arm, seed)
    return Job(f"{setting} {arm.name}, seed {seed}", "train", one, _before(plan, one))


def _collected(
    plan: Plan,
    jobs: Mapping[tuple[str, str], Sequence[Job]],
    names: Sequence[str],
    measured: Mapping[Path, TrainConfig],
) -> Runs:
    results = {cell: [read_json(Path(job.config.out) / "result.json") for job in some] for cell, some in jobs.items()}
    rates = {name: read_json(makes.marker(plan.out, name))["rates"] for name in names}
    before = {Path(one.policy).name: read_json(place)["records"] for place, one in measured.items()}
    return Runs(results, {name: value for name, value in rates.items() if value is not None}, before)
