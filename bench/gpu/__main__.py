"""Time the ops on a GPU against their peers, with CUDA events: `python -m bench.gpu`.

Outputs are compared before anything is timed; a disagreement, or a contestant that fails, is recorded and the run goes
on. All contestants of a case take turns. A run is timed from the moment that its first kernel may start, host work of
the call included, because a training step pays for that too: with the level 2 cache overwritten before it, so that its
input lies in memory, and again without. At last each call is captured as a CUDA graph, where it can be, and replayed,
which leaves the work of the GPU alone. `--device cpu` runs the same on the CPU to rehearse it. Without a GPU nothing is
timed, and nothing is written.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench import registry, results
from bench.gpu.clocks import DEVICES, Call, Clock, CpuClock, GpuClock, beginning_with

TINY = {"count": 6, "height": 60, "width": 250, "pictures": 2}
# What failed on a GPU is recorded; what fails is as varied as the peers.
_FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, OSError)
_MODES = ("flushed", "warm", "graph")


def missing() -> str | None:
    """Why nothing can be timed here, or None."""
    if torch.version.cuda is None:
        return f"this torch ({torch.__version__}) was built without CUDA"
    return None if torch.cuda.is_available() else "torch finds no GPU that it can use"


@dataclass
class Line:
    """A contestant of a case: how its output agrees, and microseconds of its runs by mode."""

    contest: registry.Contest
    provider: registry.Provider
    call: Call | None = None
    agreement: str = ""
    notes: list[str] = field(default_factory=list)
    wrong: bool = False
    times: dict[str, list[float]] = field(default_factory=dict)

    def attempt(self, what: str, action: Any) -> Any:
        """What the action gives, or None, and a note, where it fails."""
        try:
            return action()
        except _FAILURES as error:
            if self.provider in self.contest.ours:  # the note has room for one line, and the machine may not come back
                traceback.print_exc()
            self.notes.append(f"{what}: {type(error).__name__}: {error}".splitlines()[0][:160])
            return None


def prepared(contest: registry.Contest) -> list[Line]:
    """Builds and calls every contestant, and compares its output with that of the first of ours."""
    lines: list[Line] = []
    ours: Any = None
    mine = {provider.name for provider in contest.ours}
    for provider in (*contest.ours, *contest.peers):
        line = Line(contest, provider)
        try:
            build = line.attempt("failed", lambda provider=provider: provider.build(torch.get_num_threads()))
            result = None if build is None else line.attempt("failed", build)
        except ImportError as error:
            print(f"  {provider.name} left out: {error}", file=sys.stderr)
            continue
        lines.append(line)
        if result is None:
            line.wrong = provider.name in mine
            continue
        line.call = build
        if ours is None and provider.name in mine:
            ours = result
        if ours is not None:
            line.attempt("failed", lambda line=line, pair=(ours, result): agree(line, *pair))
    return lines


def agree(line: Line, ours: Any, result: Any) -> None:
    """Notes how an output differs from ours."""
    line.agreement, equal = line.contest.compare(ours, result)
    line.wrong = line.provider.agree == "exact" and not equal
    line.notes += ["should agree exactly"] if line.wrong else []


def measure(lines: list[Line], mode: str, runs: int, clock: Clock) -> None:
    """Times all calls in turns, after two turns that are not counted."""
    for turn in range(runs + 2):
        for line in beginning_with(lines, turn):
            if line.call is None:
                continue
            spent = line.attempt(f"failed when timed {mode}", lambda call=line.call: one_run(call, mode, clock))
            if spent is None:
                line.call, line.wrong = None, line.wrong or line.provider in line.contest.ours
            elif turn > 1:
                line.times.setdefault(mode, []).append(spent)


def one_run(call: Call, mode: str, clock: Clock) -> float:
    """Microseconds of a call on an idle device."""
    if mode == "flushed":
        clock.flush()
    clock.wait()
    return clock.time(call)


def capture(lines: list[Line], runs: int, clock: Clock) -> None:
    """Times each call as a graph; one that fails as a graph has no time and stops no other."""
    for line in lines:
        if line.call is None:
            continue
        made = line.attempt("no graph", lambda call=line.call: clock.captured(call))
        if made is None:
            continue
        replay = partial(replayed, line, line.call, made, runs, clock)
        times = line.attempt("failed as a graph", replay)
        if times is None:
            line.wrong = line.wrong or line.provider in line.contest.ours
        else:
            line.times["graph"] = times


def replayed(line: Line, call: Call, made: tuple[Call, Any], runs: int, clock: Clock) -> list[float]:
    """Microseconds of a graph. What it gives is held against what the call itself gives."""
    replay, result = made
    expected = call()
    replay()
    clock.wait()
    word, equal = line.contest.compare(expected, result)
    if not equal:
        line.wrong = True
        line.notes.append(f"another result from the graph: {word}")
    return [one_run(replay, "flushed", clock) for _ in range(runs + 2)][2:]


def row(line: Line, best: float | None, day: dict[str, str]) -> dict[str, Any]:
    """One line of the result; what was not measured is empty."""
    flushed = line.times.get("flushed", [])
    middle = {mode: f"{statistics.median(line.times[mode]):.2f}" if mode in line.times else "" for mode in _MODES}
    kinds = line.contest.kinds()
    return {
        "op": line.contest.op,
        "case": line.contest.case,
        "provider": line.provider.name,
        "kind": kinds[line.provider.name],
        "agreement": line.agreement,
        "p20_us": f"{results.percentile(flushed, 0.2):.2f}" if flushed else "",
        "p50_us": middle["flushed"],
        "p80_us": f"{results.percentile(flushed, 0.8):.2f}" if flushed else "",
        "warm_us": middle["warm"],
        "graph_us": middle["graph"],
        "ratio": f"{float(middle['flushed']) / best:.3f}" if best and flushed else "",
        "note": "; ".join(line.notes),
        **day,
    }


def rows_of(cases: list[list[Line]], device: torch.device) -> list[dict[str, Any]]:
    """All cases as rows; the ratio is to the first of ours."""
    found, day = [], results.day(device)
    for lines in cases:
        first = lines[0].times.get("flushed") if lines else None
        found += [row(line, statistics.median(first) if first else None, day) for line in lines]
    return found


def show(rows: Iterable[dict[str, Any]]) -> None:
    """The cases as lines."""
    case = ""
    for line in rows:
        if f"{line['op']}: {line['case']}" != case:
            case = f"{line['op']}: {line['case']}"
            print(case)
        times = " ".join(f"{line[key]:>10}" for key in ("p50_us", "warm_us", "graph_us"))
        print(f"  {line['provider']:<42} {times} us  {line['ratio']:>8} x  {line['agreement']}  {line['note']}")


def main(arguments: list[str] | None = None) -> int:
    """Compare, time, print, write; 2 where there is no GPU, 1 where ours failed or outputs disagree."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=51, help="timed runs of each contestant, at least 9 (default: 51)")
    parser.add_argument("--only", default="", help="only cases whose op or name contains this")
    parser.add_argument("--device", choices=DEVICES, default="cuda", help="cpu rehearses (default: cuda)")
    parser.add_argument("--tiny", action="store_true", help="small inputs, to rehearse")
    parser.add_argument("--once", action="store_true", help="compare and time nothing: what a profiler or checker runs")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no case and no graph begins after these")
    parser.add_argument("--out", help=f"folder for gpu.csv ({results.FOLDER}, and none where this was no whole run)")
    options = parser.parse_args(arguments)
    if options.runs < 9:
        parser.error(f"--runs must be at least 9, got {options.runs}")
    device, began = torch.device(options.device), time.perf_counter()
    reason = missing() if device.type == "cuda" else None
    if reason is not None:
        print(f"bench.gpu: {reason}; nothing was timed", file=sys.stderr)
        return 2
    from bench.gpu.contests import contests

    clock: Clock = GpuClock(device) if device.type == "cuda" else CpuClock()
    print(f"{results.versions()}, {results.name_of(device)}, CUDA {torch.version.cuda}")
    if options.out is None and device.type == "cuda" and not (options.tiny or options.only):
        options.out = str(results.FOLDER)
    cases: list[list[Line]] = []
    failed: list[str] = []
    known = False
    for contest in each(contests(options.device, **(TINY if options.tiny else {})), failed):
        if options.only not in f"{contest.op}: {contest.case}":
            continue
        known = True
        if time.perf_counter() - began > options.seconds:
            print(f"no time for {contest.op}: {contest.case}", file=sys.stderr)
            continue
        cases.append(prepared(contest))
        for mode in _MODES[:2] if not options.once else ():
            measure(cases[-1], mode, options.runs, clock)
        save(cases, options, device)
    if options.only and not known and not failed:
        parser.error(f"--only: no case has {options.only!r} in its op or name")
    return finish(cases, failed, clock, options, began)


