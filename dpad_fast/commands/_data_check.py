"""`dpad-fast data check`: a report on a data set, or on the coordinates of a model's answers."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpad_fast.commands import _output, _predictions
from dpad_fast.commands._data_source import samples_of
from dpad_fast.data import check as checks
from dpad_fast.data.findings import Findings
from dpad_fast.data.resize import Sizing
from dpad_fast.hub import only_local
from dpad_fast.terminal import say
from dpad_fast.types import Box, Sample, Size

_NUMBER = r"\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*"
_BOX = re.compile(r'"bbox(?:_2d)?"\s*:\s*\[' + ",".join([_NUMBER] * 4) + r"\]")


def run(args: argparse.Namespace) -> int:
    """Check; exit status 1 where there is an error."""
    _output.prepare(args.json)
    _output.spare({"--json": args.json}, [args.source, args.completions])
    report = _check_completions(args) if args.completions is not None else _check_data(args)
    if args.json != _output.STDOUT:
        say(report.text(), quiet=args.quiet)
    _output.write_json(args.json, report.to_dict(), args.quiet)
    return 1 if report.errors else 0


def _check_data(args: argparse.Namespace) -> checks.Report:
    for name in ("model_size", "processor"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} goes with --completions")
    unread: list[str] = []
    against = None
    if args.against is not None:
        from dpad_fast.data import forms

        against = checks.picture_digests(forms.load(args.against, on_error=lambda message: None))
    samples = samples_of(args, args.source, unread.append)
    resized = _size_of(args.size, "--size")
    report = checks.check(samples, unread=unread, against=against, words=args.words or checks.WORDS, resized=resized)
    if not report.rows:
        raise ValueError(f"{args.source} holds no row")
    return report


def _size_of(text: str | None, option: str) -> Size | None:
    if text is None:
        return None
    size = Sizing.parse(text).size
    if size is None:
        raise ValueError(f"{option} must be WIDTHxHEIGHT here, got {text!r:.80}")
    return size


def _check_completions(args: argparse.Namespace) -> checks.Report:
    """The answers' boxes against the truth of their samples; nothing else of the data is looked at."""
    for name in ("against", "words"):
        if getattr(args, name) is not None:
            raise ValueError(f"--{name} does not go with --completions")
    if sum(value is not None for value in (args.size, args.model_size, args.processor)) > 1:
        raise ValueError("only one of --size, --model-size and --processor says what size the model saw")
    given = "--model-size" if args.size is None else "--size"
    fixed = _size_of(args.model_size if args.size is None else args.size, given)
    answers = {row.id: row for row in _predictions.read(args.completions)}
    found = Findings()
    found.declare("no-box", "warning", "answers hold no box", 'a "bbox" or "bbox_2d" of four numbers is looked for')
    found.declare("no-sample", "error", "answers are to no sample of the data", "is it the right data and split?")
    boxes: list[tuple[float, ...]] = []
    sizes: list[Size] = []
    truths: list[Box | None] = []
    for sample in _answered(args, answers):
        row = answers.pop(sample.id)
        box, size = _box_in(row.text), checks.size_of(sample)
        if box is None:
            found.add("no-box", f"{row.place}: id {row.id}")
        else:
            boxes.append(box)
            sizes.append(size)
            truths.append(_truth(sample))
    for row in answers.values():
        found.add("no-sample", f"{row.place}: id {row.id}")
    resized = [fixed] * len(sizes) if fixed else _model_sizes(args.processor, sizes)
    verdict = checks.coordinate_space(boxes, sizes, truths, resized=resized) if boxes else None
    if verdict is not None:
        _advise(verdict, found, args)
    return checks.Report(len(boxes), found.problems(), verdict)


def _answered(args: argparse.Namespace, answers: dict[str, Any]) -> Iterator[Sample]:
    for sample in samples_of(args, args.source, lambda message: None):
        if sample.id in answers:
            yield sample


def _truth(sample: Sample) -> Box | None:
    if sample.target.box is not None:
        return sample.target.box
    return checks.truth_box(sample.target)


def _box_in(text: str) -> tuple[float, ...] | None:
    """The first box of an answer, whatever else is wrong with it."""
    match = _BOX.search(text)
    if match is None:
        return None
    box = tuple(map(float, match.groups()))
    return box if all(map(math.isfinite, box)) else None


def _model_sizes(processor: str | None, sizes: list[Size]) -> list[Size | None]:
    """The sizes that the model saw, by its processor's rule, or by Qwen2.5-VL's where no processor is named."""
    if processor is None:
        from dpad_fast.model_size import WholePatches

        rule: Any = WholePatches().resized
    else:
        from dpad_fast.model_size import model_size_for

        settings = _settings_of(processor)

        def rule(size: Size) -> Size | None:
            return model_size_for(size, settings)

    known: dict[Size, Size | None] = {}
    for size in set(sizes):
        try:
            known[size] = rule(size)
        except ValueError:
            if processor is not None:
                raise
            known[size] = None  # thinner than Qwen2.5-VL takes
    return [known[size] for size in sizes]


def _settings_of(name: str) -> Any:
    """What the processor in a folder, or on a hub, was saved with."""
    files = ("preprocessor_config.json", "processor_config.json")
    try:
        local = only_local(name, (), files)
        if Path(name).is_dir():
            found = next((place for file in files if (place := Path(name) / file).is_file()), None)
            if found is None:
                raise ValueError(f"the folder holds neither {' nor '.join(files)}")
        else:
            from huggingface_hub import hf_hub_download

            found = Path(hf_hub_download(name, files[0], local_files_only=local))
        return json.loads(found.read_bytes())
    except (ValueError, OSError) as error:
        raise ValueError(f"--processor {name}: {error}") from None


def _advise(verdict: checks.Verdict, found: Findings, args: argparse.Namespace) -> None:
    """Say what the configuration has to say about such answers."""
    if verdict.space is None or verdict.sure != "sure":
        found.add("unknown-space", verdict.why)
        return
    ways = {
        "original": "coordinates: pixel, and no model size",
        "resized": "coordinates: pixel, with the processor (or model sizes) that resized the pictures",
        "0-1000": "coordinates: norm1000",
        "0-1": "coordinates: norm1",
    }
    way = "; or ".join(ways[space] for space in verdict.same)
    if verdict.order != "xyxy":
        found.declare(
            "order", "error", f"answers give boxes as {verdict.order}", "ask for x1, y1, x2, y2 in the prompt: rewards "
            "read corners",
        )  # fmt: skip
        found.add("order", verdict.why, verdict.rows)
    found.declare("space", "note", f"answers are in the space {' or '.join(verdict.same)}", f"score them with {way}")
    found.add("space", verdict.why, verdict.rows)
