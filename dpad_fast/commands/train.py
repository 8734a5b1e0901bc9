"""Train a policy with TRL's GRPO trainer and dpad-fast's rewards.

The same command again goes on after a kill, from the last complete checkpoint. The run's folder ends with result.json,
the trained policy, TensorBoard event files and the measurements before and after.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpad_fast.commands import _output
from dpad_fast.terminal import say

if TYPE_CHECKING:
    from dpad_fast.train.config import TrainConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options.

    Args:
        parser: the parser of `dpad-fast train`.
    """
    parser.add_argument("config", type=Path, help="a YAML file; see configs/")
    parser.add_argument("--out", help="folder of the run (default: the configuration's `out`)")
    parser.add_argument(
        "--set",
        dest="settings",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change one setting, e.g. rewards.shape=margin or grpo.queries=4; may be given several times",
    )
    _output.add_quiet(parser)
    parser.add_argument("--print-config", action="store_true", help="check the configuration, print it as YAML, stop")
    dry = parser.add_argument_group("dry run", "one step in small on this machine, then the plan; see docs/dry-run.md")
    dry.add_argument("--dry-run", action="store_true", help="go through one step with a tiny random policy, and stop")
    dry.add_argument(
        "--made-up-data",
        metavar="WIDTHxHEIGHT",
        help="made-up pictures of this size in place of data that is not here",
    )
    dry.add_argument("--cards", type=int, default=1, help="cards that the plan is for (default: 1)")
    dry.add_argument(
        "--card-gb", type=float, action="append", metavar="GB", help="memory of a card, several times; default 24, 80"
    )
    _output.add_json(dry, "stages and plan")


class _Progress:
    """One line per training step; of a measurement a bar on a terminal, elsewhere a line for each tenth of it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*parts, console=console, transient=True) if console.is_terminal else None
        self._tenth = 0

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._end_bar()

    def tell(self, stage: str, done: int, of: int, metrics: Mapping[str, float]) -> None:
        """See `experiment.Tell`."""
        if stage == "train":
            self._step(done, of, metrics)
        elif done < of or not of:
            self._measuring(stage, done, of)
        else:
            self._end_bar()
            say(f"measured {of} sampled completions {stage} training")

    def _measuring(self, stage: str, done: int, of: int) -> None:
        if self._bar is not None:
            if not self._bar.tasks:
                self._bar.add_task(f"measuring {stage} training", total=None)
                self._bar.start()
            self._bar.update(self._bar.tasks[0].id, completed=done, total=of or None)
            return
        tenth = 10 * done // max(1, of)
        if not of:
            say(f"measuring {stage} training")
        elif tenth > self._tenth:
            say(f"measured {done} of {of} sampled completions {stage} training")
        self._tenth = tenth

    def _end_bar(self) -> None:
        self._tenth = 0
        if self._bar is not None and self._bar.tasks:
            self._bar.stop()
            self._bar.remove_task(self._bar.tasks[0].id)

    def _step(self, done: int, of: int, metrics: Mapping[str, float]) -> None:
        self._end_bar()
        if not metrics:
            say(f"found a checkpoint: going on after step {done}")
            return
        shown = {
            "reward": metrics.get("reward"),
            "tokens": metrics.get("completions/mean_length"),
            "S1>S2": metrics.get("dpad/s1_over_s2"),
            "kl": metrics.get("kl"),
            "seconds": metrics.get("step_time"),
        }
        columns = "  ".join(f"{name} {value:7.3f}" for name, value in shown.items() if value is not None)
        say(f"step {done:>{len(str(of))}}/{of}  {columns}")


def _dry_run(config: TrainConfig, args: argparse.Namespace) -> int:
    from dpad_fast.train import dry_run
    from dpad_fast.train.grpo_arguments import per_device
    from dpad_fast.train.plan import plan, text_of

    made_up = None if args.made_up_data is None else _size(args.made_up_data)
    if not 1 <= args.cards <= 4096:
        raise ValueError(f"--cards must be at least 1 and at most 4096, got {args.cards}")
    per_device(config, args.cards)
    for value in args.card_gb or ():
        if not 1 <= value <= 1e6:
            raise ValueError(f"--card-gb must be at least 1 and at most 1,000,000, got {value:g}")
    _output.prepare(args.json)
    _output.spare({"--json": args.json}, [args.config])
    quiet = args.quiet or args.json == _output.STDOUT
    tell = None if quiet else (lambda stage: say(stage.line()))
    found = dry_run.dry_run(config, tell, made_up)
    planned = plan(config, found["prompts"], args.cards, args.card_gb or (24, 80), dry_run.rows_of(config, made_up))
    say(text_of(planned), quiet=quiet)
    if made_up is not None:
        say("note: the data was made up; the real data was not read", quiet=quiet)
    value = {"kind": "dry run", "config": config.as_dict(), "made_up": found["made_up"], "stages": found["stages"]}
    _output.write_json(args.json, {**value, "plan": planned}, args.quiet)
    return 0


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and 0 < len(part) < 6 for part in parts):
        raise ValueError(f"--made-up-data must be WIDTHxHEIGHT such as 840x840, got {text!r:.80}")
    width, height = map(int, parts)
    if not (min(width, height) >= 16 and max(width, height) <= 8192):
        raise ValueError(f"--made-up-data must have sides of 16 to 8192 pixels, got {text!r:.80}")
    return width, height


def run(args: argparse.Namespace) -> int:
    """Train, or go on, or say that all is done.

    Args:
        args: the parsed arguments.

    Returns:
        The exit status.
    """
    from dpad_fast.train import config as configuration
    from dpad_fast.train import processes

    config = configuration.load(args.config, args.settings)
    if args.out:
        config = replace(config, out=args.out)
    if args.dry_run:
        if processes.count() > 1:
            raise ValueError(f"--dry-run is for one process, not {processes.count()}; --cards N plans a run on N cards")
        return _dry_run(config, args)
    for option in ("made_up_data", "card_gb", "json"):
        if getattr(args, option) is not None:
            raise ValueError(f"--{option.replace('_', '-')} is for --dry-run")
    if args.print_config:
        import yaml

        print(yaml.safe_dump(config.as_dict(), sort_keys=False), end="")
        return 0
    _output.spare({"config.json of the run,": Path(config.out) / "config.json"}, [args.config])
    from dpad_fast.evaluate.tables import before_after
    from dpad_fast.experiment import run_experiment

    quiet = args.quiet or not processes.is_main()
    if quiet:
        result = run_experiment(config)
    else:
        with _Progress() as progress:
            result = run_experiment(config, progress.tell)
    if result["after"]:
        say(before_after(result, config.name).text(), quiet=quiet)
    say(f"wrote {Path(config.out) / 'result.json'}", quiet=quiet)
    return 0
