"""The reward stage on a GPU: outputs, seconds, stages, launches, copies and waits, against what users write today.

A disagreement or a contestant that fails is recorded and the run goes on: a machine with a GPU is at hand for minutes.
`--device cpu` runs the same on the CPU, so that all of it can be tried where there is no GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import dpad_fast as df
from bench import results
from bench.gpu.clocks import beginning_with
from bench.reward import counts as counted
from bench.reward import work as ways
from bench.reward.gpu_ways import JPEG, KNOWN, PIL, Batched, Clip, Entry, decoded, encoded, entries
from bench.reward.race import Contestant, similarities, unique
from bench.reward.report import STAGES
from dpad_fast.testing import rewards as small

# What failed on a GPU, or is not installed, is a row of the result and no end of the run.
_FAILURES = (ImportError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, OSError)


@dataclass
class Entrant:
    """A contestant with what is known of it: columns of its row, and milliseconds of each turn."""

    entry: Entry
    facts: dict[str, Any] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    failure: str = ""

    def attempt(self, call: Callable[[], Any]) -> Any:
        """What the call gives; None where it fails or this one failed before."""
        if self.failure:
            return None
        try:
            return call()
        except _FAILURES as error:
            traceback.print_exc()  # the row has room for one line, and the machine may not come back
            self.failure = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            return None


def model_of(tiny: bool) -> tuple[Any, Any, Any]:
    """ViT-B/32, or a tiny CLIP to rehearse."""
    return ways.make_tiny() if tiny else ways.make_clip()


def work_of(tiny: bool) -> Callable[..., ways.Work]:
    """Makes completions whose captions fit the model's context."""
    return partial(ways.make_work, words=small.WORDS) if tiny else ways.make_work


class Pictures:
    """The same pictures in each form."""

    def __init__(self, work: ways.Work) -> None:
        self._files = {id(picture): encoded(picture) for picture in unique(work)}

    def of(self, work: ways.Work, form: str) -> ways.Work:
        """A work with its pictures in that form."""
        if form != JPEG:
            return work
        return ways.Work(work.texts, work.solutions, [self._files[id(picture)] for picture in work.pictures])


def race(args: argparse.Namespace, console: Console) -> int:
    """Compare, time in turns, profile, write; 1 where an exact one decided wrongly or a contestant failed."""
    device = torch.device(args.device)
    began = time.perf_counter()
    torch.set_num_threads(args.threads)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    console.print(f"{results.versions()}; {results.name_of(device)}")
    clip, make_work = Clip(*model_of(args.tiny)), work_of(args.tiny)
    work = make_work([ways.photograph(i) for i in range(args.queries)], args.queries * ways.GROUP, seed=0)
    pictures = Pictures(work)
    # What JPEG shows are other pictures: its decisions are compared with those on the decoded ones.
    plain = ways.HandWritten(clip.model, clip.slow)
    truths = {PIL: plain(work), JPEG: plain(decoded(pictures.of(work, JPEG)))}
    truths[KNOWN] = truths[PIL]
    entrants = enter(clip, device, tuple(args.only.split(",")), console)
    for one in entrants:
        one.attempt(lambda one=one: compare(one, pictures.of(work, one.entry.pictures), truths[one.entry.pictures]))
    deadline = began + args.seconds if args.seconds else float("inf")
    fresh = (make_work(unique(work), len(work.texts), seed=1000 + turn) for turn in range(args.runs + 2))
    take_turns(entrants, fresh, pictures, args.sample, wait, deadline)
    keep(entrants, device, args.out)  # what follows may end more than itself
    for one in entrants:
        one.attempt(lambda one=one: look_inside(one, pictures.of(work, one.entry.pictures), device, wait))
    for line in keep(entrants, device, args.out):
        said = "  ".join(f"{key} {value}" for key, value in line.items() if value != "" and key not in _SAME)
        console.print(said, soft_wrap=True)
    return verdict(entrants, console)


def names() -> list[str]:
    """Of all that `enter` can make; nothing is made for it."""
    nothing: Any = None
    return [name for name, _ in entries(nothing, nothing)]


def enter(clip: Clip, device: torch.device, only: tuple[str, ...], console: Console) -> list[Entrant]:
    """Makes all contestants whose names begin with one of `only`; a model that cannot be made is one that failed."""
    found = []
    for name, make in entries(clip, device):
        if not name.startswith(only):
            continue
        began = time.perf_counter()
        model = Entrant(Entry(name, PIL, None))
        made = model.attempt(make)
        took = time.perf_counter() - began
        if made is None:
            console.print(f"{name}: {model.failure}")
            found.append(model)
            continue
        said = f": {made[0].note}" if made[0].note else ""
        console.print(f"{name}, made in {took:.1f} s{said}")
        found += [Entrant(entry) for entry in made]
    return found


