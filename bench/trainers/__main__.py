"""Seconds a step of a trainer with our scorer and with the one-at-a-time way: `python -m bench.trainers`.

The same work goes through every trainer that is installed: photographs, fixed answers, CLIP ViT-B/32 of the true size
with random weights, a tiny policy. Rewards are compared first. Needs open_clip's package, which has CLIP's vocabulary;
the environments that `make test-integrations` makes have it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import platform
import statistics
import sys
import warnings
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bench.trainers.work import PLAIN, WAYS, Step, Work

_OTHERS = ("__init__", "__main__", "work")
TRAINERS = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py") if path.stem not in _OTHERS)


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; 1 where rewards differ, 2 where no trainer is installed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.trainers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trainer", choices=TRAINERS, action="append", help="all that are installed when not given")
    parser.add_argument(
        "--steps", type=int, default=3, help="steps that are timed, after one that is not (%(default)s)"
    )
    parser.add_argument("--queries", type=int, default=4, help="queries of a step (%(default)s)")
    parser.add_argument("--generations", type=int, default=8, help="completions of a query (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads (%(default)s)")
    args = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    console = Console(width=120)
    asked = args.trainer or [name for name in TRAINERS if importlib.util.find_spec(name) is not None]
    if not asked:
        console.print(f"none of {', '.join(TRAINERS)} is installed here; make test-integrations makes environments")
        return 2
    work = Work.make(args.steps + 1, args.queries, args.generations)
    console.print(
        f"{platform.machine()}, {args.threads} threads; torch {torch.__version__}; {args.queries} queries x "
        f"{args.generations} completions a step"
    )
    good = True
    for name in asked:
        trainer = importlib.import_module(f"bench.trainers.{name}")
        ways = getattr(trainer, "WAYS", WAYS)
        found = {way: trainer.train(way, work, args.steps + 1) for way in ways}
        good &= report(name, found, console)
    return 0 if good else 1


def report(name: str, found: dict[str, list[Step]], console: Console) -> bool:
    """Prints a trainer's table; whether all ways gave the same rewards."""
    plain = [value for step in found[PLAIN] for value in step.rewards]
    table = Table(title=f"{name}: median of {len(found[PLAIN]) - 1} steps")
    for column in ("rewards by", "s a step", "s waiting for rewards", "x faster step", "rewards that differ"):
        table.add_column(column, justify="right" if table.columns else "left")
    good = True
    slow = statistics.median(step.seconds for step in found[PLAIN][1:])
    for way, steps in found.items():
        values = [value for step in steps for value in step.rewards]
        wrong = sum(abs(a - b) > 1e-5 for a, b in zip(values, plain, strict=True))
        good &= wrong == 0
        seconds = statistics.median(step.seconds for step in steps[1:])
        waited = statistics.median(step.waited for step in steps[1:])
        table.add_row(way, f"{seconds:.2f}", f"{waited:.3f}", f"{slow / seconds:.1f}", f"{wrong} of {len(values)}")
    console.print(table)
    return good


if __name__ == "__main__":
    sys.exit(main())
