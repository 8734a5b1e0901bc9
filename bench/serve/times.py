"""Rows a second of the server beside the scorer alone: the same rows, in batches of the same size, in turn.

Both are handed the same pictures, decoded or encoded, so that both decode what is to be decoded. Clients, server and
scorer alone share the machine's cores; the processor seconds of each say what they would reach apart.
"""

from __future__ import annotations

import asyncio
import io
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import dpad_fast as df
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.serving import Running

Rows = tuple[list[str], list[Any], list[Any]]
Measured = tuple[torch.Tensor, list[float]]
GROUP = 8
SIDE = 840
MOST = 128  # pictures of a measurement, 2.8 MB each while they are decoded
VIT = "vit-b-32"


@dataclass
class Work:
    """What is measured, and how.

    Attributes:
        rows: completions of a measurement.
        batch: completions of a call.
        rounds: measurements of each way; the ways take turns, so that what else the machine does hits all of them.
        new: captions, and pictures unless `same_pictures`, are others in each round; else they were scored before.
        encoder: for `dpad-fast serve --encoder`.
        pictures: what scorer and clients are handed: "decoded" (PIL images), or the bytes of "PNG" or "JPEG" files.
    """

    rows: int
    batch: int
    rounds: int
    new: bool
    encoder: str
    pictures: str = "decoded"
    same_pictures: bool = False


@dataclass
class Way:
    """A way to have rows scored.

    Attributes:
        name: in the table.
        run: rows -> totals [N] and seconds of each call.
        process: the server that does the work, or None.
        cpu: seconds of processors that this process used: the scorer's, or the clients'.
        server_cpu: seconds of processors that the server used.
    """

    name: str
    run: Callable[[Rows], Measured]
    process: Running | None = None
    seconds: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    cpu: float = 0.0
    server_cpu: float = 0.0

    def measure(self, rows: Rows) -> torch.Tensor:
        """Runs it once, and keeps how long it took; the totals."""
        served = 0.0 if self.process is None else self.process.cpu_seconds()
        used, started = time.process_time(), time.perf_counter()
        totals, waits = self.run(rows)
        self.seconds.append(time.perf_counter() - started)
        self.cpu += time.process_time() - used
        self.waits += waits
        if self.process is not None:
            self.server_cpu += self.process.cpu_seconds() - served
        return totals


def compare(work: Work, singles: bool) -> int:
    """Prints rows a second of each way and what part of the scorer alone that is; 1 where values differ.

    Args:
        work: what is measured.
        singles: also single rows and small calls of many callers.
    """
    with _encoder(work.encoder) as encoder:
        scorer = df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), df.load_encoder(encoder))
        server = Running("--encoder", encoder, "--set", "shape=margin")
        try:
            ways = _ways(scorer, server, work, singles)
            if not _measured(ways, work):
                return 1
        finally:
            server.stop()
    _print(ways, work)
    return 0


