"""Keep a run of `dpad-fast demo --ablations`, and write docs/ablations.md from it: `python -m bench.ablations OUT`.

bench/results/ablations.json is the run's result.json, ablations-machine.json says how long it took and where, and the
plots are drawn anew from the first. The tables of the document are between the marks of `bench/tables.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import results

Run = Mapping[str, Any]
RESULT, MACHINE = "ablations.json", "ablations-machine.json"
_MISSING = "The full run has not been made yet.\n"


def read(folder: Path = results.FOLDER) -> Run | None:
    """The run that is kept, with the machine under `machine`; None where there is none.

    Args:
        folder: of results.

    Returns:
        The content of result.json.
    """
    if not (folder / RESULT).is_file():
        return None
    found: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return {**found, "machine": json.loads((folder / MACHINE).read_text(encoding="utf-8"))}


def whole(run: Run) -> str:
    """The one table: every arm, its numbers, the claim and the verdict."""
    return str(run["settings"][0]["tables"][0]["markdown"])


def claims(run: Run) -> str:
    """Every claim with its interval."""
    return str(run["settings"][0]["tables"][1]["markdown"])


def audits(run: Run) -> str:
    """The warm starts and the encoders, as they were before anything was trained."""
    tables = [table for setting in run["settings"][1:] for table in setting["tables"] if "audit of" in table["title"]]
    return "\n".join(table["markdown"] for table in tables)


def summary(run: Run) -> str:
    """The verdicts in words, one line for each claim, those of a kind together."""
    from dpad_fast.demo.ablations.tables import counted

    rows = run["rows"]
    lines = [f"{counted(rows)}\n"]
    for verdict in ("agrees", "disagrees", "cannot be told"):
        found = [
            f"{row['title']} ({row['setting']}): {_difference(row, claim)}"
            for row in rows
            for claim in row["claims"]
            if claim["verdict"] == verdict
        ]
        lines.append(f"- **{verdict}**: {'; '.join(found) or 'none'}.")
    return "\n".join(lines) + "\n"


def _difference(row: Mapping[str, Any], claim: Mapping[str, Any]) -> str:
    from dpad_fast.demo.ablations.tables import interval, label

    return f"{label(claim['metric'])} {interval(row, claim['metric'])}, claimed {claim['says']}"


def made(run: Run) -> str:
    """The commands, how long each took, the machine and the versions."""
    machine, config = run["machine"], run["settings"][1]["config"]
    lines = [f"    {call['command']}    # {call['seconds'] / 60:.0f} minutes" for call in machine["calls"]]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return (
        "\n".join(lines)
        + f"\n\n{config['steps']} steps a run, {config['evaluation']['scenes']} held-out scenes; "
        + f"{machine['calls'][-1]['workers']} processes at a time, on {machine['cores']} cores of "
        + f"{machine['processor']} ({versions}).\n"
    )


BLOCKS: dict[str, Callable[[Run], str]] = {
    "ablations": whole,
    "ablations-claims": claims,
    "ablations-audits": audits,
    "ablations-summary": summary,
    "ablations-run": made,
}


def block(name: str, folder: Path = results.FOLDER) -> str:
    """A part of docs/ablations.md.

    Args:
        name: of `BLOCKS`.
        folder: of results.

    Returns:
        Markdown.
    """
    run = read(folder)
    return _MISSING if run is None else BLOCKS[name](run)


def keep(out: Path, folder: Path = results.FOLDER) -> list[Path]:
    """Copy a run's numbers to the results, and draw its plots there.

    Args:
        out: the folder of `dpad-fast demo --ablations`.
        folder: of results.

    Returns:
        The files.

    Raises:
        ValueError: the folder holds no finished run of the ablations.
    """
    from dpad_fast import files
    from dpad_fast.demo.ablations.drawing import write_plots

    run = json.loads((out / "result.json").read_text(encoding="utf-8")) if (out / "result.json").is_file() else {}
    if "rows" not in run or not (out / "machine.json").is_file():
        raise ValueError(f"{out} holds no finished run of `dpad-fast demo --ablations`")
    for name, source in ((RESULT, "result.json"), (MACHINE, "machine.json")):
        files.write_bytes(folder / name, (out / source).read_bytes())
    plots = write_plots(run["settings"], run["rows"], folder / "ablations")
    return [folder / RESULT, folder / MACHINE, *plots]


def main(arguments: list[str] | None = None) -> int:
    """Keep a run and rewrite the document."""
    parser = argparse.ArgumentParser(prog="python -m bench.ablations", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="the folder that `dpad-fast demo --ablations` wrote")
    options = parser.parse_args(arguments)
    from bench import tables

    for path in keep(options.out):
        print(path)
    return tables.main([])


if __name__ == "__main__":
    sys.exit(main())
