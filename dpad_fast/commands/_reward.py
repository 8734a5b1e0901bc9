"""The reward configuration that a command's `--preset`, `--config` and `--set` name."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from dpad_fast.rewards import RewardConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the three options.

    Args:
        parser: the parser of a command.
    """
    parser.add_argument("--preset", help="dpad (default), dpad-released, seg-zero or vision-reasoner")
    parser.add_argument("--config", help="a YAML file of reward settings, instead of a preset")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one reward setting")


def config(args: argparse.Namespace) -> RewardConfig:
    """The configuration.

    Args:
        args: the parsed arguments.

    Raises:
        ValueError: both a file and a preset, a bad setting or a file that is no YAML; says which.
        OSError: the file cannot be read.
    """
    from dpad_fast.rewards import RewardConfig

    if args.config and args.preset:
        raise ValueError("give --config or --preset, not both (a YAML file may hold `preset: NAME`)")
    overrides: dict[str, Any] = {}
    for item in args.set:
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"--set takes KEY=VALUE, got {item!r:.80}")
        try:
            overrides[key.strip()] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError):  # a date of no calendar, a number of thousands of digits
            raise ValueError(f"--set {key:.80}: the value is not valid YAML: {value!r:.80}") from None
    if args.config:
        return RewardConfig.from_dict(_read_yaml(args.config)).replace(**overrides)
    return RewardConfig.preset(args.preset or "dpad", **overrides)


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must map names of reward settings to values, got {type(values).__name__}")
    return values
