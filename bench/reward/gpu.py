"""The reward stage on a GPU: outputs, seconds, stages, launches, copies and waits, against what users write today.

Two groups take their turns one after the other: first the few that the goals are about, for many turns, then all others
in the time that is left, and "guarded" again with them: what is compared was timed in turns with each other.
A disagreement or a contestant that fails is recorded and the run goes on: a machine with a GPU is at hand for minutes.
`--device cpu` runs the same on the CPU, so that all of it can be tried where there is no GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
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
from bench.reward.turns import Turn, columns, measured, ratio
from dpad_fast.testing import rewards as small

# What failed on a GPU, or is not installed, is a row of the result and no end of the run.
_FAILURES = (ImportError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, OSError)


GOALS, OTHERS = "goals", "others"
GUARDED, HAND = "dpad_fast guarded", "transformers, float16, GPU pixels"
"""What the goals compare; the group of the goals has our other precisions too."""
_GOALS = ("dpad_fast", HAND)
_GOALS_MODELS = ("dpad_fast", "transformers float16")
# Of the time for turns: the rest is the other group's, which needs more for one turn.
_GOALS_SHARE = 0.65


@dataclass
class Entrant:
    """A contestant with what is known of it: columns of its row, and its turns.

    Attributes:
        entry: the contestant.
        group: with whom it takes turns.
        facts: columns by name.
        turns: those that count.
        failure: why it did not go on.
        first: the same contestant in the group of the goals, whose outputs and launches are this one's too.
    """

    entry: Entry
    group: str = GOALS
    facts: dict[str, Any] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    failure: str = ""
    first: Entrant | None = None

    @property
    def name(self) -> str:
        """For a line of text."""
        return f"{self.entry.name} ({self.entry.pictures})"

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


@dataclass(frozen=True)
class Course:
    """What all run on: the step that is compared and profiled, new captions for it, and its pictures in each form."""

    work: ways.Work
    fresh: Sequence[ways.Work]
    pictures: Pictures
    truths: dict[str, torch.Tensor]
    sample: int
    wait: Callable[[], Any]

    def given(self, one: Entrant) -> ways.Work:
        """The step with pictures as a contestant takes them."""
        return self.pictures.of(self.work, one.entry.pictures)


def course_of(args: argparse.Namespace, clip: Clip, device: torch.device) -> Course:
    """Makes the steps, and float32's decisions on the CPU."""
    make_work = work_of(args.tiny)
    work = make_work([ways.photograph(i) for i in range(args.queries)], args.queries * ways.GROUP, seed=0)
    fresh = [make_work(unique(work), len(work.texts), seed=1000 + turn) for turn in range(args.runs + 2)]
    pictures, plain = Pictures(work), ways.HandWritten(clip.model, clip.slow)
    # What JPEG shows are other pictures: its decisions are compared with those on the decoded ones.
    truths = {PIL: plain(work), JPEG: plain(decoded(pictures.of(work, JPEG)))}
    truths[KNOWN] = truths[PIL]
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    return Course(work, fresh, pictures, truths, args.sample, wait)


def race(args: argparse.Namespace, console: Console) -> int:
    """Compare, time in turns, profile, write; 1 where an exact one decided wrongly or a contestant failed."""
    device = torch.device(args.device)
    began, seconds = time.perf_counter(), args.seconds or float("inf")
    torch.set_num_threads(args.threads)
    console.print(f"{results.versions()}; {results.name_of(device)}")
    clip, only = Clip(*model_of(args.tiny)), tuple(args.only.split(","))
    course = course_of(args, clip, device)
    models = [(name, make) for name, make in entries(clip, device) if name.startswith(only)]
    later = [model for model in models if not model[0].startswith(_GOALS_MODELS)]
    found = enter((model for model in models if model not in later), course, console)
    entrants = [one for one in found if one.entry.name.startswith(_GOALS)]
    others = [one for one in found if not one.entry.name.startswith(_GOALS)]
    if entrants:
        take_turns(entrants, course, began + seconds * (_GOALS_SHARE if later or others else 1))
        keep(entrants, device, args.out)
        say_turns(entrants, console)
    others += enter(later, course, console)
    if others:
        others = [*again(entrants), *others]
        for one in others:
            one.group = OTHERS
        take_turns(others, course, began + seconds)
        entrants += others
        keep(entrants, device, args.out)  # what follows may end more than itself
    for one in entrants:
        one.attempt(lambda one=one: look_inside(one, course, device))
    for line in keep(entrants, device, args.out):
        said = "  ".join(f"{key} {value}" for key, value in line.items() if value != "" and key not in _SAME)
        console.print(said, soft_wrap=True)
    return verdict(entrants, console)


def names() -> list[str]:
    """Of all that `enter` can make; nothing is made for it."""
    nothing: Any = None
    return [name for name, _ in entries(nothing, nothing)]


Model = tuple[str, Callable[[], list[Entry]]]


