"""`dpad-fast data show`: one page of random rows with the truth drawn on them."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable
from html import escape
from typing import TypeVar

from dpad_fast import files
from dpad_fast.commands import _output
from dpad_fast.commands._data_source import samples_of
from dpad_fast.data.shards import solution_text
from dpad_fast.evaluate.overlays import as_data_uri, draw_truth
from dpad_fast.evaluate.static_page import page
from dpad_fast.terminal import say
from dpad_fast.types import Sample, Target

_T = TypeVar("_T")
_SIDE = 560  # pixels of a drawn picture's longer side; a page of a hundred stays some ten megabytes
_STYLE = """
h1 { overflow-wrap: anywhere; }
.rows { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }
.rows figure { overflow-wrap: anywhere; } .rows figure img { max-width: 100%; image-rendering: auto; }
.rows dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 .6rem; margin: .4rem 0 0; font-size: .8rem; }
.rows dt { opacity: .7; } .rows dd { margin: 0; }
.bad { color: #d22; }
"""
_LEGEND = (
    "<p class='note'>Green: the target's mask and box, dots its points. Hatched grey: ignored pixels. Blue: boxes of "
    "other objects. Pictures are drawn smaller where they are large.</p>"
)


def run(args: argparse.Namespace) -> int:
    """Choose rows, draw them, write the page."""
    _output.prepare(args.out)
    _output.spare({"--out": args.out}, [args.source])
    unread: list[str] = []
    chosen, total = choose(samples_of(args, args.source, unread.append), args.rows, args.seed)
    if not chosen:
        first = f": {unread[0]}" if unread else ""
        raise ValueError(f"{args.source} gives no row to show{first}")
    parts = [
        f"<p>{len(chosen)} of {total} rows, chosen at random (seed {args.seed}).</p>",
        _LEGEND,
        "<div class='rows'>",
    ]
    parts += [*map(_figure, chosen), "</div>"]
    if unread:
        parts.append(f"<p class='bad'>{len(unread)} rows cannot be read; the first: {escape(unread[0])}</p>")
        say(f"{len(unread)} rows cannot be read; the first: {unread[0]}", file=sys.stderr)
    files.write_text(args.out, page(f"Rows of {args.source}", parts, _STYLE).encode("utf-8", "replace").decode("utf-8"))
    say(f"wrote {len(chosen)} of {total} rows to {args.out}", quiet=args.quiet)
    return 0


def choose(items: Iterable[_T], count: int, seed: int) -> tuple[list[_T], int]:
    """So many items of a stream, each as likely as any other, in the stream's order; and how many there were."""
    rng, kept, total = random.Random(seed), [], 0
    for item in items:
        if total < count:
            kept.append((total, item))
        elif (place := rng.randrange(total + 1)) < count:
            kept[place] = (total, item)
        total += 1
    return [item for _, item in sorted(kept, key=lambda pair: pair[0])], total


def _figure(sample: Sample) -> str:
    try:
        image = draw_truth(sample.image, sample.target, _SIDE, sample.id)
        picture = f"<img alt='{escape(sample.query)}' src='{as_data_uri(image)}'>"
    except ValueError as error:
        picture = f"<p class='bad'>{escape(str(error))}</p>"
    facts = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in _facts(sample.target).items())
    return (
        f"<figure>{picture}<figcaption><b>{escape(sample.query)}</b><br>{escape(sample.id)}</figcaption>"
        f"<dl>{facts}</dl></figure>"
    )


def _facts(target: Target) -> dict[str, str]:
    found = {}
    if target.image_size is not None:
        found["picture"] = f"{target.image_size[0]} x {target.image_size[1]}"
        try:
            found["solution"] = solution_text(target)
        except ValueError as error:
            found["solution"] = f"none: {error}"
    if target.mask is not None:
        found["mask"] = f"{int(target.mask.sum())} pixels, {target.mask.mean():.1%}"
    if target.ignore is not None:
        found["ignored"] = f"{int(target.ignore.sum())} pixels, {target.ignore.mean():.1%}"
    if target.polygons is not None:
        found["polygons"] = f"{len(target.polygons)} with {sum(map(len, target.polygons))} vertices"
    if target.other_boxes:
        found["other boxes"] = str(len(target.other_boxes))
    return found
