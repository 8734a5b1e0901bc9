"""What a run on a GPU gave, beside what was predicted: `python -m bench.gpu.outcome FOLDER`; `--keep` commits to it.

The prediction, bench/gpu/day/prediction.csv, is written before the run and not changed after it. `--keep` copies the
run's files to bench/results/ and writes the tables of docs/gpu.md. A rehearsal on a CPU is never kept.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

PREDICTION = Path(__file__).parent / "day" / "prediction.csv"
RESULTS = Path(__file__).parents[1] / "results"
FILES = ("reward-gpu.csv", "gpu.csv")
_PATH = re.compile(r"(?<![\w.:/])/(?:[\w.+-]+/)+([\w.+-]*)")
NOT_YET = "not measured yet"
Row = Mapping[str, str]


def rows_in(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def measured(asked: Row, rows: list[dict[str, str]]) -> float | None:
    """The value that a prediction is about."""
    names = ("contestant", "pictures") if asked["table"] == "reward-gpu" else ("provider", "case")
    for row in rows:
        if row[names[0]] == asked["name"] and row[names[1]].startswith(asked["where"]) and row[asked["column"]]:
            return float(row[asked["column"]])
    return None


def verdict(asked: Row, value: float | None) -> str:
    """How a measurement stands to its prediction."""
    if value is None:
        return ""
    low, high = float(asked["low"]), float(asked["high"])
    if low <= value <= high:
        return "as predicted"
    if value <= 0:
        return "below the lower end"
    return f"{value / high:.1f}x the upper end" if value > high else f"{low / value:.1f}x below the lower end"


def beside(folder: Path) -> list[tuple[str, str, str, str, str]]:
    """Every prediction with its measurement: what, predicted, measured, how they stand, and why it was predicted.

    What a rehearsal on a CPU timed is no measurement of what was predicted.
    """
    there = on_gpu(folder)
    tables = {name.removesuffix(".csv"): rows_in(folder / name) if there else [] for name in FILES}
    found = []
    for asked in rows_in(PREDICTION):
        value = measured(asked, tables[asked["table"]])
        what = f"{asked['name']}, {asked['where']}: {asked['column'].replace('_', ' ')}"
        said = NOT_YET if value is None else f"{value:g}"
        found.append((what, f"{asked['low']} to {asked['high']}", said, verdict(asked, value), asked["why"]))
    return found


def on_gpu(folder: Path) -> bool:
    """Whether the files there were made on a GPU: only those name a driver."""
    rows = [row for name in FILES for row in rows_in(folder / name)]
    return bool(rows) and all(row["driver"] for row in rows)


def keep(folder: Path) -> list[Path]:
    """Copies a run's files to the results.

    Args:
        folder: what run.sh left.

    Returns:
        The copies.

    Raises:
        ValueError: the folder holds no results, or those of a rehearsal on a CPU.
    """
    if not on_gpu(folder):
        raise ValueError(f"{folder} holds no results of a GPU")
    found = [name for name in FILES if (folder / name).is_file()]
    for name in found:
        shutil.copyfile(folder / name, RESULTS / name)
    copies = [RESULTS / name for name in found]
    summary = folder / "summary.txt"
    if summary.is_file():
        copies.append(RESULTS / "gpu-day.txt")
        copies[-1].write_text(_PATH.sub(r"\1", summary.read_text(encoding="utf-8")), encoding="utf-8")  # no folders
    return copies


def main(arguments: list[str] | None = None) -> int:
    """Print, and keep where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.outcome", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="what bench/gpu/day/run.sh left in $OUT")
    parser.add_argument("--keep", action="store_true", help="copy to bench/results/ and write the tables in docs/")
    options = parser.parse_args(arguments)
    for what, predicted, said, stands, _ in beside(options.folder):
        print(f"{what:<78} predicted {predicted:>14}, {said} {stands}".rstrip())
    if options.keep:
        from bench import tables

        for path in keep(options.folder):
            print(path)
        return tables.main([])
    return 0


if __name__ == "__main__":
    sys.exit(main())