def each(ops: Mapping[str, Iterable[registry.Contest]], failed: list[str]) -> Iterator[registry.Contest]:
    """All cases. What fails to make one ends its op only, and is added to `failed`."""
    for op, made in ops.items():
        try:
            yield from made
        except (ImportError, *_FAILURES) as error:
            failed.append(f"{op}, from here on: {type(error).__name__}: {error}".splitlines()[0][:160])
            print(f"failed: {failed[-1]}", file=sys.stderr)


def save(cases: list[list[Line]], options: argparse.Namespace, device: torch.device) -> None:
    """Writes what is known so far: what comes next may end more than itself."""
    if options.out and cases and not options.once:
        results.write("gpu", rows_of(cases, device), Path(options.out))


def finish(cases: list[list[Line]], failed: list[str], clock: Clock, options: argparse.Namespace, began: float) -> int:
    """Graphs come last, since a capture that fails may end more than itself; then all is said."""
    for lines in cases if not options.once else ():
        if time.perf_counter() - began < options.seconds:
            capture(lines, options.runs, clock)
            save(cases, options, clock.device)
    show(rows_of(cases, clock.device))
    wrong = [f"{line.contest.case}: {line.provider.name}" for lines in cases for line in lines if line.wrong]
    bad = [f"wrong: {line}" for line in wrong] + [f"failed: {line}" for line in failed]
    print("\n".join(bad) if bad else "outputs agree")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
