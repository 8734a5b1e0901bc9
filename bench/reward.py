"""The reward stage against what users do today: `python -m bench.reward` (`make bench-reward`).

One run compares all contestants' outputs first, and times them in turns. Two more modes check what the timing rests on:

    python -m bench.reward --equality 20000     # terms, similarities and decisions against the plain ways
    python -m bench.reward --memory 8192        # peak memory, and cost per completion from 128 to N
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import dpad_fast as df
from bench import reward_work as ways
from bench.reward_floor import cpu_name, floor_rows, rates
from dpad_fast import _extension
from dpad_fast.clip import EmbeddingCache
from dpad_fast.rewards.ahead import embed_ahead
from dpad_fast.types import Sample

RESULTS = Path(__file__).parent / "results"
STAGES = ("parse", "geometry", "preprocess", "text", "image", "combine")
GOALS = {
    "cold": {"one at a time": 30.0, "hand-written": 4.0},
    "images known": {"one at a time": 70.0, "hand-written": 9.0},
    "float32 cold": {"hand-written": 1.8},
    "float32 images known": {"hand-written": 4.0},
}


class Contestant:
    """Ours in one precision, cold or with the images known from an earlier step."""

    def __init__(self, encoder: df.ClipEncoder, known: bool) -> None:
        self.encoder, self.known = encoder, known
        self.scorer = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder)
        self.stages: list[dict[str, float]] = []
        self.compared = self.recomputed = 0

    def __call__(self, work: ways.Work) -> df.ScoreBatch:
        """Scores, from solution strings on, as a trainer would."""
        targets = [df.Target.parse(solution, image_size=(ways.WIDTH, ways.HEIGHT)) for solution in work.solutions]
        before = self.encoder.compared, self.encoder.recomputed
        batch = self.scorer.score(work.texts, targets, work.pictures)
        self.compared += self.encoder.compared - before[0]
        self.recomputed += self.encoder.recomputed - before[1]
        self.stages.append(batch.timings)
        return batch

    def prepare(self, work: ways.Work) -> None:
        """Nothing is known; or the images are, as `dpad-fast data embed` leaves them, and no caption."""
        self.encoder.cache = EmbeddingCache()
        if self.known:
            embed_ahead(self.encoder, samples(work))
        self.compared = self.recomputed = 0


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
        share = "" if not contestant.compared else f"{contestant.recomputed} of {contestant.compared}"
        table.add_row(name, f"{error:.1e}", f"{delta:.1e}", str(wrong), share)
        if "float32" in name:
            good &= bool(error <= 1e-6) and wrong == 0
        if "guarded" in name:
            good &= wrong == 0
    console.print(table)
    return good


def race(args: argparse.Namespace, console: Console) -> int:
    """The main table."""
    torch.set_num_threads(args.threads)
    model, slow, fast = ways.make_clip()
    work = ways.make_work([ways.photograph(i) for i in range(ways.QUERIES)], ways.QUERIES * ways.GROUP, seed=0)
    made = encoders(model, slow, args.threads)
    console.print(
        f"{cpu_name()}; torch {torch.__version__}; {args.threads} threads; kernels {_extension.C.tower_level()}"
    )
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
    times: dict[str, list[float]] = {}
    hand = {"cold": ways.HandWritten(model, fast), "images known": ways.HandWritten(model, fast, remember=True)}
    for turn in range(args.runs):
        fresh = ways.make_work(unique(work), len(work.texts), seed=1000 + turn)
        scale = len(work.texts) / len(sample.texts)
        part = fresh.part(args.sample)
        rows = {"one at a time": scale * timed(lambda part=part: ways.one_at_a_time(part, model, slow))}
        for name, way in hand.items():
            rows[f"hand-written, {name}"] = timed(lambda way=way, fresh=fresh: way(fresh))
        for name, contestant in contestants.items():
            contestant.prepare(fresh)
            contestant.stages.clear()
            rows[f"dpad_fast {name}"] = timed(lambda contestant=contestant, fresh=fresh: contestant(fresh))
        for name, seconds in rows.items():
            times.setdefault(name, []).append(seconds)
    times["hand-written, images known"] = times["hand-written, images known"][1:] or times["hand-written, cold"]
    report(times, contestants, args, console)
    floors = floor_rows(made["float32"], work, rates(args.threads))
    table = Table(title="the arithmetic's floor")
    for column in ("products", "GFLOP/s measured", "cold, s", "images known, s"):
        table.add_column(column, justify="right" if table.columns else "left")
    for row in floors:
        table.add_row(row[0], *(f"{value:.3f}" if i else f"{value:.0f}" for i, value in enumerate(row[1:])))
    console.print(table)
    if args.out:
        save(Path(args.out), times, contestants, floors)
    return 0


def report(
    times: dict[str, list[float]], contestants: dict[str, Contestant], args: argparse.Namespace, console: Console
) -> None:
    middle = {name: statistics.median(values) for name, values in times.items()}
    table = Table(title=f"128 completions, median of {args.runs} (one at a time: {args.sample} of them, scaled)")
    columns = ("contestant", "s", "ms a completion", "x one at a time", "x hand-written", "goal")
    for column in columns:
        table.add_column(column, justify="right" if table.columns else "left")
    for name, seconds in middle.items():
        goal = next((GOALS[key] for key in sorted(GOALS, key=len, reverse=True) if matches(name, key)), {})
        ratios = {"one at a time": middle["one at a time"], "hand-written": middle["hand-written, cold"]}
        met = ", ".join(
            f"{'met' if ratios[way] / seconds >= least else 'NOT met'} ({least:g}x {way})"
            for way, least in goal.items()
        )
        table.add_row(
            name,
            f"{seconds:.3f}",
            f"{1000 * seconds / (ways.QUERIES * ways.GROUP):.2f}",
            *(f"{value / seconds:.1f}" for value in ratios.values()),
            met,
        )
    console.print(table)
    stages = Table(title="stages, milliseconds (of the last turn)")
    for column in ("contestant", *STAGES, "sum"):
        stages.add_column(column, justify="right" if stages.columns else "left")
    for name, contestant in contestants.items():
        last = contestant.stages[-1]
        stages.add_row(name, *(f"{1000 * last[stage]:.1f}" for stage in STAGES), f"{1000 * sum(last.values()):.1f}")
    console.print(stages)


def matches(name: str, key: str) -> bool:
    """Whether a row is what a goal speaks of: guarded, or float32 where the goal says so."""
    kind = "float32" if key.startswith("float32") else "guarded"
    return name == f"dpad_fast {kind}, {key.removeprefix('float32 ')}"


def save(
    folder: Path, times: dict[str, list[float]], contestants: dict[str, Contestant], floors: list[tuple[Any, ...]]
) -> None:
    """reward.csv, and the stages as a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "reward.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("contestant", "p50_s", "least_s", "most_s", *(f"{stage}_ms" for stage in STAGES)))
        for name, values in times.items():
            mine = contestants.get(name.removeprefix("dpad_fast "))
            stages = ["" if mine is None else f"{1000 * mine.stages[-1][stage]:.2f}" for stage in STAGES]
            seconds = (statistics.median(values), min(values), max(values))
            writer.writerow((name, *(f"{value:.4f}" for value in seconds), *stages))
        for row in floors:
            writer.writerow((f"floor, {row[0]}, cold", f"{row[2]:.4f}"))
            writer.writerow((f"floor, {row[0]}, images known", f"{row[3]:.4f}"))
    plot(folder / "reward-stages.svg", contestants, floors)


