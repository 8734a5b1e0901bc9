"""One scorer for many processes, over HTTP: batches across callers, one encoder, one cache of embeddings.

POST /score is for dpad_fast.RemoteScorer, /openrlhf for OpenRLHF's remote_url and /slime for slime's --rm-url; /metrics
is for Prometheus and /openapi.json describes them all. SIGTERM stops it when what was accepted is answered.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpad_fast.commands import _output, _reward
from dpad_fast.terminal import say

if TYPE_CHECKING:
    from dpad_fast.rewards import RewardConfig, RewardScorer
    from dpad_fast.serve.settings import Settings

DEFAULT_ENCODER = "openai/clip-vit-base-patch32"
DEFAULT_PORT = 8421
_MIB = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `dpad-fast serve`.

    Args:
        parser: the parser of the command.
    """
    _reward.add_arguments(parser)
    parser.add_argument("--encoder", help=f"a name or folder ({DEFAULT_ENCODER}), or 'shapes', which is built in")
    parser.add_argument("--backend", help="transformers (default) or open_clip")
    parser.add_argument("--precision", help="guarded (default), float32 or bfloat16")
    parser.add_argument("--device", help="where the encoder runs (cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads of the encoder (as many as torch uses)")
    parser.add_argument("--cache", help="a folder that keeps the embeddings of images (see dpad-fast data embed)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"port ({DEFAULT_PORT}); 0: any free one")
    parser.add_argument("--token-file", help="a file with the token that callers must show (or set DPAD_FAST_TOKEN)")
    parser.add_argument("--insecure", action="store_true", help="listen beyond this machine without a token")
    parser.add_argument("--root", help="a folder inside which callers may name pictures by path")
    parser.add_argument("--window-ms", type=float, help="how long a batch's first row waits for others (10)")
    parser.add_argument("--max-batch", type=int, help="rows of a batch (256)")
    parser.add_argument("--queue", type=int, help="rows that may wait; beyond, callers are told to come again (16384)")
    parser.add_argument("--body-mb", type=int, help="MiB of a request (64)")
    parser.add_argument("--picture-mb", type=int, help="MiB of a picture (32)")
    parser.add_argument("--store-mb", type=int, help="MiB of pictures that are kept (1024)")
    parser.add_argument("--timeout", type=float, help="seconds that a request waits for its scores (300)")
    _output.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Serves until it is stopped.

    Args:
        args: the parsed arguments.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: a bad setting or encoder, or no token where one is needed; says which.
        OSError: the address is taken, or a file cannot be read.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(f'{error.name} is not installed: pip install "dpad-fast[serve]"') from None
    from dpad_fast.serve.app import ScoreServer
    from dpad_fast.serve.server import listen, serve

    config = _reward.config(args)
    settings = _settings(args)
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port must be from 0 to 65535, got {args.port}")
    listening = listen(args.host, args.port)
    with listening:
        scorer, name = _scorer(args, config)
        server = ScoreServer(scorer, settings, name)
        serve(server, listening, lambda url: say(f"serving {config.name} on {url}", quiet=args.quiet))
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    from dpad_fast.serve.server import LOCAL
    from dpad_fast.serve.settings import TOKEN_VARIABLE, Settings

    token = os.environ.get(TOKEN_VARIABLE) or None if args.token_file is None else _token(args.token_file)
    local = args.host in LOCAL or args.host.startswith("127.")
    if token is None and not local and not args.insecure:
        raise ValueError(
            f"--host {args.host} lets other machines in: give --token-file FILE or set {TOKEN_VARIABLE}, or --insecure "
            "where the network is trusted"
        )
    given: dict[str, Any] = {
        "token": token,
        "hosts": (*LOCAL, args.host) if local else (),
        "root": args.root,
        "window_ms": args.window_ms,
        "max_batch": args.max_batch,
        "queue": args.queue,
        "body": None if args.body_mb is None else args.body_mb * _MIB,
        "picture": None if args.picture_mb is None else args.picture_mb * _MIB,
        "store": None if args.store_mb is None else args.store_mb * _MIB,
        "answer_s": args.timeout,
    }
    known = {entry.name for entry in fields(Settings)}
    return Settings(**{name: value for name, value in given.items() if name in known and value is not None})


def _token(path: str) -> str:
    text = Path(path).read_text(encoding="utf-8").strip()
    if os.name == "posix" and os.stat(path).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        print(f"note: others on this machine can read {path}; chmod 600 keeps it to you", file=sys.stderr)
    return text


def _scorer(args: argparse.Namespace, config: RewardConfig) -> tuple[RewardScorer, str]:
    """The scorer, and what it is made of in words."""
    from dpad_fast.rewards import ScorerSpec
    from dpad_fast.train.policy import quiet

    names = ("encoder", "backend", "precision", "device", "threads", "cache")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if not config.needs_encoder:
        if given:
            used = ", ".join(f"--{name}" for name in given)
            note = f"note: {used} not used: no term of {config.name} compares with CLIP"
            say(note, quiet=args.quiet, file=sys.stderr)
        given = {}
    else:
        given.setdefault("encoder", DEFAULT_ENCODER)
    spec = ScorerSpec(config, **given)
    with quiet():
        scorer = spec.build()
    return scorer, f"{spec.backend} {spec.precision}"
