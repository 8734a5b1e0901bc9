"""The data that a command of `dpad-fast data` reads, in any form, and the columns of rows as options name them."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dpad_fast.types import Sample

if TYPE_CHECKING:
    from dpad_fast.data.forms import Source


OPTIONS = ("form", "columns", "split", "images", "limit")


def add_arguments(parser: argparse.ArgumentParser, title: str) -> None:
    """Declare how data is read: `--form`, `--columns`, `--split`, `--images`, `--limit`, the same for every command.

    Args:
        parser: of the command.
        title: of the group.
    """
    from dpad_fast.data.forms import FORMS

    group = parser.add_argument_group(title)
    group.add_argument("--form", choices=FORMS, help="form of the data (default: found out)")
    group.add_argument(
        "--columns",
        nargs="+",
        metavar="KEY=NAME",
        help="rows: names of columns, such as image=file query=text box=bbox",
    )
    group.add_argument("--split", help="the split to read, where there are several")
    group.add_argument("--images", metavar="FOLDER", help="where pictures are, for forms that name them relative to it")
    group.add_argument("--limit", type=int, metavar="N", help="read the first N rows only")


def named(args: argparse.Namespace) -> dict[str, Any]:
    """The options as plain values."""
    return {name: getattr(args, name) for name in OPTIONS}


def source_of(args: argparse.Namespace, path: str) -> Source:
    """The data as the options say it.

    Raises:
        ValueError: an option's value cannot be.
    """
    from dpad_fast.data.forms import Source

    if args.limit is not None and not 1 <= args.limit < 1 << 62:
        raise ValueError(f"--limit must be at least 1, got {args.limit}")
    columns = columns_of(args.columns)
    return Source(path, args.form, columns, args.split, args.images, args.limit or 0)


def columns_of(pairs: Sequence[str] | None) -> Any:
    """`KEY=NAME ...` as `Columns`, None where there are none.

    Raises:
        ValueError: a pair is not KEY=NAME, its KEY is given twice or is none of those that there are.
    """
    if not pairs:
        return None
    import dpad_fast as df

    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, name = pair.partition("=")
        if not equals or not key or not name:
            raise ValueError(f"--columns takes KEY=NAME, got {pair!r:.80}")
        if key in found:
            raise ValueError(f"--columns names {key!r:.80} twice")
        found[key] = name
    known = list(getattr(df.Columns, "__dataclass_fields__", {}))  # type: ignore[attr-defined,unused-ignore]
    for key in found:
        if key not in known:
            raise ValueError(f"--columns knows no {key!r:.80}; known: {', '.join(known)}")
    return df.Columns(**found)  # type: ignore[attr-defined,unused-ignore]


def samples_of(args: argparse.Namespace, path: str, on_error: Callable[[str], None] | None = None) -> Iterator[Sample]:
    """The samples of a data set, as `--form`, `--columns`, `--split`, `--images` and `--limit` say."""
    from dpad_fast.data import forms

    samples = forms.load(**vars(source_of(args, path)), on_error=on_error)
    with warnings.catch_warnings():
        # Rows without a target are counted by whoever asks.
        warnings.filterwarnings("ignore", message=".*no pixel is target")
        yield from samples
