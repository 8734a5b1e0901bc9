"""Data sets: build one to train on, find out what is wrong with one, look at one; and the shapes world.

`prepare DATA --out FOLDER` builds a training set from any form of data: pictures at one size, boxes, points and masks
with them, as Parquet files that `datasets`, TRL and verl read. Run again, it goes on where it stopped. `check DATA`
lists what is wrong, worst first, and in which coordinates the boxes are; with `--completions` it does so for a model's
answers. Its exit status is 1 where it finds an error. `show DATA --out PAGE` writes a page of random rows with the
truth drawn on.

`embed` puts the CLIP embeddings of all pictures and ground-truth regions of a data folder into a file, so that scoring
and training pay for captions only; give the same folder to `dpad-fast score --cache`, or as
`EmbeddingCache(folder=...)` to `dpad_fast.load_encoder`. `shapes` writes scenes of the built-in world, or makes its
checkpoints again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dpad_fast.commands import _data_options, _data_source, _encoder, _output
from dpad_fast.terminal import say

_TASKS = ("prepare", "check", "show", "embed", "shapes")
_SOURCE: dict[str, Any] = dict.fromkeys(("source", "form", "columns", "split", "images", "limit"))
_PREPARE = _SOURCE | dict.fromkeys(("out", "size", "workers", "shard_rows", "max_bad"))
_CHECK = _SOURCE | dict.fromkeys(
    ("data", "completions", "size", "model_size", "processor", "against", "words", "json")
)  # fmt: skip
_SHOW = _SOURCE | {"out": None, "rows": 24, "seed": 0}
_EXPORT: dict[str, Any] = {"out": "shapes-data", "count": 64, "seed": 0}
_REBUILD: dict[str, Any] = {"out": "checkpoints"}
_EMBED: dict[str, Any] = {
    "data": None,
    "cache": None,
    "cache_bytes": 1 << 30,
    "encoder": "openai/clip-vit-base-patch32",
    "backend": "transformers",
    "device": "cpu",
    "threads": None,
}
_NEEDED = {
    "prepare": {"source": "the data", "out": "a folder for the training set"},
    "check": {"source": "the data"},
    "show": {"source": "the data", "out": "an HTML file to write"},
}
_LIMITS = {
    "limit": (1, 1 << 62),
    "workers": (1, 256),
    "shard_rows": (1, 1 << 20),
    "max_bad": (0, 1 << 62),
    "words": (1, 1 << 31),
    "rows": (1, 10_000),
    "seed": (0, (1 << 63) - 1),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("task", choices=_TASKS, help="what to do")
    parser.add_argument("source", nargs="?", metavar="DATA", help="prepare, check, show: a folder or file of any form")
    parser.add_argument(
        "--out", help="folder (prepare; shapes: shapes-data, or checkpoints with --rebuild), or the page (show)"
    )
    parser.add_argument("--seed", type=int, help="show: of the choice of rows; shapes: of the world (default: 0)")
    _data_source.add_arguments(parser, "DATA of prepare, check and show")
    _data_options.add_prepare(parser)
    _data_options.add_check(parser)
    show = parser.add_argument_group("show")
    show.add_argument("--rows", type=int, help=f"how many rows (default: {_SHOW['rows']})")
    _data_options.add_shapes(parser)
    _data_options.add_embed(parser, _EMBED["encoder"])
    _output.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Do what was asked for."""
    if args.task == "check" and args.completions is not None and args.source is None:
        args.source, args.data = args.data, None  # the same, as `score` and `evaluate` call it
    if args.task in _NEEDED:
        _settle(args, args.task, {"prepare": _PREPARE, "check": _CHECK, "show": _SHOW}[args.task])
        _check_needed(args)
        return _run_module(args)
    if args.task == "embed":
        _settle(args, "embed", _EMBED)
        return _embed(args)
    return _rebuild(args) if args.rebuild else _export(args)


