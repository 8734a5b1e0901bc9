"""`dpad-fast data`: the shapes world as a ReasonSeg folder, and its checkpoints made again from nothing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("world", choices=["shapes"], help="the built-in world")
    parser.add_argument("--out", type=Path, help="folder (default: shapes-data, or checkpoints with --rebuild)")
    parser.add_argument("--count", type=int, default=64, help="scenes to export (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world to export (default: %(default)s)")
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help="train the small CLIP and the warm starts E, F and J again from nothing (two processes, under 30 minutes)",
    )


def run(args: argparse.Namespace) -> int:
    """Export scenes, or rebuild the checkpoints."""
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