def plot(path: Path, contestants: dict[str, Contestant], floors: list[tuple[Any, ...]]) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    shown = {name: mine for name, mine in contestants.items() if not name.startswith("bfloat16")}
    figure, axes = pyplot.subplots(figsize=(8, 3.2))
    left = [0.0] * len(shown)
    for stage in STAGES:
        widths = [1000 * mine.stages[-1][stage] for mine in shown.values()]
        axes.barh(list(shown), widths, left=left, label=stage)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for i, name in enumerate(shown):
        row = floors[0] if name.startswith("float32") else floors[-1]
        axes.plot(
            [1000 * row[3 if "known" in name else 2]] * 2, [i - 0.4, i + 0.4], "k", label="floor" if not i else None
        )
    axes.set_xlabel("milliseconds for 128 completions")
    axes.invert_yaxis()
    axes.legend(fontsize=8)
    figure.tight_layout()
    matplotlib.rcParams["svg.hashsalt"] = "dpad-fast"
    figure.savefig(path, metadata={"Date": None})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.reward", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (%(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="turns of all contestants (%(default)s)")
    parser.add_argument("--sample", type=int, default=16, help="completions timed one at a time (%(default)s)")
    parser.add_argument("--out", default=str(RESULTS), help="folder for reward.csv and the plot; '' writes none")
    parser.add_argument("--equality", type=int, metavar="N", help="check N completions instead of timing")
    parser.add_argument("--memory", type=int, metavar="N", help="peak memory and cost up to N completions instead")
    parser.add_argument("--seed", type=int, default=0, help="of --equality's completions (%(default)s)")
    args = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 150)
    if args.equality or args.memory:
        from bench import reward_checks

        return reward_checks.equality(args, console) if args.equality else reward_checks.memory(args, console)
    return race(args, console)


if __name__ == "__main__":
    sys.exit(main())
