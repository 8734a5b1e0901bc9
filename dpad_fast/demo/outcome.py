"""What came out of the demo: tables, findings in words, and `result.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpad_fast.demo.settings import Setting
from dpad_fast.evaluate.measure import METRICS, Record, from_rows
from dpad_fast.evaluate.metrics import beyond_noise
from dpad_fast.evaluate.tables import Result, Table, audit, combined, compare, contrast, shown
from dpad_fast.train.resume import read_json

PREFACE = (
    "Small policies (1.9 million parameters, Qwen2.5-VL's code) are trained by GRPO in a made-up world of coloured "
    "shapes, with and without the discriminative reward R_dpad. The world is small enough for two CPU cores; what it "
    "shows is that the rewards, the trainer and the method work as described, not how large models behave.",
)
_AFTER = "Chains and answers are sampled at temperature 1 on held-out scenes; gIoU and cIoU compare masks."


def audit_table(setting: Setting, before: Path) -> Table:
    """The audit of a setting's warm start.

    Args:
        setting: the setting.
        before: the measurement of the untrained policy.

    Returns:
        The table, with a line on the correlation as it was sampled.
    """
    records = from_rows(read_json(before)["records"])
    table = audit(records, f"Audit of the warm start of {setting.key}: {len(records)} sampled completions")
    return Table(table.title, table.heading, table.rows, (*_correlation(records), *table.notes))


def _correlation(records: Sequence[Record]) -> tuple[str, ...]:
    """How often a caption is meant to single something out, after each style of chain."""
    rates = []
    for focused in (True, False):
        style = [r for r in records if r.focused is focused]
        rates.append(sum(r.names != "generic" for r in style) / len(style) if style else float("nan"))
    return (
        f"The caption is not a generic one after {rates[0]:.0%} of focused and {rates[1]:.0%} of divergent chains.",
    )


def findings(setting: Setting, arms: Mapping[str, Sequence[Result]]) -> tuple[str, ...]:
    """In words: which differences from the baseline are beyond noise, and which are not.

    Args:
        setting: the setting.
        arms: runs by arm, one per seed; the first arm is the baseline.

    Returns:
        Lines of text.
    """
    names = list(arms)
    base = arms[names[0]]
    seeds = len(base)
    lines = []
    for name in names[1:]:
        found: list[str] = []
        lost: list[str] = []
        for key in setting.metrics:
            if key not in base[0]["after"]:
                continue
            gap = contrast(arms[name], base, key)
            if not beyond_noise(gap, by_seeds=seeds > 1):
                lost.append(METRICS[key].label)
                continue
            text = f"{METRICS[key].label} {shown(key, gap, signed=True)}"
            if key == "chain_tokens":
                text += f" ({100 * gap.value / combined(base, 'after', key).value:+.0f} %)"
            found.append(text)
        lines.append(f"{name} against {names[0]}, beyond noise: {', '.join(found) or 'nothing'}.")
        lines.append(f"{name} against {names[0]}, no difference beyond noise: {', '.join(lost) or 'nothing'}.")
    lines.append("Each row is judged on its own at 95 %; with many rows, one in twenty would look real by chance.")
    if seeds == 1:
        lines.append("One seed: run with --seeds 3 or more before believing a difference between arms.")
    return tuple(lines)


def setting_result(setting: Setting, arms: Mapping[str, Sequence[Result]], audited: Table) -> dict[str, Any]:
    """Everything that the report needs of one setting.

    Args:
        setting: the setting.
        arms: runs by arm, one per seed.
        audited: the audit's table.

    Returns:
        Plain data for `result.json`.
    """
    notes = (_AFTER, *findings(setting, arms))
    table = compare(f"{setting.title}: before and after {_steps(arms)} steps", arms, setting.metrics, notes)
    show = next(iter(arms.values()))[0]["config"]["evaluation"]["show"]
    first = {name: runs[0]["records"]["after"] for name, runs in arms.items()}
    samples = {"warm start": next(iter(arms.values()))[0]["records"]["before"], **first}
    return {
        "key": setting.key,
        "title": setting.title,
        "preface": list(setting.preface),
        "tables": [_plain(audited), _plain(table)],
        "histories": {name: [_thinned(run["history"]) for run in runs] for name, runs in arms.items()},
        "samples": {name: rows[:show] for name, rows in samples.items()},
        "show": show,
        "runs": {name: [_numbers(run) for run in runs] for name, runs in arms.items()},
        "config": next(iter(arms.values()))[0]["config"],
    }


def _steps(arms: Mapping[str, Sequence[Result]]) -> int:
    return int(next(iter(arms.values()))[0]["config"]["steps"])


def _plain(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "heading": list(table.heading),
        "rows": [list(row) for row in table.rows],
        "notes": list(table.notes),
        "text": table.text(),
        "markdown": table.markdown(),
    }


def _numbers(run: Result) -> dict[str, Any]:
    return {
        "seed": run["config"]["seed"],
        "out": run["config"]["out"],
        "before": run["before"],
        "after": run["after"],
        "seconds": run["seconds"],
    }


def _thinned(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """The curves that the report draws."""
    from dpad_fast.evaluate.drawing import CURVES

    return [{key: line[key] for key in ("step", *CURVES) if key in line} for line in history]