def compare(one: Entrant, work: ways.Work, plain: torch.Tensor) -> None:
    """Notes how a contestant's output differs from the plain way's in float32 on the CPU."""
    prepare(one.entry.way, work)
    found = one.entry.way(work)
    decisions, truth = None, plain[:, 0] > plain[:, 1]
    if isinstance(found, df.ScoreBatch):
        decisions, found = found.terms["discriminative"].bool(), similarities(found)
    decisions = found[:, 0] > found[:, 1] if decisions is None else decisions
    one.facts |= {
        "error": f"{float((found - plain).abs().max()):.1e}",
        "delta_error": f"{float((found.diff(dim=1) - plain.diff(dim=1)).abs().max()):.1e}",
        "wrong": int((decisions != truth).sum()),
    }
    way = one.entry.way
    if isinstance(way, Contestant) and way.scorer.compared:
        one.facts["recomputed"] = f"{way.scorer.recomputed} of {way.scorer.compared}"
        one.facts["margin"] = f"{way.encoder.margin:.1e}"


def prepare(way: Any, work: ways.Work) -> None:
    """Lets a contestant forget what it may not know, and learn what it may; outside of the timing."""
    if hasattr(way, "prepare"):
        way.prepare(work)


def take_turns(
    entrants: list[Entrant],
    works: Iterable[ways.Work],
    pictures: Pictures,
    sample: int,
    wait: Callable[[], Any],
    deadline: float,
) -> None:
    """Times all, in turns, on captions that are new in each; the first two turns are not counted."""
    for one in entrants:
        if isinstance(one.entry.way, Contestant):
            one.entry.way.stages.clear()
    for turn, fresh in enumerate(works):
        if turn > 2 and time.perf_counter() > deadline:
            break
        for one in beginning_with(entrants, turn):
            given = pictures.of(fresh, one.entry.pictures)
            part = given.part(sample) if one.entry.sample else given
            seconds = one.attempt(lambda way=one.entry.way, part=part: seconds_of(way, part, wait))
            if turn > 1 and seconds is not None:
                one.times.append(1e3 * seconds * len(given.texts) / len(part.texts))


def seconds_of(way: Any, work: ways.Work, wait: Callable[[], Any]) -> float:
    """From the moment at which the device is idle until it is idle again."""
    prepare(way, work)
    wait()
    began = time.perf_counter()
    way(work)
    wait()
    return time.perf_counter() - began


def look_inside(one: Entrant, work: ways.Work, device: torch.device, wait: Callable[[], Any]) -> None:
    """Notes stages, and on a GPU what one call asks of it.

    Ours says itself how long its stages took in the turns that were timed, on the host's clock. The hand-written ways
    make three more calls that wait for the device after each stage.
    """
    way = one.entry.way
    if isinstance(way, Batched):
        way.stages.clear()
        way.wait = wait
        for _ in range(3):
            prepare(way, work)
            way(work)
        way.wait = lambda: None
    for stage in STAGES if getattr(way, "stages", None) else ():
        one.facts[f"{stage}_ms"] = f"{1e3 * statistics.median(laps.get(stage, 0.0) for laps in way.stages):.2f}"
    if device.type == "cuda":
        # One at a time asks the same for each completion, and a profile of all would take longer than the race.
        part = work.part(2) if one.entry.sample else work
        prepare(way, part)
        one.facts |= counted.scaled(counted.profiled(lambda: way(part))[0], len(work.texts) // len(part.texts))


def row(one: Entrant, device: torch.device) -> dict[str, Any]:
    """One line of the result; a column is empty where it says nothing of a contestant."""
    times = one.times
    spread = {"p50_ms": statistics.median(times), "least_ms": min(times), "most_ms": max(times)} if times else {}
    return {
        "contestant": one.entry.name,
        "pictures": one.entry.pictures,
        **{key: f"{spread[key]:.2f}" if spread else "" for key in ("p50_ms", "least_ms", "most_ms")},
        "turns": len(times),
        **{key: one.facts.get(key, "") for key in _FACTS},
        "note": one.failure or one.entry.note,
        **results.day(device),
    }


def keep(entrants: list[Entrant], device: torch.device, out: str) -> list[dict[str, Any]]:
    """What is known so far, a row for each; written to a file where there is a folder for it."""
    rows = [row(one, device) for one in entrants]
    if out:
        results.write("reward-gpu", rows, Path(out))
    return rows


def verdict(entrants: list[Entrant], console: Console) -> int:
    """Says what was wrong; the status of the run."""
    bad = [f"{one.entry.name} ({one.entry.pictures})" for one in entrants if one.entry.exact and one.facts.get("wrong")]
    failed = [f"{one.entry.name} ({one.entry.pictures}): {one.failure}" for one in entrants if one.failure]
    console.print(f"decisions that differ: {', '.join(bad)}" if bad else "decisions agree", soft_wrap=True)
    for line in failed:
        console.print(f"failed: {line}", soft_wrap=True)
    return 1 if bad or failed else 0


_FACTS = (
    "error", "delta_error", "wrong", "recomputed", "margin", *(f"{stage}_ms" for stage in STAGES), *counted.COLUMNS,
)  # fmt: skip
_SAME = ("device", "driver", "torch", "date", "note")
