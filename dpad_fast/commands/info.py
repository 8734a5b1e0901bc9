"""Print versions, what was built, and what this machine's CPU and GPU offer."""

from __future__ import annotations

import argparse

from dpad_fast.commands import _output
from dpad_fast.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options.

    Args:
        parser: the parser of `dpad-fast info`.
    """
    _output.add_json(parser, "all of it")


def run(args: argparse.Namespace) -> int:
    """Print what `python -m dpad_fast.info` prints.

    Args:
        args: the parsed arguments.

    Returns:
        The exit status.
    """
    from dpad_fast import info

    _output.prepare(args.json)
    sections = info.collect()
    if args.json != _output.STDOUT:
        say(info.text_of(sections))
    _output.write_json(args.json, sections, quiet=False)
    return info.status_of(sections)
