"""Tables of several runs or measurements beside one another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dpad_fast.evaluate.measure import METRICS
from dpad_fast.evaluate.metrics import Estimate
from dpad_fast.evaluate.results import Source, number
from dpad_fast.evaluate.tables import Table, estimates, shown

_COUNTS = ("n", "missing", "format_rate")


def runs_table(runs: Sequence[Source]) -> Table:
    """Metrics after training, a column per run.

    Args:
        runs: training runs.

    Returns:
        One row per metric that one of them has.
    """
    found = [estimates(source.content, "after") for source in runs]
    nothing = Estimate(math.nan, math.nan, 0)
    rows = [
        (METRICS[key].label, *(shown(key, one.get(key, nothing)) for one in found))
        for key in METRICS
        if any(key in one for one in found)
    ]
    note = "± is the bootstrap standard error over held-out scenes."
    return Table("After training", ("metric", *(source.name for source in runs)), tuple(rows), (note,))


def measured_table(measured: Sequence[Source]) -> Table:
    """What `dpad-fast evaluate` counted and measured, a column per file.

    Args:
        measured: its outputs.

    Returns:
        One row per number that one of them has; protocols in front of their metrics.
    """
    columns = [_numbers(source.content) for source in measured]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [(name, *(column.get(name, "-") for column in columns)) for name in names]
    return Table("Measurements", ("", *(source.name for source in measured)), tuple(rows))


def _numbers(content: Mapping[str, Any]) -> dict[str, str]:
    found = {name: _text(content[name]) for name in _COUNTS if content.get(name) is not None}
    protocols = content.get("protocols")
    for protocol, metrics in protocols.items() if isinstance(protocols, dict) else ():
        if isinstance(metrics, dict):
            found |= {f"{protocol}: {name}": _text(value) for name, value in metrics.items() if _is_number(value)}
    metrics = content.get("metrics")
    for name, value in metrics.items() if isinstance(metrics, dict) else ():
        if _is_number(value):
            found[METRICS[name].label if name in METRICS else str(name)] = _text(value)
    return found


def _is_number(value: Any) -> bool:
    return number(value.get("value") if isinstance(value, dict) else value) is not None


def _text(value: Any) -> str:
    """A number, with its standard error where it has one."""
    error = number(value.get("error")) if isinstance(value, dict) else None
    told = number(value["value"] if isinstance(value, dict) else value)
    if told is None:
        return "-"
    text = f"{told:.0f}" if float(told).is_integer() and error is None else f"{told:.3f}"
    return text if error is None else f"{text} ± {error:.3f}"
