"""Tables in text and for the report: before and after, arms side by side, and what differs beyond noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpad_fast.evaluate.measure import METRICS, Record, difference, from_rows
from dpad_fast.evaluate.metrics import Estimate, beyond_noise, over_seeds
from dpad_fast.terminal import printable

Result = Mapping[str, Any]
"""The content of one run's `result.json`."""


@dataclass(frozen=True)
class Table:
    """A title, a heading row, and rows of text; the first column is left-aligned, the others right."""

    title: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The table in monospaced text."""
        lines = [tuple(map(printable, line)) for line in (self.heading, *self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.heading))]

        def row(cells: Sequence[str]) -> str:
            padded = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))]
            return "  ".join(padded).rstrip()

        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        body = [rule, row(lines[0]), rule, *map(row, lines[1:]), rule]
        return "\n".join([printable(self.title), *body, *map(printable, self.notes)])

    def markdown(self) -> str:
        """The table for the documents."""
        lines = [self.heading, tuple("---" if i == 0 else "---:" for i in range(len(self.heading))), *self.rows]
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        notes = "\n".join(f"- {note}" for note in self.notes)
        return f"**{self.title}**\n\n{body}\n\n{notes}\n"

    def latex(self) -> str:
        """The table for a paper: a tabular environment with booktabs' rules; notes are comments."""
        body = [" & ".join(map(_tex, line)) + r" \\" for line in (self.heading, *self.rows)]
        lines = [
            *(f"% {printable(line)}" for line in (self.title, *self.notes)),
            r"\begin{tabular}{l" + "r" * (len(self.heading) - 1) + "}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
        return "\n".join(lines)


_TEX = {character: "\\" + character for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    ">": "$>$",
    "<": "$<$",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in printable(text))


def shown(key: str, estimate: Estimate, signed: bool = False) -> str:
    """An estimate with its standard error, in the metric's own unit.

    Args:
        key: of `METRICS`.
        estimate: the number.
        signed: write a plus sign too.

    Returns:
        For example "35.8 ± 0.6", or "-" where there is nothing.
    """
    if math.isnan(estimate.value):
        return "-"
    percent = METRICS[key].percent
    factor, unit = (100.0, " %") if percent else (1.0, "")
    digits = 1 if percent or key == "chain_tokens" else 3
    sign = "+" if signed else ""
    error = "" if math.isnan(estimate.error) else f" ± {factor * estimate.error:.{digits}f}"
    return f"{factor * estimate.value:{sign}.{digits}f}{error}{unit}"


def estimates(result: Result, moment: str) -> dict[str, Estimate]:
    """The estimates of a run.

    Args:
        result: a run's `result.json`.
        moment: "before" or "after".

    Returns:
        One estimate per metric that the run has.
    """
    found = {}
    for key, value in result[moment].items():
        numbers = {name: math.nan if number is None else number for name, number in value.items()}
        found[key] = Estimate(numbers["value"], numbers["error"], int(numbers["units"]))
    return found


def records(result: Result, moment: str) -> list[Record]:
    """The measured completions of a run.

    Args:
        result: a run's `result.json`.
        moment: "before" or "after".

    Returns:
        The records.
    """
    return from_rows(result["records"][moment])


def combined(results: Sequence[Result], moment: str, key: str) -> Estimate:
    """One metric of an arm: over seeds where there are several, else with its bootstrap over scenes.

    All seeds start from one policy that is measured once, so "before" always has the bootstrap's error.

    Args:
        results: the arm's runs, one per seed.
        moment: "before" or "after".
        key: of `METRICS`.

    Returns:
        The mean and its standard error.
    """
    each = [estimates(result, moment).get(key, Estimate(math.nan, math.nan, 0)) for result in results]
    return each[0] if len(each) == 1 or moment == "before" else over_seeds([estimate.value for estimate in each])


def contrast(arm: Sequence[Result], base: Sequence[Result], key: str) -> Estimate:
    """Metric after training, arm minus base, paired.

    Args:
        arm: runs of one arm, one per seed.
        base: runs of the other, the same seeds in the same order.
        key: of `METRICS`.

    Returns:
        With several seeds the mean of the per-seed differences and its standard error; with one seed the difference
        with a bootstrap over the scenes that both were measured on.
    """
    if len(arm) == 1:
        return difference(records(arm[0], "after"), records(base[0], "after"), key)
    return over_seeds(
        [
            estimates(a, "after")[key].value - estimates(b, "after")[key].value
            for a, b in zip(arm, base, strict=True)
            if key in a["after"] and key in b["after"]
        ]
    )


def _verdict(estimate: Estimate, seeds: int) -> str:
    if math.isnan(estimate.error):
        return "no spread"
    return "beyond noise" if beyond_noise(estimate, by_seeds=seeds > 1) else "within noise"


def compare(title: str, arms: Mapping[str, Sequence[Result]], keys: Sequence[str], notes: Sequence[str] = ()) -> Table:
    """Before and after of several arms; each arm after the first is compared with the first.

    Args:
        title: what was run.
        arms: runs by arm, the same seeds in the same order in each; the first arm is the baseline.
        keys: the metrics, in order; those that the runs lack are left out.
        notes: lines below the table.

    Returns:
        One row per metric; differences are marked as beyond or within noise (95 %).
    """
    names = list(arms)
    base = arms[names[0]]
    seeds = len(base)
    heading = ["metric", "before", *names]
    for name in names[1:]:
        heading += [f"{name}, minus {names[0]}", "(95 %)"]
    rows = []
    for key in keys:
        if key not in base[0]["after"]:
            continue
        row = [METRICS[key].label, shown(key, combined(base, "before", key))]
        row += [shown(key, combined(arms[name], "after", key)) for name in names]
        for name in names[1:]:
            gap = contrast(arms[name], base, key)
            row += [shown(key, gap, signed=True), _verdict(gap, seeds)]
        rows.append(tuple(row))
    spread = (
        f"± is the standard error over {seeds} seeds (differences are paired by seed)."
        if seeds > 1
        else "± is the bootstrap standard error over held-out scenes: one seed says nothing about other seeds."
    )
    return Table(title, tuple(heading), tuple(rows), (spread, *notes))


def before_after(result: Result, name: str) -> Table:
    """One run before and after training.

    Args:
        result: its `result.json`.
        name: of the run.

    Returns:
        One row per metric.
    """
    before, after = estimates(result, "before"), estimates(result, "after")
    rows = [
        (
            METRICS[key].label,
            shown(key, before[key]),
            shown(key, after[key]),
            shown(key, gap := difference(records(result, "after"), records(result, "before"), key), signed=True),
            _verdict(gap, 1),
        )
        for key in METRICS
        if key in before and key in after
    ]
    note = "± is the bootstrap standard error over what was held out."
    return Table(name, ("metric", "before", "after", "change", "(95 %)"), tuple(rows), (note,))


def audit(measured: Sequence[Record], title: str) -> Table:
    """What the warm start mixes: style of the chain x kind of the caption x accuracy, of sampled completions.

    Args:
        measured: records of the shapes world.
        title: names the policy.

    Returns:
        One row per style and kind of caption, with its share, length, accuracy and S1 > S2 rate.
    """
    kinds = {
        "target": "names the target",
        "other": "names another shape",
        "absent": "names none of the scene",
        "generic": "generic caption",
    }
    rows: list[tuple[str, ...]] = []
    for focused, style in ((True, "focused"), (False, "divergent")):
        of_style = [r for r in measured if r.focused is focused]
        for names, kind in kinds.items():
            cell = [r for r in of_style if r.names == names]
            rows.append((f"{style} chain, {kind}", *_cell(cell, len(measured), len(of_style))))
    rows.append(("all", *_cell(measured, len(measured), len(measured))))
    heading = ("sampled completions", "share", "of style", "tokens", "right", "IoU", "S1 > S2")
    return Table(title, heading, tuple(rows))


def _cell(found: Sequence[Record], total: int, of_style: int) -> tuple[str, ...]:
    if not found:
        return (f"{0:.1f} %", f"{0:.1f} %", "-", "-", "-", "-")
    count = len(found)
    return (
        f"{100 * count / total:.1f} %",
        f"{100 * count / of_style:.1f} %",
        f"{sum(r.chain_tokens for r in found) / count:.1f}",
        f"{100 * sum(bool(r.right) for r in found) / count:.0f} %",
        f"{sum(r.iou for r in found) / count:.2f}",
        f"{100 * sum(r.s1_wins for r in found) / count:.0f} %",
    )
