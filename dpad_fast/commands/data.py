"""The shapes world as a ReasonSeg folder, its checkpoints made again from nothing, or a data folder embedded ahead.

`dpad-fast data embed` puts the CLIP embeddings of all pictures and ground-truth regions of a data folder into a file,
so that scoring and training pay for captions only; give the same folder to `dpad-fast score --cache`, or as
`EmbeddingCache(folder=...)` to `dpad_fast.load_encoder`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("world", choices=["shapes", "embed"], help="the built-in world; or embed a data folder ahead")
    parser.add_argument("--out", type=Path, help="folder (default: shapes-data, or checkpoints with --rebuild)")
    parser.add_argument("--count", type=int, default=64, help="scenes to export (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world to export (default: %(default)s)")
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help="train the small CLIP and the warm starts E, F and J again from nothing (two processes, under 30 minutes)",
    )
    embed = parser.add_argument_group("embed")
    embed.add_argument("--data", help="a folder in ReasonSeg's format")
    embed.add_argument("--cache", help="folder for the file of embeddings")
    embed.add_argument(
        "--cache-bytes", type=int, default=1 << 30, help="the file's largest size (default: %(default)s)"
    )
    embed.add_argument("--encoder", default="openai/clip-vit-base-patch32", help="as for dpad-fast score")
    embed.add_argument("--backend", default="transformers", help="transformers (default) or open_clip")
    embed.add_argument("--device", default="cpu", help="where the encoder runs (cpu)")
    embed.add_argument("--threads", type=int, help="CPU threads (default: as many as torch uses)")


def run(args: argparse.Namespace) -> int:
    """Export scenes, rebuild the checkpoints, or embed a folder."""
    if args.world == "embed":
        return _embed(args)
    if args.rebuild:
        from dpad_fast.train.rebuild import rebuild

        out = args.out or Path("checkpoints")
        print(json.dumps(rebuild(out), indent=2))
        print(f"wrote {out}/clip, policy-e, policy-f, policy-j and manifest.json")
        return 0
    if args.count < 1:
        raise ValueError(f"--count must be at least 1, got {args.count}")
    from dpad_fast.data.shapes import export_reasonseg

    folder = export_reasonseg(args.out or Path("shapes-data"), args.seed, args.count)
    print(f"wrote {args.count} scenes in ReasonSeg's format to {folder}")
    return 0


def _embed(args: argparse.Namespace) -> int:
    for name in ("data", "cache"):
        if getattr(args, name) is None:
            raise ValueError(
                f"--{name} is missing: `dpad-fast data embed` needs a data folder and one for the embeddings"
            )
    import dpad_fast as df
    from dpad_fast.clip import EmbeddingCache
    from dpad_fast.rewards.ahead import describe, embed_ahead

    samples = df.data.reasonseg.load(args.data)
    encoder = df.load_encoder(
        args.encoder,
        backend=args.backend,
        device=args.device,
        # What guarded scoring looks up first is float32; the precision tells its files from those of other settings.
        precision="guarded",
        cache=EmbeddingCache(folder=args.cache, folder_bytes=args.cache_bytes),
        threads=args.threads,
    )
    count = embed_ahead(encoder, samples)
    print(f"embedded {count} regions of {args.data}: {describe(args.cache)}")
    return 0
