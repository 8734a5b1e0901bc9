"""`dpad-fast demo --ablations`: the paper's tables in the shapes world."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import time
from typing import Any

from dpad_fast.terminal import say

SEEDS = 3


def run(args: argparse.Namespace, changes: dict[str, Any]) -> int:
    """Run what is not there yet, then write the tables, the plots, the report and `result.json`.

    Args:
        args: of `dpad-fast demo`; the folder is ours.
        changes: to every configuration.

    Returns:
        The exit status.

    Raises:
        ValueError: for an arm or setting that is unknown, options that do not go together, or a worker that failed.
    """
    plan = _plan(args, changes)
    from dpad_fast.demo.ablations.drawing import write_plots
    from dpad_fast.demo.ablations.result import PREFACE, result_of
    from dpad_fast.demo.ablations.run import run_all
    from dpad_fast.demo.display import make_display
    from dpad_fast.evaluate.report import write_report
    from dpad_fast.train.resume import write_json

    workers = args.workers or os.cpu_count() or 1
    started = time.perf_counter()
    say("\n".join(PREFACE))
    with make_display() as display:
        found = run_all(plan, display, workers)
    result = result_of(found, _command(args))
    write_json(args.out / "result.json", result)
    for setting in result["settings"][1:]:
        say("\n" + "\n\n".join(table["text"] for table in setting["tables"]))
    overall = result["settings"][0]
    say("\n" + overall["tables"][1]["text"] + "\n" + overall["preface"][0])
    plots = write_plots(result["settings"], result["rows"], args.out)
    report = write_report([("result.json", result)], args.out / "report.html")
    seconds = _note_call(args, workers, time.perf_counter() - started)
    say(f"{seconds:.0f} s in all calls. Numbers: {args.out / 'result.json'}  report: {report}  plots: {len(plots)}")
    return 0


def _plan(args: argparse.Namespace, changes: dict[str, Any]) -> Any:
    from dpad_fast.demo.ablations.arms import SETTINGS, chosen
    from dpad_fast.demo.ablations.run import Plan

    for name in ("policy", "encoder"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} does not go with --ablations: its arms name their own")
    setting = (args.setting or "all").upper()
    if setting not in (*SETTINGS, "ALL"):
        raise ValueError(f"--setting {args.setting!r:.80} is unknown; known: {', '.join(SETTINGS)}, all")
    seeds = args.seeds or SEEDS
    key_seeds = seeds if args.key_seeds is None else args.key_seeds
    if key_seeds < seeds:
        raise ValueError(f"--key-seeds must be at least the {seeds} of --seeds, got {key_seeds}")
    settings = SETTINGS if setting == "ALL" else (setting,)
    plan = Plan(chosen(args.arms), settings, seeds, key_seeds, args.out, changes)
    if not plan.cells():
        raise ValueError(f"--arms {args.arms!r:.80} names no arm of setting {setting}")
    return plan


def _command(args: argparse.Namespace) -> str:
    """What was asked for, in one spelling; the folder and the number of workers change no number."""
    words = ["dpad-fast", "demo", "--ablations", "--seeds", str(args.seeds or SEEDS)]
    for name in ("setting", "arms", "key_seeds", "steps", "scenes"):
        if getattr(args, name) is not None:
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return shlex.join(words)


def _note_call(args: argparse.Namespace, workers: int, seconds: float) -> float:
    """Write down beside the result how long it took and where; it has no place in the result, which does not change.

    Returns:
        Seconds of all calls that came to their end in this folder.
    """
    from dpad_fast.train.resume import read_json, write_json

    path = args.out / "machine.json"
    before = read_json(path) if path.is_file() else None
    calls = before.get("calls", []) if isinstance(before, dict) else []
    calls.append({"command": _command(args), "workers": workers, "seconds": round(seconds, 1)})
    machine = {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform(terse=True)}
    write_json(path, {"calls": calls, **machine})
    return float(sum(call["seconds"] for call in calls))


def _processor() -> str:
    """The processor's name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
