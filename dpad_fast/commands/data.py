"""The shapes world as a ReasonSeg folder, its checkpoints made again from nothing, or a data folder embedded ahead.

`dpad-fast data embed` puts the CLIP embeddings of all pictures and ground-truth regions of a data folder into a file,
so that scoring and training pay for captions only; give the same folder to `dpad-fast score --cache`, or as
`EmbeddingCache(folder=...)` to `dpad_fast.load_encoder`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from dpad_fast.commands import _encoder, _output
from dpad_fast.terminal import say

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("world", choices=["shapes", "embed"], help="the built-in world; or embed a data folder ahead")
    parser.add_argument("--out", help="folder (default: shapes-data, or checkpoints with --rebuild)")
    parser.add_argument("--count", type=int, help="scenes to export (default: 64)")
    parser.add_argument("--seed", type=int, help="seed of the world to export (default: 0)")
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help="train the small CLIP and the warm starts E, F and J again from nothing (two processes, under 30 minutes)",
    )
    embed = parser.add_argument_group("embed")
    embed.add_argument("--data", help="a folder in ReasonSeg's format")
    embed.add_argument("--cache", help="folder for the file of embeddings")
    embed.add_argument("--cache-bytes", type=int, help="the file's largest size (default: 1073741824)")
    embed.add_argument("--encoder", help=f"as for dpad-fast score (default: {_EMBED['encoder']})")
    embed.add_argument("--backend", help="transformers (default) or open_clip")
    embed.add_argument("--device", help="where the encoder runs (cpu)")
    embed.add_argument("--threads", type=int, help="CPU threads (default: as many as torch uses)")
    _output.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Export scenes, rebuild the checkpoints, or embed a folder."""
    if args.world == "embed":
        _settle(args, "embed", _EMBED)
        return _embed(args)
    if args.rebuild:
        _settle(args, "shapes --rebuild", _REBUILD)
        from dpad_fast.train.warm_start.rebuild import rebuild

        out = Path(args.out)
        made = rebuild(out)
        say(json.dumps(made, indent=2), quiet=args.quiet)
        say(f"wrote {out}/clip, policy-e, policy-f, policy-j and manifest.json", quiet=args.quiet)
        return 0
    _settle(args, "shapes", _EXPORT)
    _within("--count", args.count, 1, 1_000_000)
    _within("--seed", args.seed, 0, (1 << 63) - 1)
    from dpad_fast.data.shapes import export_reasonseg

    folder = export_reasonseg(args.out, args.seed, args.count)
    say(f"wrote {args.count} scenes in ReasonSeg's format to {folder}", quiet=args.quiet)
    return 0


def _settle(args: argparse.Namespace, doing: str, mine: dict[str, Any]) -> None:
    """Fill in defaults; options that this does not look at are refused."""
    given = {name for name in (*_EXPORT, *_EMBED) if getattr(args, name) is not None}
    if args.rebuild and mine is not _REBUILD:
        given.add("rebuild")
    for name in sorted(given - set(mine)):
        raise ValueError(f"--{name.replace('_', '-')} does not go with `dpad-fast data {doing}`")
    for name, default in mine.items():
        if getattr(args, name) is None:
            setattr(args, name, default)


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} must be at least {least} and at most {most}, got {value}")


def _embed(args: argparse.Namespace) -> int:
    for name in ("data", "cache"):
        if getattr(args, name) is None:
            raise ValueError(
                f"--{name} is missing: `dpad-fast data embed` needs a data folder and one for the embeddings"
            )
    _within("--cache-bytes", args.cache_bytes, 1, (1 << 62) - 1)
    if args.threads is not None:
        _within("--threads", args.threads, 1, 4096)
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
