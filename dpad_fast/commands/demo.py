"""Train small policies side by side, with and without R_dpad, and compare them.

First the warm start is audited, then the arms are trained, each in a process with one thread, then a table says what
differs beyond noise, and the report draws curves and sampled completions. A demo that was killed goes on when the same
command is run again; finished runs are not repeated.

`--ablations` runs the paper's ablations and limits instead, three seeds of every arm in configs/ablations/, and says of
each claim whether it agrees, disagrees or cannot be told (docs/ablations.md).
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpad_fast.terminal import say

if TYPE_CHECKING:
    from dpad_fast.demo.display import LiveDisplay, PlainDisplay
    from dpad_fast.demo.jobs import Job
    from dpad_fast.demo.settings import Setting

    Display = PlainDisplay | LiveDisplay

_MOST = {"seeds": 1000, "key_seeds": 1000, "steps": 1_000_000, "scenes": 1_000_000, "workers": 1024}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options.

    Args:
        parser: the parser of `dpad-fast demo`.
    """
    parser.add_argument(
        "--setting",
        help="E (default), F (its control: no built-in correlation), J (wrong conclusions, jittered boxes), or all "
        "(default of --ablations)",
    )
    parser.add_argument("--seeds", type=int, help="seeds per arm (default: 1; --ablations 3)")
    parser.add_argument("--steps", type=int, help="training steps (default: 60; J 80; --ablations 30)")
    parser.add_argument(
        "--scenes", type=int, help="held-out scenes to measure on (default: 256; J 512; --ablations 384)"
    )
    parser.add_argument("--out", type=Path, help="folder of results (default: demo-out, or ablations-out)")
    parser.add_argument("--workers", type=int, help="processes at a time (default: the number of CPU cores)")
    parser.add_argument("--policy", help="start every setting from this checkpoint instead of its own")
    parser.add_argument("--encoder", help="use this CLIP instead of the shipped one")
    parser.add_argument("--ablations", action="store_true", help="the paper's ablations and limits, with verdicts")
    parser.add_argument("--arms", help="--ablations: only these, by commas, and R_dpad (default: all)")
    parser.add_argument(
        "--key-seeds", type=int, help="--ablations: seeds where fewer cannot tell what the paper rests on (such as 8)"
    )


def _changes(args: argparse.Namespace) -> dict[str, Any]:
    """Changes to every run's configuration."""
    for name, most in _MOST.items():
        value = getattr(args, name)
        if value is not None and not 1 <= value <= most:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1 and at most {most:,}, got {value}")
    given = {"steps": args.steps, "policy": args.policy, "encoder": args.encoder}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if args.scenes is not None:
        changes["evaluation"] = {"scenes": args.scenes}
    return changes


def _check_models(args: argparse.Namespace) -> None:
    """Refuse a name that leads nowhere here, before a worker is started that would find out."""
    from dpad_fast import checkpoints, hub

    for name, known in (("policy", checkpoints.POLICIES), ("encoder", checkpoints.ENCODERS)):
        given = getattr(args, name)
        if given is None or checkpoints.shipped(given) is not None:
            continue
        try:
            if os.path.exists(given):
                checkpoints.checkpoint(given)
            hub.only_local(given, known)
        except ValueError as error:
            raise ValueError(f"--{name} {given!r:.80} is not to be had: {error}") from None


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())


def _jobs(setting: Setting, args: argparse.Namespace, changes: Mapping[str, Any]) -> tuple[Job, dict[str, list[Job]]]:
    """The measurement of the warm start, and the training runs by arm, one per seed."""
    from dataclasses import replace

    from dpad_fast.demo.jobs import Job

    folder = args.out / setting.key
    before = folder / "before.json"
    first = setting.config(next(iter(setting.arms)), 0, str(folder / "audit"), changes)
    cores = replace(first, threads=os.cpu_count() or 1)
    audit = Job(f"{setting.key} warm start", "measure", cores, before)
    arms = {
        arm: [
            Job(
                f"{setting.key} {arm}" + (f", seed {seed}" if args.seeds > 1 else ""),
                "train",
                setting.config(arm, seed, str(folder / _slug(arm) / f"seed-{seed}"), changes),
                before,
            )
            for seed in range(args.seeds)
        ]
        for arm in setting.arms
    }
    return audit, arms


