"""Tables of several runs or measurements beside one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def measured_tables(measured: Sequence[Source]) -> list[Table]:
    """What `dpad-fast evaluate` counted and measured.

    Args:
        measured: its outputs.

    Returns:
        A table of protocols, a row per protocol and file, where there are any; and one of all else, a column per file.
    """
    tables = []
    by_protocol = {
        (protocol, source.name): found
        for source in measured
        for protocol, metrics in _mappings(source.content.get("protocols")).items()
        if (found := _numbers(metrics))
    }
    if by_protocol:
        names = list(dict.fromkeys(name for found in by_protocol.values() for name in found))
        order = list(dict.fromkeys(protocol for protocol, _ in by_protocol))
        rows = [
            (protocol if len(measured) == 1 else f"{protocol}, {file}", *(found.get(name, "-") for name in names))
            for (protocol, file), found in sorted(by_protocol.items(), key=lambda pair: order.index(pair[0][0]))
        ]
        tables.append(Table("Protocols", ("", *names), tuple(rows)))
    columns = [
        {name: _text(source.content[name]) for name in _COUNTS if source.content.get(name) is not None}
        | _numbers(source.content.get("metrics"))
        for source in measured
    ]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [(name, *(column.get(name, "-") for column in columns)) for name in names]
    return [*tables, Table("Measurements", ("", *(source.name for source in measured)), tuple(rows))]


def _mappings(value: Any) -> dict[str, Any]:
    return {str(name): entry for name, entry in value.items()} if isinstance(value, dict) else {}


def _numbers(metrics: Any) -> dict[str, str]:
    """Every number of a mapping by its label, as text."""
    return {
        METRICS[name].label if name in METRICS else name: _text(value)
        for name, value in _mappings(metrics).items()
        if _is_number(value)
    }


def _is_number(value: Any) -> bool:
    return number(value.get("value") if isinstance(value, dict) else value) is not None


def _text(value: Any) -> str:
    """A count as it is; a measure with three digits, and its standard error where it has one."""
    told = value.get("value") if isinstance(value, dict) else value
    error = number(value.get("error")) if isinstance(value, dict) else None
    if number(told) is None:
        return "-"
    text = str(told) if isinstance(told, int) else f"{told:.3f}"
    return text if error is None else f"{text} ± {error:.3f}"
