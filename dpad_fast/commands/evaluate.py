"""Measure predictions or a checkpoint: gIoU, cIoU, chain length, S1 against S2 and format rate.

Predictions are a JSONL of {"id": ..., "completion": ...} against a ReasonSeg folder; ids are file names without their
ending, with -0, -1, ... for pictures with several queries. A checkpoint is measured on held-out scenes of the shapes
world, by sampling. An answer that cannot be read counts 0, with the target's area in the union. Ignored pixels are left
out of both sides (LISA's evaluation), or counted as target with --ignore target (the released conversion of the data).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dpad_fast.commands import _output
from dpad_fast.terminal import say

if TYPE_CHECKING:
    from dpad_fast.evaluate.measure import Record

_OF_PREDICTIONS = {"data": None, "mask": "polygon", "ignore": "drop", "missing": "skip"}
_OF_CHECKPOINTS = {"seed": 9000}
_AT_ONCE = 64  # samples that nobody answered whose masks are held in memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options.

    Args:
        parser: the parser of `dpad-fast evaluate`.
    """
    parser.add_argument(
        "subject",
        help="a JSONL of predictions (- reads standard input), or a checkpoint (shipped name or folder) with --shapes",
    )
    parser.add_argument("--data", help="ReasonSeg folder that the predictions answer")
    parser.add_argument("--shapes", type=int, metavar="SCENES", help="sample the checkpoint on so many held-out scenes")
    parser.add_argument("--seed", type=int, help="with --shapes: world of the held-out scenes (default: 9000)")
    parser.add_argument(
        "--mask",
        choices=["box", "polygon"],
        help="mask of a prediction: its polygon where it has one, or always its box (default: polygon)",
    )
    parser.add_argument("--ignore", choices=["drop", "target"], help="what ignored pixels are (default: drop)")
    parser.add_argument(
        "--missing",
        choices=["count-zero", "skip"],
        help="samples of --data without a prediction: counted as 0, or left out and named (default: skip)",
    )
    parser.add_argument(
        "--encoder", help="CLIP for S1 and S2 (shipped name, folder or hub name); with --data none by default"
    )
    _output.add_json(parser, "metrics and one record per completion")
    _output.add_quiet(parser)


@dataclass(frozen=True)
class _Measured:
    """What was measured, and what to say about it."""

    records: list[Record]
    samples: int
    missing: int
    with_s1: bool
    notes: tuple[str, ...]


def run(args: argparse.Namespace) -> int:
    """Measure and print a table.

    Args:
        args: the parsed arguments.

    Returns:
        The exit status.
    """
    _settle(args)
    _output.spare({"--json": args.json}, [args.subject, args.data])
    _output.prepare(args.json)
    measured = _predictions(args) if args.shapes is None else _checkpoint(args)
    from dpad_fast.evaluate.measure import METRICS, summarise, to_rows
    from dpad_fast.evaluate.metrics import plain
    from dpad_fast.evaluate.tables import Table, shown

    found = summarise(measured.records)
    if not measured.with_s1:
        del found["s1_wins"]
    rows = tuple((METRICS[key].label, shown(key, value)) for key, value in found.items())
    table = Table(args.subject, ("metric", "value"), rows, measured.notes)
    say(table.text(), quiet=args.quiet or args.json == _output.STDOUT)
    content: dict[str, Any] = {
        "n": measured.samples,
        "missing": measured.missing,
        "format_rate": found["format"].value,
        "metrics": plain(found),
        "notes": list(measured.notes),
        "records": to_rows(measured.records),
    }
    _output.write_json(args.json, content, args.quiet)
    return 0


def _settle(args: argparse.Namespace) -> None:
    """Fill in defaults; an option that the chosen kind of subject does not look at is refused."""
    mine, other = (_OF_PREDICTIONS, _OF_CHECKPOINTS) if args.shapes is None else (_OF_CHECKPOINTS, _OF_PREDICTIONS)
    for name in other:
        if getattr(args, name) is not None:
            raise ValueError(
                f"--{name} goes with {'--shapes SCENES, for a checkpoint' if args.shapes is None else 'predictions'}, "
                f"not with {'predictions' if args.shapes is None else '--shapes'}"
            )
    for name, default in mine.items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    if args.shapes is None and args.data is None:
        raise ValueError("--data FOLDER is missing (or --shapes SCENES, for a checkpoint)")
    if args.shapes is not None and not 1 <= args.shapes <= 1_000_000:
        raise ValueError(f"--shapes must be at least 1 and at most 1,000,000, got {args.shapes}")
    if args.seed is not None and not 0 <= args.seed < 1 << 63:
        raise ValueError(f"--seed must be at least 0 and below 2^63, got {args.seed}")


