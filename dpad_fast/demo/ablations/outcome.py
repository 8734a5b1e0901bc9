"""What came out of the ablations: numbers of every arm, verdicts on the paper's claims, and the audits, as plain data.

Nothing in it depends on how long anything took or on how often it was broken off, so that a run that was killed and
started again ends with the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpad_fast.demo.ablations import rule
from dpad_fast.demo.ablations.arms import ARMS, BASE, Arm
from dpad_fast.evaluate.drawing import CURVES
from dpad_fast.evaluate.measure import from_rows
from dpad_fast.evaluate.metrics import over_seeds
from dpad_fast.evaluate.tables import Result, Table, audit, estimates

METRICS = ("chain_tokens", "giou", "ciou", "s1_wins", "format")
_CURVE = "rewards/iou/mean"  # every arm logs it, and no arm is paid for anything like its spread
_BY_NAME = {arm.name: arm for arm in ARMS}
Cell = tuple[str, str]


@dataclass(frozen=True)
class Runs:
    """Everything that was run.

    Attributes:
        results: the runs' `result.json` by setting and arm, one per seed; R_dpad is the first arm of a setting.
        encoders: P(S1 > S2) by what a description says, by encoder.
        before: records of each warm start, by policy.
    """

    results: Mapping[Cell, Sequence[Result]]
    encoders: Mapping[str, Mapping[str, float]]
    before: Mapping[str, Sequence[dict[str, Any]]]

    @property
    def settings(self) -> list[str]:
        """Those that were run."""
        return list(dict.fromkeys(setting for setting, _ in self.results))

    def arms(self, setting: str) -> list[Arm]:
        """Arms of a setting."""
        return [_BY_NAME[name] for where, name in self.results if where == setting]

    def claims(self) -> int:
        """Claims in the whole table, which the rule corrects for."""
        return sum(len(_BY_NAME[name].claims) for _, name in self.results)


def values(runs: Sequence[Result]) -> dict[str, list[float]]:
    """Every metric after training, one number per seed.

    Args:
        runs: of one arm, seed 0 first.

    Returns:
        By key of `rule.MATTERS`; NaN where a run has none.
    """
    after = [estimates(run, "after") for run in runs]
    found = {key: [one[key].value if key in one else math.nan for one in after] for key in METRICS}
    curves = [[float(line[_CURVE]) for line in run["history"] if _CURVE in line] for run in runs]
    return {**found, "spread": rule.spread(curves) if all(curves) else [math.nan] * len(runs)}


def rows(runs: Runs) -> list[dict[str, Any]]:
    """One row per setting and arm: metrics with their spread, differences from R_dpad, and the verdicts.

    Args:
        runs: everything.

    Returns:
        Plain data, in order; no row is left out.
    """
    claims = runs.claims()
    found = []
    for setting in runs.settings:
        arms = runs.arms(setting)
        numbers = {arm.name: values(runs.results[setting, arm.name]) for arm in arms}
        gaps = {
            key: rule.intervals({name: each[key] for name, each in numbers.items()}, BASE, claims)
            for key in rule.MATTERS
        }
        found += [_row(setting, arm, numbers[arm.name], {key: gaps[key].get(arm.name) for key in gaps}) for arm in arms]
    return found


def _row(
    setting: str, arm: Arm, numbers: Mapping[str, list[float]], gaps: Mapping[str, rule.Interval | None]
) -> dict[str, Any]:
    metrics = {}
    for key, per_seed in numbers.items():
        mean = over_seeds(per_seed)
        metrics[key] = {"mean": _plain(mean.value), "error": _plain(mean.error), "seeds": [_plain(v) for v in per_seed]}
        gap = gaps[key]
        if gap is not None:
            metrics[key] |= {"difference": _plain(gap.value), "low": _plain(gap.low), "high": _plain(gap.high)}
    claims = []
    for claim in arm.claims:
        gap = gaps[claim.metric]
        said = rule.OPEN if gap is None else rule.verdict(claim.says, gap, rule.MATTERS[claim.metric])
        claims.append({**vars(claim), "matters": rule.MATTERS[claim.metric], "verdict": said})
    return {
        "setting": setting,
        "arm": arm.name,
        "title": arm.title,
        "kind": arm.kind,
        "seeds": len(numbers["ciou"]),
        "metrics": metrics,
        "claims": claims,
    }


def _plain(value: float) -> float | None:
    """As JSON has it: None for what is no finite number."""
    return round(value, 6) if math.isfinite(value) else None


def undecided(runs: Runs) -> list[Cell]:
    """Rows with a claim that the paper rests on and these seeds cannot tell.

    Args:
        runs: everything.

    Returns:
        Settings and names of arms.
    """
    return [
        (row["setting"], row["arm"])
        for row in rows(runs)
        if any(claim["key"] and claim["verdict"] == rule.OPEN for claim in row["claims"])
    ]


def audits(runs: Runs, setting: str) -> list[Table]:
    """The audits of a setting's warm starts, and of the encoders that its arms are rewarded by.

    Args:
        runs: everything.
        setting: which.

    Returns:
        Tables.
    """
    used: dict[str, list[str]] = {}
    rewarded: dict[str, list[str]] = {}
    for arm in runs.arms(setting):
        plan = runs.results[setting, arm.name][0]["config"]
        used.setdefault(_last(plan["policy"]), []).append(arm.name)
        rewarded.setdefault("shapes" if plan["encoder"] == "clip" else _last(plan["encoder"]), []).append(arm.name)
    tables = []
    for policy, names in used.items():
        records = from_rows(list(runs.before[policy]))
        of = f"{len(names)} arms" if len(names) > 3 else ", ".join(names)
        title = f"{setting}: audit of the warm start {policy} ({of}), {len(records)} sampled completions"
        tables.append(audit(records, title))
    known = {name: runs.encoders[name] for name in rewarded if name in runs.encoders}
    if known:
        kinds = list(next(iter(known.values())))
        lines = tuple((name, *(f"{rates[kind]:.2f}" for kind in kinds)) for name, rates in known.items())
        note = "Arms without a row of their own use the small CLIP, shapes, which also measures S1 > S2 of all arms."
        title = f"{setting}: audit of the encoders, P(S1 > S2) on held-out scenes by what a description says"
        tables.append(Table(title, ("encoder", *kinds), lines, (note,)))
    return tables


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def thinned(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """The curves that are drawn; nothing that depends on the machine's speed.

    Args:
        history: log lines of one run.

    Returns:
        Lines of step and curves.
    """
    kept = ("step", *CURVES, "rewards/answer_format/mean")
    return [{key: line[key] for key in kept if key in line} for line in history]
