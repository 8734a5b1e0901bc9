"""Where a command's numbers and words go: `--json FILE`, `--json -`, `--quiet`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from dpad_fast import files
from dpad_fast.terminal import say

STDOUT = "-"


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Declare `--quiet`."""
    parser.add_argument("--quiet", action="store_true", help="print nothing but mistakes (and what goes to -)")


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare `--json`.

    Args:
        parser: the parser of a command.
        what: the numbers, in words.
    """
    parser.add_argument("--json", metavar="FILE", help=f"also write {what} here; - prints them instead of a table")


def prepare(*paths: str | None) -> None:
    """Find out before the work whether its results can be written.

    Args:
        paths: files to write; None and "-" need nothing.

    Raises:
        OSError: a folder cannot be made, or a path is a folder.
        ValueError: a path is empty, or two results would go to standard output.
    """
    if sum(path == STDOUT for path in paths) > 1:
        raise ValueError("only one of --out and --json can be -, standard output")
    named = [os.path.realpath(path) for path in paths if path and path != STDOUT]
    if len(set(named)) < len(named):
        raise ValueError(f"--out and --json name the same file, {named[0]}")
    for path in paths:
        if path == "":
            raise ValueError("a file to write has an empty name")
        if path is not None and path != STDOUT:
            files.prepare(path)


def write_json(path: str | None, value: Any, quiet: bool) -> None:
    """Write numbers where `--json` says.

    Args:
        path: a file, "-" for standard output, or None for nowhere.
        value: plain data.
        quiet: do not say that the file was written.
    """
    if path == STDOUT:
        sys.stdout.write(json.dumps(value, indent=1, allow_nan=False) + "\n")
    elif path is not None:
        files.write_json(path, value)
        say(f"wrote {path}", quiet=quiet)
