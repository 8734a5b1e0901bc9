"""Print versions, what was built, and what this machine's CPU and GPU offer."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command takes no arguments.

    Args:
        parser: the parser of `dpad-fast info`.
    """


def run(args: argparse.Namespace) -> int:
    """Print what `python -m dpad_fast.info` prints.

    Args:
        args: the parsed arguments (none).

    Returns:
        The exit status.
    """
    from dpad_fast import info

    return int(info.main() or 0)
