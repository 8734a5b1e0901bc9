"""The contest: all contestants' outputs compared first, then timed in turns."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import dpad_fast as df
from bench.reward import runtimes
from bench.reward import work as ways
from bench.reward.floor import cpu_name, floor_rows, rates
from bench.reward.report import report, save
from dpad_fast._native import extension as _extension
from dpad_fast.clip import EmbeddingCache
from dpad_fast.rewards.ahead import embed_ahead
from dpad_fast.types import Sample

SEEN = (ways.WIDTH, ways.HEIGHT)
"""The size at which the model saw every picture: its own."""


class Contestant:
    """Ours in one precision, cold or with the images known from an earlier step."""

    def __init__(self, encoder: df.ClipEncoder, known: bool) -> None:
        self.encoder, self.known = encoder, known
        self.scorer = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder)
        self.stages: list[dict[str, float]] = []

    def __call__(self, work: ways.Work) -> df.ScoreBatch:
        """Scores, from solution strings on, as a trainer would."""
        targets = [df.Target.parse(solution, image_size=(ways.WIDTH, ways.HEIGHT)) for solution in work.solutions]
        batch = self.scorer.score(work.texts, targets, work.pictures, model_sizes=[SEEN] * len(targets))
        self.stages.append(batch.timings)
        return batch

    def prepare(self, work: ways.Work) -> None:
        """Nothing is known; or the images are, as `dpad-fast data embed` leaves them, and no caption."""
        self.encoder.cache = EmbeddingCache()
        if self.known:
            embed_ahead(self.encoder, samples(work))
        self.scorer = df.RewardScorer(self.scorer.config, self.encoder)


def samples(work: ways.Work) -> list[Sample]:
    pairs = {(text, id(image)): (text, image) for text, image in zip(work.solutions, work.pictures, strict=True)}
    size = (ways.WIDTH, ways.HEIGHT)
    return [
        Sample(str(i), image, "", df.Target.parse(text, image_size=size))
        for i, (text, image) in enumerate(pairs.values())
    ]


def unique(work: ways.Work) -> list[Any]:
    return list({id(picture): picture for picture in work.pictures}.values())


def similarities(batch: df.ScoreBatch) -> torch.Tensor:
    return torch.stack([batch.similarity["roi"], batch.similarity["aoi"]], dim=1)


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def encoders(model: Any, processor: Any, threads: int) -> dict[str, df.ClipEncoder]:
    return {
        precision: df.ClipEncoder.from_transformers(model, processor, precision=precision, threads=threads)
        for precision in ("float32", "bfloat16", "guarded")
    }


def compare(contestants: dict[str, Contestant], work: ways.Work, plain: torch.Tensor, console: Console) -> bool:
    """Prints how each differs from the plain way; whether float32 and guarded are as they must be."""
    table = Table(title="outputs, against the plain way in float32")
    for name in ("contestant", "largest error of S1, S2", "of S1 - S2", "decisions that differ", "recomputed"):
        table.add_column(name, justify="right" if table.columns else "left")
    good = True
    decisions = plain[:, 0] > plain[:, 1]
    for name, contestant in contestants.items():
        contestant.prepare(work)
        batch = contestant(work)
        found = similarities(batch)
        error, delta = (found - plain).abs().max(), (found.diff(dim=1) - plain.diff(dim=1)).abs().max()
        wrong = int((batch.terms["discriminative"].bool() != decisions).sum())
        scorer = contestant.scorer
        share = "" if not scorer.compared else f"{scorer.recomputed} of {scorer.compared}"
        table.add_row(name, f"{error:.1e}", f"{delta:.1e}", str(wrong), share)
        if "float32" in name:
            good &= bool(error <= 1e-6) and wrong == 0
        if "guarded" in name:
            good &= wrong == 0
    console.print(table)
    return good


def compare_runtimes(
    ready: dict[str, runtimes.Towers], processor: Any, work: ways.Work, plain: torch.Tensor, console: Console
) -> dict[str, int]:
    """Prints how the other runtimes differ from the plain way; by name, how many decisions each gets wrong."""
    table = Table(title="other runtimes' outputs, against the plain way in float32")
    for name in ("contestant", "largest error of S1, S2", "of S1 - S2", "its spread", "decisions that differ"):
        table.add_column(name, justify="right" if table.columns else "left")
    wrong = {}
    for name, towers in ready.items():
        found = runtimes.Runtime(towers, processor)(work)
        error, delta = (found - plain).abs().max(), (found.diff(dim=1) - plain.diff(dim=1)).abs().max()
        wrong[name] = int(((found[:, 0] > found[:, 1]) != (plain[:, 0] > plain[:, 1])).sum())
        share = f"{wrong[name]} ({wrong[name] / len(plain):.1%})"
        table.add_row(name, f"{error:.1e}", f"{delta:.1e}", f"{float(plain.diff(dim=1).std()):.1e}", share)
    console.print(table)
    return wrong


def make_runtimes(args: argparse.Namespace, model: Any, processor: Any, console: Console) -> dict[str, runtimes.Towers]:
    """Those that run here; prints why the others do not."""
    if args.no_runtimes:
        return {}
    other = ways.make_work([ways.photograph(1000 + i) for i in range(ways.QUERIES)], ways.QUERIES * ways.GROUP, seed=-1)
    ready = {}
    for name, towers in runtimes.contestants(model, processor, args.threads, other):
        if isinstance(towers, str):
            console.print(f"  {name}: not measured, {towers}")
        else:
            ready[name] = towers
    return ready


def race(args: argparse.Namespace, console: Console) -> int:
    """The main table."""
    torch.set_num_threads(args.threads)
    model, slow, fast = ways.make_clip()
    work = ways.make_work([ways.photograph(i) for i in range(ways.QUERIES)], ways.QUERIES * ways.GROUP, seed=0)
    made = encoders(model, slow, args.threads)
    level = _extension.C.simd_report()["tower"]
    console.print(f"{cpu_name()}; torch {torch.__version__}; {args.threads} threads; towers on {level}")
    for name, encoder in made.items():
        margin = f", margin {encoder.margin:.1e}" if encoder.margin else ""
        console.print(f"  {name}: {encoder.forward}{margin}")
    contestants = {
        f"{precision}, {'images known' if known else 'cold'}": Contestant(encoder, known)
        for precision, encoder in made.items()
        for known in (False, True)
    }
    plain = ways.HandWritten(model, slow)(work)  # Pillow's pixels, as the one-at-a-time way has them
    sample = work.part(args.sample)
    single = ways.one_at_a_time(sample, model, slow)
    console.print(f"one at a time against one batch, float32: {float((single - plain[: len(single)]).abs().max()):.1e}")
    if not compare(contestants, work, plain, console):
        console.print("[red]outputs differ; nothing is timed")
        return 1
    ready = make_runtimes(args, model, fast, console)
    plain_fast = ways.HandWritten(model, fast)(work)  # the same pixels as theirs
    wrong = compare_runtimes(ready, fast, work, plain_fast, console) if ready else {}
    times: dict[str, list[float]] = {}
    hand = {"hand-written, cold": ways.HandWritten(model, fast)}
    hand["hand-written, images known"] = ways.HandWritten(model, fast, remember=True)
    for name, towers in ready.items():
        hand[f"{name}, cold"] = runtimes.Runtime(towers, fast)
        hand[f"{name}, images known"] = runtimes.Runtime(towers, fast, remember=True)
    for way in hand.values():
        if way.remember:
            way(work)
    for turn in range(args.runs):
        fresh = ways.make_work(unique(work), len(work.texts), seed=1000 + turn)
        scale = len(work.texts) / len(sample.texts)
        part = fresh.part(args.sample)
        rows = {"one at a time": scale * timed(lambda part=part: ways.one_at_a_time(part, model, slow))}
        for name, way in hand.items():
            rows[name] = timed(lambda way=way, fresh=fresh: way(fresh))
        for name, contestant in contestants.items():
            contestant.prepare(fresh)
            contestant.stages.clear()
            rows[f"dpad_fast {name}"] = timed(lambda contestant=contestant, fresh=fresh: contestant(fresh))
        for name, seconds in rows.items():
            times.setdefault(name, []).append(seconds)
    report(times, contestants, wrong, args, console)
    floors = floor_rows(made["float32"], work, rates(args.threads))
    table = Table(title="the arithmetic's floor")
    for column in ("products", "GFLOP/s measured", "cold, s", "images known, s"):
        table.add_column(column, justify="right" if table.columns else "left")
    for row in floors:
        table.add_row(row["products"], f"{row['gflops']:.0f}", f"{row['cold_s']:.3f}", f"{row['known_s']:.3f}")
    console.print(table)
    if args.out:
        save(Path(args.out), times, contestants, floors, wrong)
    return 0
