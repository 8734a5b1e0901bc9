"""Tables of several runs or measurements beside one another."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dpad_fast.evaluate.measure import METRICS
from dpad_fast.evaluate.metrics import Estimate
from dpad_fast.evaluate.results import Source, number
from dpad_fast.evaluate.summary import GENERAL
from dpad_fast.evaluate.tables import Table, estimates, shown

_COUNTS = {"n": "samples", "missing": "samples without an answer", "format_rate": "format"}
_PROTOCOL = {"n": "samples", "dropped": "samples dropped", "differs": "not as strict"}
_OF_PROTOCOL = {"giou": "gIoU", "ciou": "cIoU", "p50": "P@0.5", "p70": "P@0.7", "p90": "P@0.9"}
_LABELS = {key: metric.label for key, metric in METRICS.items()} | {c.key: c.label for c in GENERAL} | _OF_PROTOCOL
_PERCENT = {key for key, metric in METRICS.items() if metric.percent} | {c.key for c in GENERAL if c.percent}


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
        A table of protocols, a row per protocol and file, where there are any; one of all else, a column per file; and
        one of differences per file that was compared with another.
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
        heading = (
            "protocol" if len(measured) == 1 else "protocol, result",
            *(_PROTOCOL.get(name, name) for name in names),
        )
        tables.append(Table("Protocols", heading, tuple(rows)))
    columns = [_measurements(source.content) for source in measured]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [(name, *(column.get(name, "-") for column in columns)) for name in names]
    if rows:
        tables.append(Table("Measurements", ("metric", *(source.name for source in measured)), tuple(rows)))
    compared = [(source.name, source.content.get("comparison")) for source in measured]
    return tables + [comparison_table(name, found) for name, found in compared if isinstance(found, dict)]


def comparison_table(name: str, comparison: Mapping[str, Any]) -> Table:
    """The paired differences of `dpad-fast evaluate --compare`.

    Args:
        name: of what was measured.
        comparison: {"other", "n", "differences": {protocol: {key: interval}}}, as evaluate's JSON has it.

    Returns:
        A row per protocol and metric that is a number.
    """
    rows = []
    for protocol, own in _mappings(comparison.get("differences")).items():
        for key, value in _mappings(own).items():
            told = _mappings(value)
            difference, low, high, p = (number(told.get(part)) for part in ("value", "low", "high", "p"))
            if difference is None:
                continue
            span = "-" if low is None or high is None else f"{low:+.4f} to {high:+.4f}"
            label = f"{protocol}: {_LABELS.get(key, key)}"
            rows.append((label, f"{difference:+.4f}", span, "-" if p is None else f"{p:.3f}"))
    title = f"{name} minus {comparison.get('other')}, on {comparison.get('n')} samples"
    return Table(title, ("metric", "difference", "95 % interval", "p"), tuple(rows))


def _measurements(content: Mapping[str, Any]) -> dict[str, str]:
    """Counts and metrics of one file, by label; those of its first protocol say which that is."""
    metrics, protocols = _mappings(content.get("metrics")), list(_mappings(content.get("protocols")))
    counts = [name for name in _COUNTS if content.get(name) is not None and (name != "format_rate" or not metrics)]
    found = {_COUNTS[name]: _text(content[name]) for name in counts}
    for name, value in metrics.items():
        if _is_number(value):
            of = f", {protocols[0]}" if protocols and name in _OF_PROTOCOL else ""
            found[_LABELS.get(name, name) + of] = _percent(value) if name in _PERCENT else _text(value)
    return found | {f"box {name}": text for name, text in _numbers(content.get("box_ap")).items()}


def _mappings(value: Any) -> dict[str, Any]:
    return {str(name): entry for name, entry in value.items()} if isinstance(value, dict) else {}


def _numbers(metrics: Any) -> dict[str, str]:
    """Every number of a mapping by its name, as text."""
    return {name: _text(value) for name, value in _mappings(metrics).items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return number(value.get("value") if isinstance(value, dict) else value) is not None


def _percent(value: Any) -> str:
    """A rate with its standard error, in per cent."""
    told = number(value.get("value") if isinstance(value, dict) else value) or 0.0
    error = number(value.get("error")) if isinstance(value, dict) else None
    return f"{100 * told:.1f}" + ("" if error is None else f" ± {100 * error:.1f}") + " %"


def _text(value: Any) -> str:
    """A count as it is; a measure with three digits, and its standard error where it has one."""
    told = value.get("value") if isinstance(value, dict) else value
    error = number(value.get("error")) if isinstance(value, dict) else None
    if number(told) is None:
        return "-"
    text = str(told) if isinstance(told, int) else f"{told:.3f}"
    return text if error is None else f"{text} ± {error:.3f}"
