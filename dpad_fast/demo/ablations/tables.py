"""The table of the ablations, and the same in pieces that fit a terminal, from the rows of `outcome.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dpad_fast.demo.ablations import rule
from dpad_fast.demo.ablations.outcome import METRICS
from dpad_fast.evaluate.measure import METRICS as KNOWN
from dpad_fast.evaluate.metrics import Estimate
from dpad_fast.evaluate.tables import Table, shown

Row = Mapping[str, Any]
_SPREAD = "spread of curves"


def notes(rows: Sequence[Row]) -> tuple[str, ...]:
    """What stands below the table.

    Args:
        rows: of `outcome.rows`.

    Returns:
        Lines.
    """
    claims = sum(len(row["claims"]) for row in rows)
    matters = ", ".join(f"{label(key)} {_number(key, value)}" for key, value in rule.MATTERS.items())
    return (
        "Measured after training, sampled at temperature 1 on held-out scenes. ± is the standard error over seeds; in "
        "brackets the difference from R_dpad in the same setting, paired by seed.",
        f"A verdict is by the {100 * (1 - rule.LEVEL):.0f} % interval over seeds, corrected for the {claims} claims of "
        "the table (Bonferroni), with the larger of the row's own standard deviation and that of its setting.",
        f"Differences that matter: {matters}. 'Similar' agrees where the interval lies within, and 'higher' or 'lower' "
        "disagrees where it leaves out any that does.",
    )


def label(key: str) -> str:
    """Name of a metric."""
    return _SPREAD if key == "spread" else KNOWN[key].label


def _number(key: str, value: float, signed: bool = False) -> str:
    if key == "spread":
        return f"{value:{'+' if signed else ''}.3f}"
    return shown(key, Estimate(value, math.nan, 1), signed=signed)


def cell(row: Row, key: str) -> str:
    """A metric of a row: mean, standard error, and the difference from R_dpad.

    Args:
        row: the row.
        key: of `rule.MATTERS`.

    Returns:
        For example "32.3 ± 1.2 (+11.1)".
    """
    found = row["metrics"][key]
    if found["mean"] is None:
        return "-"
    error = math.nan if found["error"] is None else found["error"]
    text = f"{found['mean']:.3f}" if key == "spread" else shown(key, Estimate(found["mean"], error, row["seeds"]))
    gap = found.get("difference")
    return text if gap is None else f"{text} ({_number(key, gap, signed=True)})"


def interval(row: Row, key: str) -> str:
    """The difference from R_dpad with the interval that the rule looks at."""
    found = row["metrics"][key]
    if found.get("difference") is None:
        return "-"
    ends = [found["low"], found["high"]]
    if None in ends:
        return f"{_number(key, found['difference'], signed=True)}, no spread"
    low, high = (_number(key, end, signed=True) for end in ends)
    return f"{_number(key, found['difference'], signed=True)} [{low}, {high}]"


def whole(rows: Sequence[Row], title: str) -> Table:
    """The one table: every arm of every setting, its numbers, the paper's claim and the verdict.

    Args:
        rows: of `outcome.rows`.
        title: above it.

    Returns:
        The table.
    """
    heading = ("setting", "arm", "seeds", *(label(key) for key in METRICS), "the paper's claim", "verdict")
    lines = []
    for row in rows:
        claims = row["claims"]
        words = "; ".join(dict.fromkeys(claim["words"] for claim in claims)) or _unclaimed(row)
        said = "; ".join(f"{label(claim['metric'])}: {claim['verdict']}" for claim in claims) or "-"
        numbers = (cell(row, key) for key in METRICS)
        lines.append((row["setting"], row["title"], str(row["seeds"]), *numbers, words, said))
    return Table(title, heading, tuple(lines), notes(rows))


def _unclaimed(row: Row) -> str:
    return {"control": "none: a control of ours"}.get(row["kind"], "all others are compared with this")


def numbers(rows: Sequence[Row], setting: str, title: str) -> Table:
    """A setting's part without the claims, which fits a terminal.

    Args:
        rows: of `outcome.rows`.
        setting: which.
        title: above it.

    Returns:
        The table.
    """
    heading = ("arm", *(label(key) for key in METRICS))
    lines = tuple(
        (row["title"], *(cell(row, key) for key in METRICS)) for row in rows if row["setting"] == setting
    )  # fmt: skip
    return Table(title, heading, lines, ("± over seeds; in brackets the difference from R_dpad, paired by seed.",))


def claims(rows: Sequence[Row], title: str) -> Table:
    """Every claim with the interval and the verdict.

    Args:
        rows: of `outcome.rows`.
        title: above it.

    Returns:
        The table.
    """
    heading = ("setting, arm", "the paper's claim", "measured", "arm minus R_dpad", "seeds", "verdict")
    lines = tuple(
        (
            f"{row['setting']}, {row['title']}",
            claim["words"],
            label(claim["metric"]),
            interval(row, claim["metric"]),
            str(row["seeds"]),
            claim["verdict"],
        )
        for row in rows
        for claim in row["claims"]
    )
    return Table(title, heading, lines, notes(rows))


def counted(rows: Sequence[Row]) -> str:
    """How many claims agree, disagree and cannot be told."""
    said = [claim["verdict"] for row in rows for claim in row["claims"]]
    plurals = {rule.AGREES: "agree", rule.DISAGREES: "disagree", rule.OPEN: rule.OPEN}
    numbers = {one: said.count(one) for one in plurals}
    counts = (f"{count} {one if count == 1 else plurals[one]}" for one, count in numbers.items())
    return f"Of {len(said)} claim{'' if len(said) == 1 else 's'} {', '.join(counts)}."
