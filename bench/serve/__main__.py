"""What one scorer for many processes costs: rows a second beside the scorer alone, and waiting times.

`python -m bench.serve` times whole batches (the scorer alone, RemoteScorer) and single rows of many callers (one at a
time, as a reward loop without batching does; MicroBatcher; the server). `--soak` kills the server under many clients
and counts what is lost; `--hostile N` sends N bad requests and watches its memory. Every timed way is compared with
`scorer.score` first.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import dpad_fast as df
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.serving import Running, ask, hostile_request, request
from dpad_fast.testing.soak import soak

OPTIONS = ("--set", "shape=margin")
Rows = tuple[list[str], list[Any], list[Any]]


def main(arguments: list[str] | None = None) -> int:
    """Run one of the three; 1 where something was lost, wrong or answered with a crash."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.serve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2048, help="completions of a measurement")
    parser.add_argument("--batch", type=int, default=256, help="completions of a call")
    parser.add_argument("--callers", type=int, default=48, help="single rows at once")
    parser.add_argument("--soak", action="store_true", help="64 clients of 1,000 rows, the server killed in between")
    parser.add_argument("--kills", type=int, default=2, help="of --soak")
    parser.add_argument("--hostile", type=int, metavar="N", help="send N bad requests")
    args = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    if args.soak:
        return _soak(args.kills)
    if args.hostile:
        return _hostile(args.hostile)
    return _times(args)


def _soak(kills: int) -> int:
    found = soak(clients=64, rows=1000, kills=kills)
    print(
        f"{found.scored} rows scored of 64000, {found.wrong} wrong, {found.restarts} times killed and started again, "
        f"{found.seconds:.1f} s"
    )
    print("\n".join(found.failures))
    return int(found.scored != 64_000 or found.wrong > 0 or bool(found.failures))


def _hostile(count: int) -> int:
    rng, server = random.Random(0), Running(*OPTIONS)
    statuses: dict[int, int] = {}
    memory = []
    try:
        for number in range(count):
            raw, finish = hostile_request(rng)
            status = ask(server.port, raw, finish=finish)[0]
            statuses[status] = statuses.get(status, 0) + 1
            if number % max(count // 20, 1) == 0:
                memory.append(server.memory() >> 20)
        alive = ask(server.port, request("GET", "/healthz"))[0] == 200
    finally:
        server.stop()
    print(f"{count} requests; answers by status (0: connection ended): {dict(sorted(statuses.items()))}")
    print(f"MiB of the server on the way: {memory}; alive: {alive}")
    return int(not alive or any(status >= 500 for status in statuses))


def _rows(count: int) -> Rows:
    """A step of training: groups of 8 completions that share a picture, each with a caption of its own."""
    captions = [f"a {shared.WORDS[i % len(shared.WORDS)]} circle number {i}" for i in range(count)]
    pictures = [shared.picture(i, (840, 840)) for i in range(min(count // 8 + 1, 32))]
    target = df.Target.parse(shared.SOLUTION)
    shown = [pictures[i // 8 % len(pictures)] for i in range(count)]
    return [shared.completion(caption=caption) for caption in captions], [target] * count, shown


def _times(args: argparse.Namespace) -> int:
    rows = _rows(args.rows)
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), df.load_encoder("shapes"))
    expected = scorer.score(*rows).total
    server = Running(*OPTIONS)
    remote = df.RemoteScorer(server.url)
    table = Table(
        title=f"{args.rows} completions, 840x840 pictures, built-in encoder, {torch.get_num_threads()} threads"
    )
    for name in ("way", "rows/s", "p50 ms", "p99 ms"):
        table.add_column(name, justify="left" if name == "way" else "right")
    ways: dict[str, Callable[[], tuple[torch.Tensor, list[float]]]] = {
        f"scorer alone, calls of {args.batch}": lambda: _calls(scorer, rows, args.batch, 1),
        f"server, calls of {args.batch}, 1 client": lambda: _calls(remote, rows, args.batch, 1),
        f"server, calls of {args.batch}, 4 clients": lambda: _calls(remote, rows, args.batch, 4),
        f"one at a time, {args.callers} callers": lambda: _singly(_One(scorer), rows, args.callers),
        f"MicroBatcher, {args.callers} callers": lambda: _batched(scorer, rows, args.callers),
        f"server, single rows, {args.callers} callers": lambda: _singly(remote, rows, args.callers),
    }
    try:
        for name, way in ways.items():
            if not torch.equal(way()[0], expected):  # which also warms it up
                print(f"{name}: other values than scorer.score", file=sys.stderr)
                return 1
            started = time.perf_counter()
            _, waits = way()
            seconds = time.perf_counter() - started
            cuts = statistics.quantiles(waits, n=100) if len(waits) > 1 else waits * 99
            table.add_row(name, f"{args.rows / seconds:.0f}", f"{1000 * cuts[49]:.1f}", f"{1000 * cuts[98]:.1f}")
    finally:
        server.stop()
    Console().print(table)
    return 0


class _One:
    """A scorer that scores one call after the other, as a process with one reward worker does."""

    def __init__(self, scorer: df.RewardScorer) -> None:
        self._scorer, self._lock = scorer, threading.Lock()

    def score(self, *columns: Any) -> Any:
        with self._lock:
            return self._scorer.score(*columns)


def _calls(scorer: Any, rows: Rows, size: int, clients: int) -> tuple[torch.Tensor, list[float]]:
    def call(first: int) -> tuple[torch.Tensor, float]:
        started = time.perf_counter()
        total = scorer.score(*(column[first : first + size] for column in rows)).total
        return total, time.perf_counter() - started

    with ThreadPoolExecutor(clients) as pool:
        parts = list(pool.map(call, range(0, len(rows[0]), size)))
    return torch.cat([total for total, _ in parts]), [seconds for _, seconds in parts]


def _singly(scorer: Any, rows: Rows, callers: int) -> tuple[torch.Tensor, list[float]]:
    return _calls(scorer, rows, 1, callers)


def _batched(scorer: df.RewardScorer, rows: Rows, callers: int) -> tuple[torch.Tensor, list[float]]:
    async def run() -> list[tuple[float, float]]:
        free = asyncio.Semaphore(callers)

        async def one(i: int) -> tuple[float, float]:
            async with free:
                started = time.perf_counter()
                row = await batcher.score_one(*(column[i] for column in rows))
                return row.total, time.perf_counter() - started

        return await asyncio.gather(*map(one, range(len(rows[0]))))

    with df.MicroBatcher(scorer) as batcher:
        found = asyncio.run(run())
    return torch.tensor([total for total, _ in found]), [seconds for _, seconds in found]


if __name__ == "__main__":
    sys.exit(main())