def rows_of(count: int, seed: int, kind: str = "decoded", shown: int | None = None) -> Rows:
    """A step of training: groups of 8 completions that share a picture and a target, a caption each.

    Args:
        count: rows.
        seed: of captions.
        kind: what the pictures are.
        shown: seed of pictures; None: the same.
    """
    first = 1000 * (seed if shown is None else shown)
    captions = [f"a {shared.WORDS[i % len(shared.WORDS)]} circle number {seed} {i}" for i in range(count)]
    pictures: list[Any] = [shared.picture(first + i, (SIDE, SIDE)) for i in range(min(max(count // GROUP, 1), MOST))]
    if kind != "decoded":
        pictures = [_encoded(picture, kind) for picture in pictures]
    target = df.Target.parse(shared.SOLUTION)
    of_rows = [pictures[i // GROUP % len(pictures)] for i in range(count)]
    return [shared.completion(caption=caption) for caption in captions], [target] * count, of_rows


def _encoded(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **({"quality": 90} if kind == "JPEG" else {"compress_level": 1}))
    return file.getvalue()


def _ways(scorer: df.RewardScorer, server: Running, work: Work, singles: bool) -> list[Way]:
    remote, batch = df.RemoteScorer(server.url), work.batch
    many = max(batch // 64, 1)
    ways = [
        Way(f"scorer alone, calls of {batch}", lambda rows: _calls(scorer, rows, batch, 1)),
        Way(f"server, 1 client, calls of {batch}", lambda rows: _calls(remote, rows, batch, 1), server),
        Way(f"server, 4 clients, calls of {batch}", lambda rows: _calls(remote, rows, batch, 4), server),
    ]
    if singles:
        ways += [
            Way(f"scorer alone, calls of {many}", lambda rows: _calls(scorer, rows, many, 1)),
            Way(f"server, 64 clients, calls of {many}", lambda rows: _calls(remote, rows, many, 64), server),
            Way("one at a time, 64 callers", lambda rows: _calls(_One(scorer), rows, 1, 64)),
            Way("MicroBatcher, 64 callers", lambda rows: _batched(scorer, rows, 64)),
            Way("server, 64 clients, single rows", lambda rows: _calls(remote, rows, 1, 64), server),
        ]
    return ways


def _measured(ways: list[Way], work: Work) -> bool:
    """Measures all; False where one gives other values than the first."""
    warm = rows_of(work.batch if work.new and not work.same_pictures else work.rows, 0, work.pictures)
    expected = [way.run(warm)[0] for way in ways]
    for number in range(1, work.rounds + 1):
        for place, way in enumerate(ways):
            # Otherwise the first way would have the pictures of a round embedded for the others.
            seed = number * len(ways) + place
            rows = rows_of(work.rows, seed, work.pictures, 0 if work.same_pictures else seed) if work.new else warm
            totals = way.measure(rows)
            if not work.new:
                expected.append(totals)
    for totals in expected[1:]:
        if not torch.equal(totals, expected[0]):
            print("a way gives other values than scorer.score", file=sys.stderr)
            return False
    return True


def _print(ways: list[Way], work: Work) -> None:
    state = "known" if work.same_pictures or not work.new else "new in each round"
    state += "; captions new in each round" if work.new and work.same_pictures else ""
    table = Table(
        title=f"{work.rows} completions, {work.pictures} {SIDE}x{SIDE} pictures, {state}; encoder {work.encoder}, "
        f"{torch.get_num_threads()} threads, median of {work.rounds} rounds in turn"
    )
    columns = ("way", "rows/s", "of alone", "p50 ms", "p99 ms", "CPU ms/row here", "server", "bound shared", "apart")
    for name in columns:
        table.add_column(name, justify="left" if name == "way" else "right")
    alone = ways[0]
    for way in ways:
        ratio = statistics.median(a / s for a, s in zip(alone.seconds, way.seconds, strict=True))
        cuts = statistics.quantiles(way.waits, n=100, method="inclusive") if len(way.waits) > 1 else way.waits * 99
        speed = work.rows / statistics.median(way.seconds)
        numbers = [f"{speed:.0f}", f"{ratio:.2f}", f"{1000 * cuts[49]:.1f}", f"{1000 * cuts[98]:.1f}"]
        table.add_row(way.name, *numbers, *_processors(way, alone, work.rows * len(way.seconds)))
    Console(width=130).print(table)
    print(
        "CPU here: of the scorer alone, or of the clients. Bounds of the ratio: the scorer's CPU over that of clients\n"
        "and server together (they share the cores), and over the server's (clients elsewhere)."
    )


def _processors(way: Way, alone: Way, rows: int) -> list[str]:
    """Processor milliseconds a row of both sides, and what part of the scorer alone they leave at best."""
    here = f"{1000 * way.cpu / rows:.2f}"
    if way.process is None:
        return [here, "", "", ""]
    together = alone.cpu / (way.cpu + way.server_cpu)
    return [here, f"{1000 * way.server_cpu / rows:.2f}", f"{together:.2f}", f"{alone.cpu / way.server_cpu:.2f}"]


@contextmanager
def _encoder(name: str) -> Iterator[str]:
    """A name for `load_encoder`: `vit-b-32` is a folder with random weights, which is made."""
    if name != VIT:
        yield name
        return
    from transformers import CLIPProcessor

    from bench.reward.work import make_clip

    with TemporaryDirectory() as folder:
        model, parts, fast = make_clip()
        model.save_pretrained(folder)
        CLIPProcessor(fast.image_processor, parts.tokenizer).save_pretrained(folder)
        del model
        yield str(Path(folder))


class _One:
    """A scorer that scores one call after the other, as a process with one reward worker does."""

    def __init__(self, scorer: df.RewardScorer) -> None:
        self._scorer, self._lock = scorer, threading.Lock()

    def score(self, *columns: Any) -> Any:
        with self._lock:
            return self._scorer.score(*columns)


def _calls(scorer: Any, rows: Rows, size: int, clients: int) -> Measured:
    def call(first: int) -> tuple[torch.Tensor, float]:
        started = time.perf_counter()
        total = scorer.score(*(column[first : first + size] for column in rows)).total
        return total, time.perf_counter() - started

    with ThreadPoolExecutor(clients) as pool:
        parts = list(pool.map(call, range(0, len(rows[0]), size)))
    return torch.cat([total for total, _ in parts]), [seconds for _, seconds in parts]


def _batched(scorer: df.RewardScorer, rows: Rows, callers: int) -> Measured:
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
