"""`dpad-fast data prepare`: a training set, with its progress and a summary in words."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dpad_fast.commands._data_source import columns_of
from dpad_fast.terminal import say

SHOWN = 3


def run(args: argparse.Namespace) -> int:
    """Prepare, and say how it went."""
    from dpad_fast.data.prepare import SHARD_ROWS, prepare

    with _progress(args.quiet) as progress:
        made = prepare(
            args.source,
            args.out,
            form=args.form,
            size=args.size,
            columns=columns_of(args.columns),
            split=args.split,
            images=args.images,
            limit=args.limit or 0,
            workers=args.workers or min(os.cpu_count() or 1, 8),
            shard_rows=args.shard_rows or SHARD_ROWS,
            progress=progress,
        )
    files = "1 file" if made.shards == 1 else f"{made.shards} files"
    kept = f" ({made.kept} of them stood already)" if made.kept else ""
    say(f"prepared {made.rows} rows in {files}{kept} in {made.folder}", quiet=args.quiet)
    if made.bad:
        # Printed under --quiet too: the user must know that the set lacks rows of the source.
        say(f"left out {len(made.bad)} bad rows; {made.folder / 'bad-rows.jsonl'} lists them", file=sys.stderr)
        for row in made.bad[:SHOWN]:
            say(f"  row {row.row}: {row.reason}", file=sys.stderr)
    if args.max_bad is not None and len(made.bad) > args.max_bad:
        return 1
    return 0


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int], None]]:
    """A line with a count and the rate, on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda count: None
        return
    parts = (SpinnerColumn(), TextColumn("{task.completed:.0f} rows"), BarColumn(), TimeElapsedColumn())
    with Progress(*parts, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda count: bar.update(task, completed=count)
