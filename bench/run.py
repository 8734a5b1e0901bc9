"""Time ops against their peers: `python -m bench.run preprocess`.

Outputs are compared before anything is timed, and a disagreement ends the run. All contestants of a case take turns,
so that whatever else the machine does falls on all of them. A turn waits, awake, until the last contestant's threads
have gone to sleep (a processor that slept as well would begin with its memory clocked down), calls up to three times
to warm up (the first of them is `first ms`: what a call costs when others have had the caches) and once more, which
p20, p50, p80 and the ratios are of.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench import registry
from dpad_fast import _extension, info

RESULTS = Path(__file__).parent / "results"
COLUMNS = (
    "op", "case", "threads", "provider", "ours", "agreement", "first_ms", "p20_ms", "p50_ms", "p80_ms", "ratio",
    "clock", "device",
)  # fmt: skip
SETTLE = 0.02  # seconds: OpenMP's threads go on spinning for a while after a call and would slow the next contestant
WARM = 3  # calls of a turn before the one that counts; one is enough where they take long
LONG = 100  # milliseconds
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def build(contest: registry.Contest, threads: int) -> tuple[dict[str, Callable[[], Any]], dict[str, str], list[str]]:
    """Prepare and compare: the calls, how each agrees with ours, and what is missing or wrong."""
    calls: dict[str, Callable[[], Any]] = {}
    agreement: dict[str, str] = {}
    problems: list[str] = []
    for provider in (*contest.ours, *contest.peers):
        try:
            call = provider.build(threads)
        except ImportError as error:
            print(f"  {provider.name} left out: {error}", file=sys.stderr)
            continue
        result = call()
        if not calls:
            ours = result
        word, equal = contest.compare(ours, result)
        if provider.agree == "exact" and not equal:
            problems.append(f"{contest.case}: {provider.name} should agree exactly, but {word}")
        calls[provider.name], agreement[provider.name] = call, word
    return calls, agreement, problems


def measure(
    calls: dict[str, Callable[[], Any]], runs: int, clock: Callable[[], float]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Milliseconds of each call in turns: the first of a turn, and the one after the warm-up."""
    first: dict[str, list[float]] = {name: [] for name in calls}
    warm: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(runs + 1):
        for name, call in calls.items():
            settled = time.perf_counter() + SETTLE
            while time.perf_counter() < settled:
                pass
            taken = []
            while len(taken) < 2 or (len(taken) <= WARM and sum(taken) < LONG):
                start = clock()
                call()
                taken.append(1e3 * (clock() - start))
            if turn > 0:
                first[name].append(taken[0])
                warm[name].append(taken[-1])
    return first, warm


def percentile(values: list[float], fraction: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(fraction * len(ordered)), len(ordered) - 1)]


def rows_of(
    contest: registry.Contest, threads: int, args: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[str]]:
    calls, agreement, problems = build(contest, threads)
    if problems:
        return [], problems
    first, times = measure(calls, args.runs, CLOCKS[args.clock])
    device = f"{info.cpu_model()}, {_extension.C.mask_kernels()}"
    best = statistics.median(times[contest.ours[0].name])
    names = {provider.name for provider in contest.ours}
    rows = []
    for name, values in times.items():
        middle = statistics.median(values)
        spread = (statistics.median(first[name]), percentile(values, 0.2), middle, percentile(values, 0.8))
        numbers = [round(number, 4) for number in spread]
        head = (contest.op, contest.case, threads, name, name in names, agreement[name])
        rows.append(dict(zip(COLUMNS, (*head, *numbers, round(middle / best, 3), args.clock, device), strict=True)))
    return rows, []


def verdicts(contest: registry.Contest, rows: list[dict[str, Any]]) -> list[str]:
    """One line for each goal of a contest: the ratio to the fastest peer that the goal is about."""
    agree = {provider.name: provider.agree for provider in contest.peers}
    lines = []
    for goal, least in contest.goals.items():
        wanted = ("exact",) if goal == "exact" else ("exact", "close")
        ratios = {row["provider"]: row["ratio"] for row in rows if agree.get(row["provider"]) in wanted}
        if ratios:
            name = min(ratios, key=lambda key: ratios[key])
            kind = "bit-exact peer" if goal == "exact" else "peer"
            lines.append(f"fastest {kind}, {name}: {ratios[name]:.2f} times our time (goal {least:g})")
    return lines


def show(console: Console, rows: list[dict[str, Any]], title: str) -> None:
    table = Table(title=title, title_justify="left")
    for name in ("provider", "agreement", "first ms", "p20 ms", "p50 ms", "p80 ms", "ratio"):
        table.add_column(name, justify="left" if name in ("provider", "agreement") else "right")
    for row in rows:
        numbers = (f"{row[key]:.3f}" for key in ("first_ms", "p20_ms", "p50_ms", "p80_ms"))
        table.add_row(row["provider"], row["agreement"], *numbers, f"{row['ratio']:.2f}")
    console.print(table)


def write(rows: list[dict[str, Any]], name: str) -> Path:
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def versions() -> str:
    names = (
        "torch", "numpy", "pillow", "torchvision", "transformers", "open_clip_torch", "opencv-python-headless",
        "kornia", "hf-processors-rs", "pycocotools", "faster-coco-eval", "hotcoco", "rlemasklib", "scikit-image",
    )  # fmt: skip
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"Python {platform.python_version()}, {platform.machine()}, " + ", ".join(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ops", nargs="*", help=f"which ops, default all: {', '.join(registry.OPS)}")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads (default: 1 2)")
    parser.add_argument("--runs", type=int, default=15, help="timed runs of each contestant, at least 9 (default: 15)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, for busy machines")
    parser.add_argument("--case", default="", help="only cases whose name contains this")
    args = parser.parse_args()
    if args.runs < 9:
        parser.error(f"--runs must be at least 9, got {args.runs}")
    console = Console()
    console.print(versions())
    for op in args.ops or list(registry.OPS):
        rows: list[dict[str, Any]] = []
        for contest in registry.load(op):
            for threads in args.threads if args.case in contest.case else []:
                torch.set_num_threads(threads)
                more, problems = rows_of(contest, threads, args)
                if problems:
                    console.print("\n".join(problems))
                    return 1
                show(console, more, f"{contest.op}: {contest.case}, {threads} thread{'s' if threads > 1 else ''}")
                console.print("\n".join(verdicts(contest, more)))
                rows.extend(more)
        if not args.case:
            console.print(f"written: {write(rows, op).relative_to(RESULTS.parent.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