def _check_needed(args: argparse.Namespace) -> None:
    if args.task == "check" and args.data is not None:
        raise ValueError("--data goes with --completions; `dpad-fast data check DATA` takes the data as it is")
    for name, what in _NEEDED[args.task].items():
        if getattr(args, name) is None:
            shown = "DATA" if name == "source" else f"--{name}"
            raise ValueError(f"{shown} is missing: `dpad-fast data {args.task}` needs {what}")
    for name, (least, most) in _LIMITS.items():
        if getattr(args, name, None) is not None:
            _check_range(f"--{name.replace('_', '-')}", getattr(args, name), least, most)


def _run_module(args: argparse.Namespace) -> int:
    if args.task == "prepare":
        from dpad_fast.commands import _data_prepare

        return _data_prepare.run(args)
    if args.task == "check":
        from dpad_fast.commands import _data_check

        return _data_check.run(args)
    from dpad_fast.commands import _data_show

    return _data_show.run(args)


def _rebuild(args: argparse.Namespace) -> int:
    _settle(args, "shapes --rebuild", _REBUILD)
    from dpad_fast.train.warm_start.rebuild import rebuild

    out = Path(args.out)
    made = rebuild(out)
    say(json.dumps(made, indent=2), quiet=args.quiet)
    say(f"wrote the checkpoints to {out}; manifest.json there says what each is", quiet=args.quiet)
    return 0


def _export(args: argparse.Namespace) -> int:
    _settle(args, "shapes", _EXPORT)
    _check_range("--count", args.count, 1, 1_000_000)
    _check_range("--seed", args.seed, 0, (1 << 63) - 1)
    from dpad_fast.data.shapes import export_reasonseg

    folder = export_reasonseg(args.out, args.seed, args.count)
    say(f"wrote {args.count} scenes in ReasonSeg's format to {folder}", quiet=args.quiet)
    return 0


def _settle(args: argparse.Namespace, doing: str, mine: dict[str, Any]) -> None:
    """Fill in defaults; options that this does not look at are refused."""
    known = (*_EXPORT, *_EMBED, *_PREPARE, *_CHECK, *_SHOW)
    given = {name for name in known if getattr(args, name) is not None}
    if args.rebuild and mine is not _REBUILD:
        given.add("rebuild")
    for name in sorted(given - set(mine)):
        shown = "DATA" if name == "source" else f"--{name.replace('_', '-')}"
        raise ValueError(f"{shown} does not go with `dpad-fast data {doing}`")
    for name, default in mine.items():
        if getattr(args, name) is None:
            setattr(args, name, default)


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} must be at least {least} and at most {most}, got {value}")


def _embed(args: argparse.Namespace) -> int:
    for name in ("data", "cache"):
        if getattr(args, name) is None:
            raise ValueError(
                f"--{name} is missing: `dpad-fast data embed` needs a data folder and one for the embeddings"
            )
    _check_range("--cache-bytes", args.cache_bytes, 1, (1 << 62) - 1)
    if args.threads is not None:
        _check_range("--threads", args.threads, 1, 4096)
    import dpad_fast as df
    from dpad_fast.clip import EmbeddingCache
    from dpad_fast.rewards.ahead import describe, embed_ahead

    encoder = _encoder.load(
        args.encoder,
        df.data.reasonseg.load(args.data),
        quiet=args.quiet,
        backend=args.backend,
        device=args.device,
        # What guarded scoring looks up first is float32; the precision tells its files from those of other settings.
        precision="guarded",
        cache=EmbeddingCache(folder=args.cache, folder_bytes=args.cache_bytes),
        threads=args.threads,
    )
    # Read anew: whoever looked at the samples for the note has used them up.
    count = embed_ahead(encoder, df.data.reasonseg.load(args.data))
    say(f"embedded {count} regions of {args.data}: {describe(args.cache)}", quiet=args.quiet)
    return 0
