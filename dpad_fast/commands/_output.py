"""The destinations of a command's numbers and words: `--json FILE`, `--json -`, `--quiet`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from dpad_fast import files
from dpad_fast.terminal import say

STDOUT = "-"
_Path: TypeAlias = str | os.PathLike[str]
_OF_DATA = (".json", ".jpg", ".jpeg", ".png")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Declare `--quiet`."""
    parser.add_argument("--quiet", action="store_true", help="print nothing but mistakes (and what goes to -)")


def add_json(parser: argparse._ActionsContainer, what: str) -> None:
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


def is_file(path: str | None) -> bool:
    """Whether results of a path end up in a file of their own: it is named, and no device, pipe or standard output."""
    return path is not None and path != STDOUT and not (os.path.exists(path) and not os.path.isfile(path))


def spare(outputs: Mapping[str, _Path | None], inputs: Iterable[_Path | None]) -> None:
    """Refuse results that would be written over what the command reads, through links and `..` too.

    Args:
        outputs: files to write, by the option that names each; None and "-" are none.
        inputs: files and data folders to read; None and "-" are none. Of a folder, its annotations and pictures count.

    Raises:
        ValueError: an output is an input; names both.
    """
    for option, output in outputs.items():
        if output is None or output == STDOUT or not os.path.isfile(output):
            continue
        for given in inputs:
            if given is not None and given != STDOUT and _reads(given, output):
                raise ValueError(f"{option} {os.fspath(output)} would be written over an input, {os.fspath(given)}")


def _reads(given: _Path, output: _Path) -> bool:
    if os.path.isfile(given):
        return os.path.samefile(given, output)
    place = Path(os.path.realpath(output))
    return place.suffix.lower() in _OF_DATA and os.path.realpath(given) == str(place.parent)


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