def _predictions(args: argparse.Namespace) -> _Measured:
    from dpad_fast.commands import _encoder, _predictions
    from dpad_fast.evaluate.measure import measure, measure_by_geometry
    from dpad_fast.evaluate.segment import from_box
    from dpad_fast.rewards import RewardConfig, RewardScorer

    lines = _predictions.read(args.subject)
    items = _predictions.match(lines, args.data)
    config = RewardConfig.preset("dpad")
    encoder = None
    if args.encoder is None:
        config = replace(config, terms=("think_format", "answer_format"))
    else:
        encoder = _encoder.load(args.encoder, items, quiet=args.quiet)
    scorer = RewardScorer(config, encoder=encoder)
    texts = [line.text for line in lines]
    if args.mask == "box":
        records = measure(texts, items, scorer, _words, from_box, args.ignore)
    else:
        records = measure_by_geometry(texts, items, scorer, _words, args.ignore)
    answered = {item.id for item in items}
    absent, uncovered = _absent(args, answered)
    notes = (
        f"{len(lines)} completions of {len(answered)} samples; ± is the bootstrap standard error.",
        *uncovered,
        f"Chain length is in words. Masks: from the {args.mask}. Ignored pixels: {args.ignore}.",
    )
    samples = len(answered) + (len(absent) if args.missing == "count-zero" else 0)
    return _Measured([*records, *_zeros(args, absent)], samples, len(absent), encoder is not None, notes)


def _words(text: str) -> int:
    return len(text.split())


def _absent(args: argparse.Namespace, answered: set[str]) -> tuple[list[str], tuple[str, ...]]:
    """The ids that nobody answered, and the notes on them."""
    from dpad_fast.data import reasonseg

    known, broken = reasonseg.list_ids(args.data)
    if broken and args.missing == "count-zero":
        raise ValueError(broken[0])
    absent = [name for name in known if name not in answered]
    notes = []
    if absent:
        done = "count as 0" if args.missing == "count-zero" else "are left out (--missing count-zero counts them as 0)"
        notes.append(f"{len(absent)} of {len(absent) + len(answered)} samples have no prediction and {done}.")
    if broken:
        notes.append(f"{len(broken)} files of the data cannot be read and are not among them, the first: {broken[0]}")
    return absent, tuple(notes)


def _zeros(args: argparse.Namespace, absent: list[str]) -> list[Record]:
    from dpad_fast.data import reasonseg
    from dpad_fast.evaluate.measure import missing_record

    if args.missing == "skip":
        return []
    parts = [absent[first : first + _AT_ONCE] for first in range(0, len(absent), _AT_ONCE)]
    found = (item for part in parts for item in reasonseg.find(args.data, part).values())
    return [missing_record(item, args.ignore) for item in found]


def _checkpoint(args: argparse.Namespace) -> _Measured:
    from dpad_fast.evaluate.policies import evaluate_policy, judge
    from dpad_fast.train.config import DataConfig, EvaluationConfig, TrainConfig
    from dpad_fast.train.run import make_encoder

    if args.seed == DataConfig().seed:
        raise ValueError(f"--seed {args.seed} is the world that policies are trained on; give another")
    evaluation = EvaluationConfig(scenes=args.shapes, seed=args.seed)
    config = TrainConfig(policy=args.subject, encoder=args.encoder or "clip", evaluation=evaluation)
    records = evaluate_policy(config.policy, judge(make_encoder(config)), config)
    notes = (
        f"{len(records)} completions of {args.shapes} samples; ± is the bootstrap standard error.",
        "Chain length is in tokens of the policy. Masks: what is not background in the box.",
    )
    return _Measured(records, args.shapes, 0, True, notes)
