"""The tables that `dpad-fast evaluate` prints."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpad_fast.evaluate.ruler import Settings
    from dpad_fast.evaluate.summary import Interval, Sums
    from dpad_fast.evaluate.tables import Table

    Found = Mapping[str | None, Mapping[str, Interval]]


def tables(
    args: argparse.Namespace, settings: Settings, sums: Sums, head: Mapping[str, Any], found: Found
) -> list[Table]:
    """The tables of a run: protocols side by side, what no protocol changes, and the comparison.

    Args:
        args: the parsed arguments.
        settings: of the ruler.
        sums: of the run.
        head: everything of the JSON but the records.
        found: intervals by protocol and key.

    Returns:
        Tables.
    """
    from dpad_fast.evaluate import summary
    from dpad_fast.evaluate.tables import Table

    columns = summary.of_protocol(settings.protocols[0])
    rows = []
    for name in settings.protocols:
        own = found.get(name, {})
        cells = [_shown(own[column.key], column.percent) if column.key in own else "-" for column in columns]
        if "not_measured" in head["protocols"][name]:
            cells[0] = f"not measured: {head['protocols'][name]['not_measured']}"
        differs = head["protocols"][name]["differs"]
        rows.append(
            (
                name,
                *cells,
                str(head["protocols"][name]["n"]),
                str(sums.dropped[name]),
                "-" if differs is None else str(differs),
            )
        )
    heading = ("protocol", *(column.label for column in columns), "n", "dropped", "not as strict")
    tables = [Table(args.policy or args.predictions, heading, tuple(rows))]
    general = [
        (column.label, _shown(found[None][column.key], column.percent))
        for column in summary.GENERAL
        if column.key in head["metrics"]
    ]
    general += [(f"box {name}", f"{value:.3f}") for name, value in head["box_ap"].items()]
    tables.append(Table("every protocol", ("metric", "value"), tuple(general), tuple(head["notes"])))
    if "comparison" in head:
        from dpad_fast.evaluate.side_by_side import comparison_table

        tables.append(comparison_table(args.policy or args.predictions, head["comparison"]))
    return tables


def _shown(interval: Interval, percent: bool) -> str:
    factor, digits = (100.0, 1) if percent else (1.0, 3)
    spread = "" if interval.error != interval.error else f" ± {factor * interval.error:.{digits}f}"
    return f"{factor * interval.value:.{digits}f}{spread}{' %' if percent else ''}"
