"""Run benchmarks by name: `python -m bench.run preprocess masks`; without a name all CPU ops; `--list` says which.

Outputs are compared before anything is timed, and a disagreement ends the run. All contestants of a case take turns,
so that whatever else the machine does falls on all of them. A turn waits, awake, until the last contestant's threads
have gone to sleep (a processor that slept as well would begin with its memory clocked down), calls up to three times
to warm up (the first of them is `first ms`: what a call costs when others have had the caches) and once more, which
p20, p50, p80 and the ratios are of.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench import registry, results

SETTLE = 0.02  # seconds: OpenMP's threads go on spinning for a while after a call and would slow the next contestant
WARM = 3  # calls of a turn before the one that counts; one is enough where they take long
LONG = 100  # milliseconds
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


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


def rows_of(
    contest: registry.Contest, threads: int, args: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each contestant, or what is wrong with their outputs."""
    calls, agreement, problems = contest.prepare(threads)
    if problems:
        return [], problems
    first, times = measure(calls, args.runs, CLOCKS[args.clock])
    best = statistics.median(times[contest.ours[0].name])
    goals = " ".join(f"{kind}:{least:g}" for kind, least in contest.goals.items())
    kinds = contest.kinds()
    rows = []
    for name, values in times.items():
        middle = statistics.median(values)
        rows.append(
            {
                "op": contest.op,
                "case": contest.case,
                "threads": threads,
                "provider": name,
                "kind": kinds[name],
                "agreement": agreement[name],
                "first_ms": round(statistics.median(first[name]), 4),
                "p20_ms": round(results.percentile(values, 0.2), 4),
                "p50_ms": round(middle, 4),
                "p80_ms": round(results.percentile(values, 0.8), 4),
                "ratio": round(middle / best, 3),
                "goals": goals if name == contest.ours[0].name else "",
                "clock": args.clock,
                "device": results.device(),
            }
        )
    return rows, []


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """One line for each goal of a case: the ratio to the fastest peer that the goal is about."""
    lines = []
    for goal in str(rows[0]["goals"]).split():
        kind, least = goal.split(":")
        wanted = ("exact",) if kind == "exact" else ("exact", "close")
        ratios = {row["provider"]: float(row["ratio"]) for row in rows if row["kind"] in wanted}
        if ratios:
            name = min(ratios, key=lambda key: ratios[key])
            peer = "bit-exact peer" if kind == "exact" else "peer"
            lines.append(f"fastest {peer}, {name}: {ratios[name]:.2f} times our time (goal {least})")
    return lines


def show(console: Console, rows: list[dict[str, Any]], title: str) -> None:
    """One case as a table."""
    table = Table(title=title, title_justify="left")
    for name in ("provider", "agreement", "first ms", "p20 ms", "p50 ms", "p80 ms", "ratio"):
        table.add_column(name, justify="left" if name in ("provider", "agreement") else "right")
    for row in rows:
        numbers = (f"{row[key]:.3f}" for key in ("first_ms", "p20_ms", "p50_ms", "p80_ms"))
        table.add_row(row["provider"], row["agreement"], *numbers, f"{row['ratio']:.2f}")
    console.print(table)


def ops(arguments: list[str]) -> int:
    """Time CPU ops; 1 where outputs disagree."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ops", nargs="*", help=f"which ops, default all: {', '.join(registry.OPS)}")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads (default: 1 2)")
    parser.add_argument("--runs", type=int, default=15, help="timed runs of each contestant, at least 9 (default: 15)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: processor time, for busy machines")
    parser.add_argument("--case", default="", help="only cases whose name contains this; writes no file")
    parser.add_argument("--list", action="store_true", help="say what there is, CPU ops and all else, and stop")
    args = parser.parse_args(arguments)
    if args.list:
        for name, benchmark in registry.BENCHMARKS.items():
            print(f"{name:<12}{benchmark.summary}")
        return 0
    for name in args.ops:
        if name not in registry.OPS:
            parser.error(f"no CPU op is called {name!r}; there are {', '.join(registry.OPS)}")
    if args.runs < 9:
        parser.error(f"--runs must be at least 9, got {args.runs}")
    console = Console()
    console.print(results.versions())
    for op in args.ops or registry.OPS:
        rows: list[dict[str, Any]] = []
        for contest in registry.contests(op):
            for threads in args.threads if args.case in contest.case else []:
                torch.set_num_threads(threads)
                more, problems = rows_of(contest, threads, args)
                if problems:
                    console.print("\n".join(problems))
                    return 1
                show(console, more, f"{contest.op}: {contest.case}, {threads} thread{'s' if threads > 1 else ''}")
                console.print("\n".join(verdicts(more)))
                rows.extend(more)
        if not args.case:
            console.print(f"written: {results.write(op, rows).relative_to(results.FOLDER.parents[1])}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Hands over to the benchmark that is named first, or times CPU ops."""
    given = sys.argv[1:] if arguments is None else arguments
    named = registry.BENCHMARKS.get(given[0]) if given else None
    if named is None or named.kind == "contests":
        return ops(given)
    return int(importlib.import_module(named.module).main(given[1:]) or 0)


if __name__ == "__main__":
    sys.exit(main())
