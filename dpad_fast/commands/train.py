"""Train a policy with TRL's GRPO trainer and dpad-fast's rewards.

The same command again goes on after a kill, from the last complete checkpoint. The run's folder ends with result.json,
the trained policy, TensorBoard event files and the measurements before and after.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from dpad_fast.commands import _output
from dpad_fast.terminal import say


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
    parser.add_argument("--dry-run", action="store_true", help="check the configuration, print it as YAML, and stop")


def _printer(steps: int) -> Callable[[str, int, int, Mapping[str, float]], None]:
    """Print one line per training step, and one per tenth of a measurement."""
    width = len(str(steps))

    def tell(stage: str, done: int, of: int, metrics: Mapping[str, float]) -> None:
        if stage != "train":
            if done == of:
                say(f"measured {of} sampled completions {stage} training")
            return
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
        say(f"step {done:>{width}}/{of}  {columns}")

    return tell


def run(args: argparse.Namespace) -> int:
    """Train, or go on, or say that all is done.

    Args:
        args: the parsed arguments.

    Returns:
        The exit status.
    """
    from dpad_fast.train import config as configuration

    config = configuration.load(args.config, args.settings)
    if args.out:
        config = replace(config, out=args.out)
    if args.dry_run:
        import yaml

        print(yaml.safe_dump(config.as_dict(), sort_keys=False), end="")
        return 0
    _output.spare({"config.json of the run,": Path(config.out) / "config.json"}, [args.config])
    from dpad_fast.evaluate.tables import before_after
    from dpad_fast.experiment import run_experiment
    from dpad_fast.train.processes import is_main

    quiet = args.quiet or not is_main()
    result = run_experiment(config, None if quiet else _printer(config.steps))
    if result["after"]:
        say(before_after(result, config.name).text(), quiet=quiet)
    say(f"wrote {Path(config.out) / 'result.json'}", quiet=quiet)
    return 0
