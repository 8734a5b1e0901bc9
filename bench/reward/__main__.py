"""The reward stage against what users do today: `python -m bench.reward` (`make bench-reward`).

One run compares all contestants' outputs first, and times them in turns. More modes:

    python -m bench.reward --equality 20000     # terms, similarities and decisions against the plain ways
    python -m bench.reward --device cuda        # on a GPU: against transformers and open_clip with the model there
    python -m bench.reward --device cuda --equality 20000    # similarities and decisions there
    python -m bench.reward --eight-bits         # what a first look in 8 bits would save and cost
    python -m bench.reward --memory 8192        # peak memory, and cost per completion from 128 to N
"""

from __future__ import annotations

import argparse
import sys

import torch
from rich.console import Console

from bench import results


def main(argv: list[str] | None = None) -> int:
    """Race, or one of the checks."""
    parser = argparse.ArgumentParser(prog="python -m bench.reward", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="turns of all contestants (%(default)s)")
    parser.add_argument("--sample", type=int, default=16, help="completions timed one at a time (%(default)s)")
    parser.add_argument(
        "--out", default=str(results.FOLDER), help="folder for the CSV files and the plot; '' writes none"
    )
    parser.add_argument(
        "--device", help="cuda, or cpu to rehearse it: time the stage on a GPU, with its own contestants"
    )
    parser.add_argument("--queries", type=int, default=16, help="queries of a step with --device (%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="with --device: a tiny model, to rehearse")
    parser.add_argument("--only", default="", help="with --device: the contestants whose names begin so, by commas")
    parser.add_argument("--seconds", type=float, help="with --device: no turn starts after that many seconds")
    parser.add_argument("--equality", type=int, metavar="N", help="check N completions instead of timing")
    parser.add_argument("--memory", type=int, metavar="N", help="peak memory and cost up to N completions instead")
    parser.add_argument("--eight-bits", action="store_true", help="what a first look in 8 bits would cost, instead")
    parser.add_argument("--no-runtimes", action="store_true", help="leave OpenVINO and ONNX Runtime out")
    parser.add_argument("--seed", type=int, default=0, help="of --equality's completions (%(default)s)")
    args = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 150)
    if args.equality or args.memory:
        from bench.reward import checks

        return checks.equality(args, console) if args.equality else checks.memory(args, console)
    if args.eight_bits:
        from bench.reward import eight_bits

        return eight_bits.study(args, console)
    if args.device:
        from bench.reward import gpu

        return gpu.race(args, console)
    from bench.reward.race import race

    return race(args, console)


if __name__ == "__main__":
    sys.exit(main())
