"""Turn the result.json of `dpad-fast train` or `dpad-fast demo` into one self-contained HTML page.

Text that a model wrote is escaped; the page loads nothing from elsewhere and runs no script.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dpad_fast.commands import _output
from dpad_fast.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options.

    Args:
        parser: the parser of `dpad-fast report`.
    """
    parser.add_argument("result", type=Path, help="a result.json, or the folder that holds it")
    parser.add_argument("--out", help="the HTML file (default: report.html beside result.json)")
    _output.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Write the page.

    Args:
        args: the parsed arguments.

    Returns:
        The exit status.
    """
    from dpad_fast.evaluate.report import write_report

    path = args.result / "result.json" if args.result.is_dir() else args.result
    out = path.with_name("report.html") if args.out is None else Path(args.out)
    _output.spare({"--out": out}, [path])
    _output.prepare(args.out)
    try:
        result = json.loads(path.read_bytes().decode("utf-8-sig"))
    except RecursionError:
        raise ValueError(f"{path} is not valid JSON: nested too deeply") from None
    except ValueError as error:  # bytes that are no UTF-8, too
        raise ValueError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(result, dict):
        raise ValueError(f"{path} does not hold a result of dpad-fast train or dpad-fast demo")
    say(f"wrote {write_report(result, out)}", quiet=args.quiet)
    return 0
