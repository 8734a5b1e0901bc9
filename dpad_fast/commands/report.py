"""Turn the result.json of `dpad-fast train` or `dpad-fast demo` into one self-contained HTML page.

Text that a model wrote is escaped; the page loads nothing from elsewhere and runs no script.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options.

    Args:
        parser: the parser of `dpad-fast report`.
    """
    parser.add_argument("result", type=Path, help="a result.json, or the folder that holds it")
    parser.add_argument("--out", type=Path, help="the HTML file (default: report.html beside result.json)")


def run(args: argparse.Namespace) -> int:
    """Write the page.

    Args:
        args: the parsed arguments.

    Returns:
        The exit status.
    """
    from dpad_fast.evaluate.report import write_report

    path = args.result / "result.json" if args.result.is_dir() else args.result
    try:
        result = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(result, dict):
        raise ValueError(f"{path} does not hold a result of dpad-fast train or dpad-fast demo")
    print(f"wrote {write_report(result, args.out or path.with_name('report.html'))}")
    return 0
