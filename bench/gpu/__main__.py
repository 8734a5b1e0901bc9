"""Time the ops on a GPU against their peers, with CUDA events: `python -m bench.gpu`.

Outputs are compared before anything is timed, and a disagreement ends the run. All contestants of a case take turns.
Between runs the level 2 cache is overwritten, so that every run finds its input in memory; a run is timed from the
moment that its first kernel may start, host work of the call included, because a training step pays for that too. Times
are medians with the 20th and 80th percentile. Without a GPU nothing is timed, and nothing is written.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch

from bench import registry, results

CACHE = 256 << 20  # bytes: more than any level 2 cache holds


def missing() -> str | None:
    """Why nothing can be timed here, or None."""
    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) was built without CUDA"
    return None if torch.cuda.is_available() else "torch finds no GPU that it can use"


def measure(calls: dict[str, Callable[[], Any]], runs: int) -> dict[str, list[float]]:
    """Microseconds of each run of each call, in turns, after two that are not counted."""
    scratch = torch.empty(CACHE, dtype=torch.uint8, device="cuda")
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(runs + 2):
        for name, call in calls.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            scratch.zero_()
            torch.cuda.synchronize()
            start.record()
            call()
            end.record()
            end.synchronize()
            if turn > 1:
                times[name].append(1e3 * start.elapsed_time(end))
    return times


def rows_of(contest: registry.Contest, runs: int) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each contestant, or what is wrong with their outputs."""
    calls, agreement, problems = contest.prepare(torch.get_num_threads())
    if problems:
        return [], problems
    times = measure(calls, runs)
    kinds = contest.kinds()
    best = statistics.median(times[contest.ours[0].name])
    rows = []
    for name, values in times.items():
        middle = statistics.median(values)
        rows.append(
            {
                "op": contest.op,
                "case": contest.case,
                "provider": name,
                "kind": kinds[name],
                "agreement": agreement[name],
                "p20_us": round(results.percentile(values, 0.2), 2),
                "p50_us": round(middle, 2),
                "p80_us": round(results.percentile(values, 0.8), 2),
                "ratio": round(middle / best, 3),
                "device": torch.cuda.get_device_name(),
                "torch": torch.__version__,
            }
        )
    return rows, []


def show(rows: list[dict[str, Any]]) -> None:
    """One case as lines."""
    print(f"{rows[0]['op']}: {rows[0]['case']}")
    for row in rows:
        times = " ".join(f"{row[key]:>10.1f}" for key in ("p20_us", "p50_us", "p80_us"))
        print(f"  {row['provider']:<36} {times} us  {row['ratio']:>7.2f} x  {row['agreement']}")


def main(arguments: list[str] | None = None) -> int:
    """Compare, time, print, write; 2 where there is no GPU, 1 where outputs disagree."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=51, help="timed runs of each contestant, at least 9 (default: 51)")
    parser.add_argument("--only", default="", help="only cases whose op or name contains this; writes no file")
    options = parser.parse_args(arguments)
    if options.runs < 9:
        parser.error(f"--runs must be at least 9, got {options.runs}")
    reason = missing()
    if reason is not None:
        print(f"bench.gpu: {reason}; nothing was timed", file=sys.stderr)
        return 2
    from bench.gpu.contests import contests

    print(f"{results.versions()}, {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    rows: list[dict[str, Any]] = []
    for contest in contests("cuda"):
        if options.only not in f"{contest.op}: {contest.case}":
            continue
        more, problems = rows_of(contest, options.runs)
        if problems:
            print("\n".join(problems), file=sys.stderr)
            return 1
        show(more)
        rows += more
    if not options.only:
        results.write("gpu", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
