"""Plots of the ablations, drawn by matplotlib; the same data gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpad_fast import files
from dpad_fast.demo.ablations import rule
from dpad_fast.demo.ablations.tables import label

CURVES = {
    "dpad/s1_over_s2": "rate of S1 > S2, by the arm's own encoder",
    "completions/mean_length": "tokens per completion",
    "rewards/iou/mean": "rate of IoU > 0.5",
}
_WINDOW = 5
_COLOURS = {rule.AGREES: "#1b7f3b", rule.DISAGREES: "#b3261e", rule.OPEN: "#8a8a8a"}


def write_plots(settings: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], out: Path) -> list[Path]:
    """Write the curves of each setting, and the differences with their intervals.

    Args:
        settings: `key` and `histories` (by arm, one list of log lines per seed).
        rows: of `outcome.rows`.
        out: folder; gets curves-SETTING.svg and claims.svg.

    Returns:
        The files.
    """
    written = [
        _saved(_curves(one["histories"]), out / f"curves-{one['key'].lower()}.svg") for one in settings if one["key"]
    ]
    if any(row["claims"] for row in rows):
        written.append(_saved(claims_figure(rows), out / "claims.svg"))
    return written


def _saved(figure: Any, path: Path) -> Path:
    import io

    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "dpad-fast"}):  # else ids are drawn at random
        figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    files.write_bytes(path, buffer.getvalue())
    return path


def _curves(histories: Mapping[str, Sequence[Sequence[Mapping[str, float]]]]) -> Any:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * len(CURVES), 4.6))
    axes = figure.subplots(1, len(CURVES))
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    for axis, (key, title) in zip(axes, CURVES.items(), strict=True):
        for place, (arm, runs) in enumerate(histories.items()):
            curve = _mean([[line[key] for line in run if key in line] for run in runs])
            style = {"color": "black", "linewidth": 2.2} if place == 0 else {"color": colours[(place - 1) % 20]}
            axis.plot(range(1, len(curve) + 1), curve, label=arm, **style)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8, frameon=False)
    return figure


def _mean(runs: Sequence[Sequence[float]]) -> list[float]:
    """Mean over seeds of running means of `_WINDOW` steps."""
    steps = min((len(run) for run in runs), default=0)
    means = [sum(run[step] for run in runs) / len(runs) for step in range(steps)]
    return [
        sum(means[max(0, i - _WINDOW + 1) : i + 1]) / len(means[max(0, i - _WINDOW + 1) : i + 1]) for i in range(steps)
    ]


def claims_figure(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Each claim's difference from R_dpad, in units of what matters, with the interval of the rule.

    Args:
        rows: of `outcome.rows`.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    entries = [(row, claim) for row in rows for claim in row["claims"]]
    figure = Figure(figsize=(8.5, 0.34 * len(entries) + 1.4))
    axis = figure.subplots()
    names = []
    for place, (row, claim) in enumerate(entries):
        found, unit = row["metrics"][claim["metric"]], claim["matters"]
        names.append(f"{row['setting']}, {row['title']}: {label(claim['metric'])} {claim['says']}?")
        if found.get("difference") is None:
            continue
        colour = _COLOURS[claim["verdict"]]
        if found["low"] is not None:
            axis.plot([found["low"] / unit, found["high"] / unit], [place, place], color=colour, linewidth=2)
        axis.plot(found["difference"] / unit, place, "o", color=colour)
    axis.axvspan(-1, 1, color="#eeeeee", zorder=0)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xscale("symlog", linthresh=2)
    axis.set_xlabel("arm minus R_dpad, in units of the smallest difference that matters (grey)")
    axis.set_title("green agrees with the paper, red disagrees, grey cannot be told", fontsize=10)
    return figure
