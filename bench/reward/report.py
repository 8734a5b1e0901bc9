"""Results of the race, as tables, as bench/results/reward*.csv and as a plot."""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from bench import results
from bench.reward import work as ways

if TYPE_CHECKING:
    from bench.reward.race import Contestant

STAGES = ("parse", "geometry", "preprocess", "text", "image", "combine")
GOALS = {
    "cold": {"one at a time": 30.0, "hand-written": 4.0},
    "images known": {"one at a time": 70.0, "hand-written": 9.0},
    "float32 cold": {"hand-written": 1.8},
    "float32 images known": {"hand-written": 4.0},
}


AHEAD = {"cold": 1.5, "images known": 2.0}
"""How far "guarded" should be ahead of every other runtime that makes float32's decisions."""


def report(
    times: dict[str, list[float]],
    contestants: dict[str, Contestant],
    wrong: dict[str, int],
    args: argparse.Namespace,
    console: Console,
) -> None:
    """Seconds, ratios and goals; then the stages.

    Args:
        times: per contestant the seconds of each turn.
        contestants: ours, with their stages.
        wrong: per other runtime the decisions that differ from float32's.
        args: of the command line.
        console: where the tables go.
    """
    middle = {name: statistics.median(values) for name, values in times.items()}
    table = Table(title=f"128 completions, median of {args.runs} (one at a time: {args.sample} of them, scaled)")
    columns = ("contestant", "s", "ms a completion", "x one at a time", "x hand-written", "goal")
    for column in columns:
        table.add_column(column, justify="right" if table.columns else "left")
    for name, seconds in middle.items():
        goal = next((GOALS[key] for key in sorted(GOALS, key=len, reverse=True) if matches(name, key)), {})
        ratios = {"one at a time": middle["one at a time"], "hand-written": middle["hand-written, cold"]}
        met = ", ".join(
            f"{'met' if ratios[way] / seconds >= least else 'NOT met'} ({least:g}x {way})"
            for way, least in goal.items()
        )
        runtime, _, state = name.partition(", ")
        if runtime in wrong:
            met = against_runtime(seconds / middle[f"dpad_fast guarded, {state}"], state, wrong[runtime])
        table.add_row(
            name,
            f"{seconds:.3f}",
            f"{1000 * seconds / (ways.QUERIES * ways.GROUP):.2f}",
            *(f"{value / seconds:.1f}" for value in ratios.values()),
            met,
        )
    console.print(table)
    stages = Table(title="stages, milliseconds (of the last turn)")
    for column in ("contestant", *STAGES, "sum"):
        stages.add_column(column, justify="right" if stages.columns else "left")
    for name, contestant in contestants.items():
        last = contestant.stages[-1]
        stages.add_row(name, *(f"{1000 * last[stage]:.1f}" for stage in STAGES), f"{1000 * sum(last.values()):.1f}")
    console.print(stages)


def against_runtime(ratio: float, state: str, wrong: int) -> str:
    """How a row of another runtime stands to our guarded one."""
    said = f"guarded is {ratio:.1f}x as fast"
    if wrong:
        return f"{said}; {wrong} decisions wrong here"
    return f"{said}: {'met' if ratio >= AHEAD[state] else 'NOT met'} ({AHEAD[state]:g}x)"


def matches(name: str, key: str) -> bool:
    """Whether a row is what a goal speaks of: guarded, or float32 where the goal says so."""
    kind = "float32" if key.startswith("float32") else "guarded"
    return name == f"dpad_fast {kind}, {key.removeprefix('float32 ')}"


def save(
    folder: Path,
    times: dict[str, list[float]],
    contestants: dict[str, Contestant],
    floors: list[dict[str, Any]],
    wrong: dict[str, int],
) -> None:
    """reward.csv, reward-floor.csv, and the stages as a picture."""
    rows = []
    for name, values in times.items():
        mine = contestants.get(name.removeprefix("dpad_fast "))
        seconds = {"p50_s": statistics.median(values), "least_s": min(values), "most_s": max(values)}
        stages = {f"{stage}_ms": "" if mine is None else f"{1000 * mine.stages[-1][stage]:.2f}" for stage in STAGES}
        differ = {"wrong": wrong.get(name.partition(", ")[0], "" if mine is None else 0)}
        rows.append({"contestant": name, **{key: f"{value:.4f}" for key, value in seconds.items()}, **differ, **stages})
    results.write("reward", rows, folder)
    rounded = [{key: v if isinstance(v, str) else f"{v:.4f}" for key, v in row.items()} for row in floors]
    results.write("reward-floor", rounded, folder)
    plot(folder / "reward-stages.svg", contestants, floors)


def plot(path: Path, contestants: dict[str, Contestant], floors: list[dict[str, Any]]) -> None:
    """The stages of each contestant as bars, with the floor of its products."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    shown = {name: mine for name, mine in contestants.items() if not name.startswith("bfloat16")}
    figure, axes = pyplot.subplots(figsize=(8, 3.2))
    left = [0.0] * len(shown)
    for stage in STAGES:
        widths = [1000 * mine.stages[-1][stage] for mine in shown.values()]
        axes.barh(list(shown), widths, left=left, label=stage)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for i, name in enumerate(shown):
        row = floors[0] if name.startswith("float32") else floors[-1]
        axes.plot(
            [1000 * row["known_s" if "known" in name else "cold_s"]] * 2,
            [i - 0.4, i + 0.4],
            "k",
            label="floor" if not i else None,
        )
    axes.set_xlabel("milliseconds for 128 completions")
    axes.invert_yaxis()
    axes.legend(fontsize=8)
    figure.tight_layout()
    matplotlib.rcParams["svg.hashsalt"] = "dpad-fast"
    figure.savefig(path, metadata={"Date": None})
