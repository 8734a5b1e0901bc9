"""Turn results of `dpad-fast train`, `demo` and `evaluate` into one self-contained HTML page, side by side.

Tables, curves, and a gallery of samples: picture, boxes, masks and points, the chain, the description, S1 and S2, every
term and its reason; to search, filter and sort. Text that a model wrote is shown as text; the page loads nothing from
elsewhere. Pictures come from the paths in the records, from --data, or, in the shapes world, are drawn again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpad_fast.commands import _output
from dpad_fast.terminal import printable, say

if TYPE_CHECKING:
    from dpad_fast.evaluate.lookup import Lookup

_MOST_PIXELS = 2048


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options.

    Args:
        parser: the parser of `dpad-fast report`.
    """
    add_results(parser)
    parser.add_argument("--out", help="the HTML file (default: report.html beside the first result)")
    parser.add_argument(
        "--thumb", type=int, metavar="PIXELS", help="longest side of pictures, 0: none (default: 224; many samples 128)"
    )
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="show the first N samples only")
    _output.add_quiet(parser)


def add_results(parser: argparse.ArgumentParser) -> None:
    """Declare which results are read, and where their samples are.

    Args:
        parser: the parser of a command.
    """
    parser.add_argument(
        "result",
        type=Path,
        nargs="+",
        help="a result.json, the folder of a run (it may be at work still), or the JSON of evaluate",
    )
    parser.add_argument("--data", help="the data that records are about, where they do not say: a file or folder")
    parser.add_argument("--form", help="form of --data: reasonseg, refcoco, coco, rows, ... (default: found out)")


def result_file(path: Path) -> Path:
    """The file that a result is in: of a folder its result.json."""
    return path / "result.json" if path.is_dir() else path


def read_results(args: argparse.Namespace) -> tuple[list[tuple[str, dict[str, Any]]], Lookup]:
    """What `add_results` declared.

    Args:
        args: the parsed arguments.

    Returns:
        (path, content) of each result, and where their samples are looked for.

    Raises:
        ValueError: a file is no result; names it.
        OSError: a file cannot be read.
    """
    from dpad_fast.evaluate.lookup import Lookup
    from dpad_fast.evaluate.results import read_file

    if args.form is not None and args.data is None:
        raise ValueError("--form goes with --data")
    contents = [read_file(path) for path in args.result]
    names = [str(result_file(path)) for path in args.result]
    folders = dict.fromkeys([Path(), *(path if path.is_dir() else path.parent for path in args.result)])
    return list(zip(names, contents, strict=True)), Lookup(args.data, args.form, tuple(folders))


def run(args: argparse.Namespace) -> int:
    """Write the page.

    Args:
        args: the parsed arguments.

    Returns:
        The exit status.
    """
    from dpad_fast.evaluate.report import Options, write_report

    if args.thumb is not None and not 0 <= args.thumb <= _MOST_PIXELS:
        raise ValueError(f"--thumb must be at least 0 and at most {_MOST_PIXELS}, got {args.thumb}")
    if args.limit < 0:
        raise ValueError(f"--limit must be at least 0, got {args.limit}")
    inputs = [result_file(path) for path in args.result]
    out = inputs[0].with_name("report.html") if args.out is None else Path(args.out)
    _output.spare({"--out": out}, [*inputs, args.data])
    _output.prepare(args.out)
    results, lookup = read_results(args)
    write_report(results, out, Options(lookup, args.thumb, args.limit))
    for note in lookup.notes[:3]:
        say(printable(note), quiet=args.quiet)
    if len(lookup.notes) > 3:
        say(f"... and {len(lookup.notes) - 3} more that could not be read", quiet=args.quiet)
    say(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)", quiet=args.quiet)
    return 0