def _command(args: argparse.Namespace) -> str:
    words = ["dpad-fast", "demo", "--setting", args.setting, "--seeds", str(args.seeds)]
    for name in ("steps", "scenes", "policy", "encoder"):
        if getattr(args, name) is not None:
            words += [f"--{name}", str(getattr(args, name))]
    return shlex.join(words)


def _interleaved(arms: Mapping[str, list[Job]]) -> list[Job]:
    """The runs seed by seed, so that an unfinished demo already has complete comparisons."""
    return [job for group in zip(*arms.values(), strict=True) for job in group]


def _run_setting(
    setting: Setting, args: argparse.Namespace, changes: Mapping[str, Any], display: Display
) -> dict[str, Any]:
    from dpad_fast.demo.jobs import run_jobs
    from dpad_fast.demo.outcome import audit_table, setting_result
    from dpad_fast.train.resume import read_json

    workers = args.workers or os.cpu_count() or 1
    measure, arms = _jobs(setting, args, changes)
    display.say(f"\n{setting.title}\n")
    for line in setting.preface:
        display.say(line)
    run_jobs([measure], display, 1)
    audited = audit_table(setting, measure.before)
    display.say("\n" + audited.text() + "\n")
    run_jobs(_interleaved(arms), display, workers)
    results = {arm: [read_json(Path(job.config.out) / "result.json") for job in jobs] for arm, jobs in arms.items()}
    return setting_result(setting, results, audited)


def run(args: argparse.Namespace) -> int:
    """Audit, train, compare, report.

    Args:
        args: the parsed arguments.

    Returns:
        The exit status.

    Raises:
        ValueError: if another demo is at work in the folder, or a worker failed.
    """
    from dpad_fast.demo.jobs import Ended, ended_by_signals
    from dpad_fast.lock import only_one

    _settle(args)
    try:
        with ended_by_signals(), only_one(args.out):
            if args.ablations:
                from dpad_fast.commands import _ablations

                return _ablations.run(args, _changes(args))
            return _run(args)
    except Ended as told:
        with suppress(OSError):  # the terminal may be gone
            print(f"\ndpad-fast demo: ended by {told.signal}; the same command goes on from here", file=sys.stderr)
        raise


def _settle(args: argparse.Namespace) -> None:
    """Fill in defaults, and refuse what goes with the ablations only."""
    args.out = args.out or Path("ablations-out" if args.ablations else "demo-out")
    if args.ablations:
        return
    for name in ("arms", "key_seeds"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} goes with --ablations")
    args.setting = "E" if args.setting is None else args.setting
    args.seeds = 1 if args.seeds is None else args.seeds


def _run(args: argparse.Namespace) -> int:
    """`run` in a folder that is ours."""
    from dpad_fast.demo.display import make_display
    from dpad_fast.demo.outcome import PREFACE
    from dpad_fast.demo.settings import chosen
    from dpad_fast.train.resume import read_json, write_json

    settings, changes = chosen(args.setting), _changes(args)
    _check_models(args)
    started = time.perf_counter()
    say("\n".join(PREFACE))
    outcomes = []
    for setting in settings:
        with make_display() as display:
            outcomes.append(_run_setting(setting, args, changes, display))
        say("\n" + outcomes[-1]["tables"][1]["text"] + "\n")
    last = read_json(Path(outcomes[-1]["runs"][next(iter(settings[-1].arms))][0]["out"]) / "result.json")
    result = {
        "kind": "demo",
        "title": "dpad-fast demo: " + ", ".join(setting.key for setting in settings),
        "command": _command(args),
        "preface": list(PREFACE),
        "settings": outcomes,
        "versions": last["versions"],
        "seconds": round(time.perf_counter() - started, 1),
    }
    write_json(args.out / "result.json", result)
    from dpad_fast.evaluate.report import write_report

    report = write_report([("result.json", result)], args.out / "report.html")
    say(f"{result['seconds']:.0f} s in all. Numbers: {args.out / 'result.json'}  report: {report}")
    return 0
