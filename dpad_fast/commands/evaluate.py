"""Measure predictions or a checkpoint: gIoU, cIoU, chain length, S1 against S2 and format rate.

Predictions are a JSONL of {"id": ..., "completion": ...} against a ReasonSeg folder; ids are file names without their
ending, with -0, -1, ... for pictures with several queries. A checkpoint is measured on held-out scenes of the shapes
world, by sampling. An answer that cannot be read counts 0, with the target's area in the union. Ignored pixels are left
out of both sides (LISA's evaluation), or counted as target with --ignore target (the released conversion of the data).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpad_fast.evaluate.measure import Record
    from dpad_fast.types import Sample


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options.

    Args:
        parser: the parser of `dpad-fast evaluate`.
    """
    parser.add_argument(
        "subject", help="a JSONL of predictions, or a checkpoint (shipped name or folder) with --shapes"
    )
    parser.add_argument("--data", type=Path, help="ReasonSeg folder that the predictions answer")
    parser.add_argument("--shapes", type=int, metavar="SCENES", help="sample the checkpoint on so many held-out scenes")
    parser.add_argument("--seed", type=int, default=9000, help="world of the held-out scenes (default: %(default)s)")
    parser.add_argument(
        "--mask",
        choices=["box", "polygon"],
        default="polygon",
        help="mask of a prediction: its polygon where it has one, or always its box (default: %(default)s)",
    )
    parser.add_argument(
        "--ignore", choices=["drop", "target"], default="drop", help="what ignored pixels are (default: %(default)s)"
    )
    parser.add_argument(
        "--encoder", help="CLIP for S1 and S2 (shipped name, folder or hub name); with --data none by default"
    )
    parser.add_argument("--json", type=Path, help="also write metrics and one record per completion here")


def _samples(folder: Path) -> dict[str, Sample]:
    from dpad_fast.data import reasonseg

    return {item.id: item for item in reasonseg.load(folder)}


def _lines(path: Path, known: Mapping[str, Sample]) -> tuple[list[str], list[Sample]]:
    """The completions and the samples that they answer."""
    texts, items = [], []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} line {number}: not valid JSON: {error}") from error
        for key in ("id", "completion"):
            if not isinstance(row, dict) or not isinstance(row.get(key), str):
                raise ValueError(f"{path} line {number}: needs a text {key!r:.80}")
        if row["id"] not in known:
            raise ValueError(f"{path} line {number}: id {row['id']!r:.80} is not in the data folder")
        texts.append(row["completion"])
        items.append(known[row["id"]])
    if not texts:
        raise ValueError(f"{path} holds no predictions")
    return texts, items


def _predictions(args: argparse.Namespace) -> list[Record]:
    from dataclasses import replace

    from dpad_fast.clip import load_encoder
    from dpad_fast.evaluate.measure import measure
    from dpad_fast.evaluate.segment import SEGMENTERS
    from dpad_fast.rewards import RewardConfig, RewardScorer
    from dpad_fast.train.policy import checkpoint

    if args.data is None:
        raise ValueError("--data FOLDER is missing (or --shapes SCENES, for a checkpoint)")
    path = Path(args.subject)
    if not path.is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    texts, items = _lines(path, _samples(args.data))
    config = RewardConfig.preset("dpad")
    encoder = None
    if args.encoder is None:
        config = replace(config, terms=("think_format", "answer_format"))
    else:
        try:
            name = str(checkpoint(args.encoder))
        except ValueError:
            name = args.encoder
        encoder = load_encoder(name)
    scorer = RewardScorer(config, encoder=encoder)
    return measure(texts, items, scorer, lambda text: len(text.split()), SEGMENTERS[args.mask], args.ignore)


def _checkpoint(args: argparse.Namespace) -> list[Record]:
    from dpad_fast.evaluate.experiment import evaluate_policy, judge
    from dpad_fast.train.config import EvaluationConfig, TrainConfig
    from dpad_fast.train.run import make_encoder

    if args.shapes < 1:
        raise ValueError(f"--shapes must be at least 1, got {args.shapes}")
    evaluation = EvaluationConfig(scenes=args.shapes, seed=args.seed)
    config = TrainConfig(policy=args.subject, encoder=args.encoder or "clip", evaluation=evaluation)
    return evaluate_policy(config.policy, judge(make_encoder(config)), config)


def run(args: argparse.Namespace) -> int:
    """Measure and print a table.

    Args:
        args: the parsed arguments.

    Returns:
        The exit status.
    """
    of_checkpoint = args.shapes is not None
    records = _checkpoint(args) if of_checkpoint else _predictions(args)
    from dpad_fast.evaluate.experiment import plain
    from dpad_fast.evaluate.measure import METRICS, summarise, to_rows
    from dpad_fast.evaluate.tables import Table, shown

    found = summarise(records)
    if not of_checkpoint and args.encoder is None:
        del found["s1_wins"]
    units = "tokens of the policy" if of_checkpoint else "words"
    notes = [
        f"{len(records)} completions of {len({r.id for r in records})} samples; ± is the bootstrap standard error.",
        f"Chain length is in {units}. Masks: "
        + (
            "what is not background in the box."
            if of_checkpoint
            else f"from the {args.mask}. Ignored pixels: {args.ignore}."
        ),
    ]
    rows = tuple((METRICS[key].label, shown(key, value)) for key, value in found.items())
    print(Table(args.subject, ("metric", "value"), rows, tuple(notes)).text())
    if args.json is not None:
        content: dict[str, Any] = {"metrics": plain(found), "records": to_rows(records)}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(content, indent=1))
        print(f"wrote {args.json}")
    return 0
