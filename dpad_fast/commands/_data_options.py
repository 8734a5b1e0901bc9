"""The options of `dpad-fast data`, in groups."""

from __future__ import annotations

import argparse


def add_prepare(parser: argparse.ArgumentParser) -> None:
    """Declare what `prepare` alone takes."""
    group = parser.add_argument_group("prepare")
    group.add_argument(
        "--size",
        metavar="WxH",
        help="840x840 (ratio not kept), max-side=N (kept) or none (default: pictures as they are); check: the size at "
        "which boxes may have been written",
    )
    group.add_argument("--workers", type=int, metavar="N", help="processes (default: as many as CPUs, at most 8)")
    group.add_argument("--shard-rows", type=int, metavar="N", help="rows of a Parquet file (default: 256)")
    group.add_argument("--max-bad", type=int, metavar="N", help="exit status 1 where more rows than this are bad")


def add_check(parser: argparse.ArgumentParser) -> None:
    """Declare what `check` alone takes."""
    group = parser.add_argument_group("check")
    group.add_argument(
        "--completions", metavar="FILE", help="judge these answers (JSONL, as for score) with --data DATA"
    )
    group.add_argument("--model-size", metavar="WxH", help="the size at which the model saw every picture")
    group.add_argument("--processor", metavar="NAME", help="folder or hub name whose processor resized the pictures")
    group.add_argument("--against", metavar="OTHER", help="another set, which must share no picture with this one")
    group.add_argument("--words", type=int, metavar="N", help="a query of more words is listed (default: 60)")
    group.add_argument("--json", metavar="FILE", help="also write the report here; - prints it instead of the list")


def add_shapes(parser: argparse.ArgumentParser) -> None:
    """Declare what `shapes` alone takes."""
    group = parser.add_argument_group("shapes")
    group.add_argument("--count", type=int, help="scenes to export (default: 64)")
    group.add_argument(
        "--rebuild",
        action="store_true",
        help="train the small CLIP and the warm starts E, F and J again from nothing (two processes, under 30 minutes)",
    )


def add_embed(parser: argparse.ArgumentParser, encoder: str) -> None:
    """Declare what `embed` takes.

    Args:
        parser: of the command.
        encoder: the default.
    """
    group = parser.add_argument_group("embed")
    group.add_argument("--data", help="a folder in ReasonSeg's format (check --completions: in any form)")
    group.add_argument("--cache", help="folder for the file of embeddings")
    group.add_argument("--cache-bytes", type=int, help="the file's largest size (default: 1073741824)")
    group.add_argument("--encoder", help=f"as for dpad-fast score (default: {encoder})")
    group.add_argument("--backend", help="transformers (default) or open_clip")
    group.add_argument("--device", help="where the encoder runs (cpu)")
    group.add_argument("--threads", type=int, help="CPU threads (default: as many as torch uses)")
