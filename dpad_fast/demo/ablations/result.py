"""`result.json` of the ablations: in the demo's form, so that the report reads it, with the rows and claims beside."""

from __future__ import annotations

from typing import Any

from dpad_fast.demo.ablations import outcome, tables
from dpad_fast.demo.ablations.outcome import Runs
from dpad_fast.evaluate.tables import Table

TITLES = {
    "E": "Setting E: focus and description go together",
    "F": "Setting F: the control of E, no correlation",
    "J": "Setting J: half of the conclusions are wrong, and boxes are jittered",
}
PREFACE = (
    "The paper's ablations and limits in a made-up world of coloured shapes, with small policies (1.9 million "
    "parameters) and small encoders. Every arm is a file in configs/ablations/ that changes one thing of its base. "
    "What agrees here need not hold for large models, and what disagrees need not fail there.",
)
_SHOWN = 4  # sampled completions of each arm in the report


def result_of(runs: Runs, command: str) -> dict[str, Any]:
    """Everything that the report, the documents and a reader need.

    Args:
        runs: what was run.
        command: without what changes no number, such as the folder.

    Returns:
        Plain data, the same for the same runs however often they were broken off.
    """
    rows = outcome.rows(runs)
    first = next(iter(runs.results.values()))[0]
    overall: dict[str, Any] = {
        "key": "",
        "title": "What the paper claims, and what came out",
        "preface": [tables.counted(rows)],
        "tables": [plain(tables.whole(rows, "Every arm")), plain(tables.claims(rows, "Every claim"))],
        "histories": {},
        "samples": {},
        "show": _SHOWN,
        "runs": {},
        "config": {**first["config"], "out": ""},
    }
    return {
        "kind": "demo",
        "title": "dpad-fast demo --ablations",
        "command": command,
        "preface": list(PREFACE),
        "settings": [overall, *(_setting(runs, rows, setting) for setting in runs.settings)],
        "rows": rows,
        "encoders": {name: dict(rates) for name, rates in runs.encoders.items()},
        "versions": first["versions"],
    }


def _setting(runs: Runs, rows: list[dict[str, Any]], setting: str) -> dict[str, Any]:
    arms = runs.arms(setting)
    results = {arm.title: runs.results[setting, arm.name] for arm in arms}
    first = next(iter(results.values()))[0]
    steps = first["config"]["steps"]
    made = [*outcome.audits(runs, setting), tables.numbers(rows, setting, f"{TITLES[setting]}: after {steps} steps")]
    samples = {"warm start": first["records"]["before"]}
    samples |= {title: some[0]["records"]["after"] for title, some in results.items()}
    return {
        "key": setting,
        "title": TITLES[setting],
        "preface": [f"All arms see the same prompts in the same order, {first['config']['grpo']['queries']} a step."],
        "tables": [plain(table) for table in made],
        "histories": {title: [outcome.thinned(run["history"]) for run in some] for title, some in results.items()},
        "samples": {title: list(records[:_SHOWN]) for title, records in samples.items()},
        "show": _SHOWN,
        "runs": {
            title: [{"seed": r["config"]["seed"], "before": r["before"], "after": r["after"]} for r in some]
            for title, some in results.items()
        },
        "config": {**first["config"], "out": ""},
    }


def plain(table: Table) -> dict[str, Any]:
    """A table as JSON has it."""
    return {
        "title": table.title,
        "heading": list(table.heading),
        "rows": [list(row) for row in table.rows],
        "notes": list(table.notes),
        "text": table.text(),
        "markdown": table.markdown(),
    }
