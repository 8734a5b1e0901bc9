"""The reward stage against what users do today: `python -m bench.reward` (`make bench-reward`).

One run compares all contestants' outputs first, and times them in turns. More modes:

    python -m bench.reward --equality 20000     # terms, similarities and decisions against the plain ways
    python -m bench.reward --device cuda        # on a GPU: against transformers and open_clip with the model there
    python -m bench.reward --device cuda --equality 20000    # similarities and decisions there
    python -m bench.reward --host               # the host's part of a step on a GPU, on any CPU: not a time on a GPU
    python -m bench.reward --eight-bits         # what a first look in 8 bits would save and cost
    python -m bench.reward --memory 8192        # peak memory, and cost per completion from 128 to N
"""

from __future__ import annotations

import argparse
import sys

import torch
from rich.console import Console

from bench import results
from bench.gpu.clocks import DEVICES
from bench.reward.work import GROUP


def count(text: str) -> int:
    """Of a parser: a whole number, at least 1.

    Raises:
        argparse.ArgumentTypeError: it is another; the parser adds the name of the option.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, got {text!r}")
    return int(text)


def main(argv: list[str] | None = None) -> int:
    """Race, or one of the checks."""
    parser = argparse.ArgumentParser(prog="python -m bench.reward", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=count, default=torch.get_num_threads(), help="CPU threads (%(default)s)")
    parser.add_argument("--runs", type=count, help="turns of all contestants (5; with --host 25)")
    parser.add_argument("--sample", type=count, default=16, help="completions timed one at a time (%(default)s)")
    out = f"folder for the CSV files and the plot ({results.FOLDER}; '' writes none, as does a part or a rehearsal)"
    parser.add_argument("--out", help=out)
    parser.add_argument(
        "--device",
        choices=DEVICES,
        help="cuda, or cpu to rehearse it: time the stage on a GPU, with its own contestants",
    )
    queries = "queries of a step, with --device or --host (%(default)s)"
    parser.add_argument("--queries", type=count, default=16, help=queries)
    parser.add_argument("--tiny", action="store_true", help="with --device or --host: a tiny model, to rehearse")
    parser.add_argument("--host", action="store_true", help="the host's part of a step on a GPU, on any CPU, instead")
    again = "with --host: completions of a step that guarded looks at again (%(default)s)"
    parser.add_argument("--again", type=count, default=7, help=again)
    parser.add_argument("--only", default="", help="with --device: the contestants whose names begin so, by commas")
    parser.add_argument("--seconds", type=float, help="with --device: no turn starts after so many seconds")
    parser.add_argument("--equality", type=count, metavar="N", help="check N completions instead of timing")
    parser.add_argument("--memory", type=count, metavar="N", help="peak memory and cost up to N completions instead")
    parser.add_argument("--eight-bits", action="store_true", help="what a first look in 8 bits would cost, instead")
    parser.add_argument("--no-runtimes", action="store_true", help="leave OpenVINO and ONNX Runtime out")
    parser.add_argument("--seed", type=int, default=0, help="of --equality's completions (%(default)s)")
    args = parser.parse_args(argv)
    if args.host and (args.device or args.only or args.seconds is not None):
        parser.error("--device, --only and --seconds do not go with --host, which needs no GPU and times all")
    console = Console(width=None if sys.stdout.isatty() else 150)
    if args.device == "cuda" and not torch.cuda.is_available():
        console.print(f"bench.reward: torch {torch.__version__} finds no GPU; nothing was timed")
        return 2
    if args.out is None:
        part = args.host or (args.device and (args.device == "cpu" or args.tiny or args.only))
        args.out = "" if part else str(results.FOLDER)
    if args.equality or args.memory:
        from bench.reward import checks

        return checks.equality(args, console) if args.equality else checks.memory(args, console)
    if args.host:
        from bench.reward import host

        if args.again > args.queries * GROUP:
            parser.error(f"--again: a step has {args.queries * GROUP} completions, got {args.again}")
        return host.run(args, console)
    args.runs = args.runs or 5
    if args.eight_bits:
        from bench.reward import eight_bits

        return eight_bits.study(args, console)
    if args.device:
        from bench.reward import gpu

        for only in args.only.split(","):
            if not any(name.startswith(only) for name in gpu.names()):
                parser.error(f"--only: no name begins with {only!r}; there are {', '.join(gpu.names())}")
        return gpu.race(args, console)
    from bench.reward.race import race

    return race(args, console)


if __name__ == "__main__":
    sys.exit(main())