def enter(models: Iterable[Model], course: Course, console: Console) -> list[Entrant]:
    """Makes the contestants and compares their outputs; a model that cannot be made is one that failed."""
    found = []
    for name, make in models:
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
    for one in found:
        one.attempt(lambda one=one: compare(one, course.given(one), course.truths[one.entry.pictures]))
    return found


def again(entrants: Iterable[Entrant]) -> list[Entrant]:
    """The guarded one for the other group, so that their times can be compared with its own there."""
    there = [one for one in entrants if one.entry.name == GUARDED and not one.failure]
    return [Entrant(one.entry, facts=dict(one.facts), first=one) for one in there]


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


def take_turns(entrants: Sequence[Entrant], course: Course, deadline: float) -> None:
    """Times all, in turns, on captions that are new in each; the first two turns are not counted."""
    for one in entrants:
        if isinstance(one.entry.way, Contestant):
            one.entry.way.stages.clear()
    for turn, fresh in enumerate(course.fresh):
        if turn > 2 and time.perf_counter() > deadline:
            break
        for one in beginning_with(entrants, turn):
            given = course.pictures.of(fresh, one.entry.pictures)
            part = given.part(course.sample) if one.entry.sample else given
            found = one.attempt(lambda way=one.entry.way, part=part: turn_of(way, part, course.wait))
            if turn > 1 and found is not None:
                one.turns.append(found.times(len(given.texts) / len(part.texts)))
    for one in entrants:
        if isinstance(one.entry.way, Contestant):
            note_stages(one)


def turn_of(way: Any, work: ways.Work, wait: Callable[[], Any]) -> Turn:
    """One call, from the moment at which the device is idle until it is idle again."""
    prepare(way, work)
    return measured(lambda: way(work), wait)


def note_stages(one: Entrant) -> None:
    """Medians of the seconds that a way has noted for each stage."""
    laps = one.entry.way.stages
    for stage in STAGES if laps else ():
        one.facts[f"{stage}_ms"] = f"{1e3 * statistics.median(lap.get(stage, 0.0) for lap in laps):.2f}"


def say_turns(entrants: Iterable[Entrant], console: Console) -> None:
    """Every turn of the group of the goals, and what these are about: guarded's time over the hand-written one's."""
    found = {(one.entry.name, one.entry.pictures): one.turns for one in entrants}
    for one in entrants:
        console.print(f"turns: {one.name}: {' '.join(map(str, one.turns))}", soft_wrap=True)
    for form in (PIL, JPEG, KNOWN):
        ours, theirs = found.get((GUARDED, form), []), found.get((HAND, form), [])
        compared = ratio(ours, theirs)
        if compared:
            low, middle, high = (f"{value:.2f}" for value in compared)
            collected = sum(turn.collections > 0 for turn in ours)
            said = f"{middle}, {low} to {high} in half of {len(ours)} turns; {collected} with a garbage collection"
            console.print(f"ratio: {GUARDED} of {HAND}, {form}: {said}", soft_wrap=True)


def look_inside(one: Entrant, course: Course, device: torch.device) -> None:
    """Notes stages, and on a GPU what one call asks of it.

    Ours says itself how long its stages took in the turns that were timed, on the host's clock. The hand-written ways
    make three more calls that wait for the device after each stage.
    """
    way, work = one.entry.way, course.given(one)
    if one.first is not None:
        one.facts |= {key: one.first.facts.get(key, "") for key in counted.COLUMNS}
        return
    if isinstance(way, Batched):
        way.stages.clear()
        way.wait = course.wait
        for _ in range(3):
            prepare(way, work)
            way(work)
        way.wait = lambda: None
        note_stages(one)
    if device.type == "cuda":
        # One at a time asks the same for each completion, and a profile of all would take longer than the race.
        part = work.part(2) if one.entry.sample else work
        prepare(way, part)
        one.facts |= counted.scaled(counted.profiled(lambda: way(part))[0], len(work.texts) // len(part.texts))


def row(one: Entrant, device: torch.device) -> dict[str, Any]:
    """One line of the result; a column is empty where it says nothing of a contestant."""
    return {
        "contestant": one.entry.name,
        "pictures": one.entry.pictures,
        "group": one.group,
        **columns(one.turns),
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
    bad = [one.name for one in entrants if one.entry.exact and one.facts.get("wrong") and one.first is None]
    failed = [f"{one.name}: {one.failure}" for one in entrants if one.failure]
    console.print(f"decisions that differ: {', '.join(bad)}" if bad else "decisions agree", soft_wrap=True)
    for line in failed:
        console.print(f"failed: {line}", soft_wrap=True)
    return 1 if bad or failed else 0


_FACTS = (
    "error", "delta_error", "wrong", "recomputed", "margin", *(f"{stage}_ms" for stage in STAGES), *counted.COLUMNS,
)  # fmt: skip
_SAME = ("device", "driver", "torch", "date", "note")
