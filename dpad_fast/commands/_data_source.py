"""The data that a command of `dpad-fast data` reads, in any form, and the columns of rows as options name them."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dpad_fast.types import Sample


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

    samples = forms.load(
        path,
        args.form,
        columns=columns_of(args.columns),
        split=args.split,
        images=args.images,
        limit=args.limit or 0,
        on_error=on_error,
    )
    with warnings.catch_warnings():
        # Rows without a target are counted by whoever asks.
        warnings.filterwarnings("ignore", message=".*no pixel is target")
        yield from samples
