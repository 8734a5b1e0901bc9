"""What one scorer for many processes costs: rows a second beside the scorer alone, and waiting times.

`python -m bench.serve` times whole batches (the scorer alone, RemoteScorer) and single rows of many callers (one at a
time, as a reward loop without batching does; MicroBatcher; the server). `--soak` kills the server under many clients
and counts what is lost; `--hostile N` sends N bad requests and watches its memory. Every timed way is compared with
`scorer.score` first.
"""

from __future__ import annotations

import argparse
import sys
import warnings

from bench.serve.times import VIT, Work, compare
from dpad_fast.testing.hostile import attack
from dpad_fast.testing.soak import soak


def main(arguments: list[str] | None = None) -> int:
    """Run one of the three; 1 where something was lost, wrong or answered with a crash."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2048, help="completions of a measurement")
    parser.add_argument("--batch", type=int, default=256, help="completions of a call")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each way, which take turns")
    parser.add_argument("--encoder", default="shapes", help=f"shapes (built in) or {VIT} (random weights)")
    parser.add_argument("--new", action="store_true", help="other pictures and captions in each round")
    parser.add_argument("--new-captions", action="store_true", help="other captions of the same pictures in each round")
    parser.add_argument("--no-singles", action="store_true", help="leave single rows and small calls out")
    parser.add_argument("--pictures", choices=("decoded", "PNG", "JPEG"), default="decoded", help="what callers have")
    parser.add_argument("--soak", action="store_true", help="64 clients of 1,000 rows, the server killed in between")
    parser.add_argument("--kills", type=int, default=2, help="of --soak")
    parser.add_argument("--hostile", type=int, metavar="N", help="send N bad requests")
    args = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    if args.soak:
        return _soak(args.kills)
    if args.hostile:
        return _hostile(args.hostile)
    if args.new and args.new_captions:
        parser.error("--new has new captions too: give it or --new-captions")
    new = args.new or args.new_captions
    work = Work(args.rows, args.batch, args.rounds, new, args.encoder, args.pictures, args.new_captions)
    return compare(work, not args.no_singles)


def _soak(kills: int) -> int:
    found = soak(clients=64, rows=1000, kills=kills)
    print(
        f"{found.scored} rows scored of 64000, {found.wrong} wrong, {found.restarts} times killed and started again, "
        f"{found.seconds:.1f} s"
    )
    print("\n".join(found.failures))
    return int(found.scored != 64_000 or found.wrong > 0 or bool(found.failures))


def _hostile(count: int) -> int:
    found = attack(count)
    print(f"{count} requests; answers by status (0: connection ended): {dict(sorted(found.statuses.items()))}")
    for name, statuses in sorted(found.by_kind.items()):
        print(f"  {name}: {dict(sorted(statuses.items()))}")
    print(f"MiB of the server on the way: {[size >> 20 for size in found.memory]}; scores as before: {found.right}")
    print(f"grown from the second quarter's median to the last's: {found.grown() / (1 << 20):.0f} MiB")
    print("\n".join(found.failures))
    return int(bool(found.failures) or not found.right)


if __name__ == "__main__":
    sys.exit(main())
