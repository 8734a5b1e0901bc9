"""Measure predictions or a checkpoint: gIoU, cIoU, chain length, S1 against S2 and format rate, by named protocols.

Predictions are a JSONL or Parquet file of {"id": ..., "completion": ...} or {"id": ..., "mask": run lengths or path}, a
folder of ID.png, an NPZ file with an array per id, or the released evaluation's output. In a ReasonSeg folder, ids are
file names without their ending, with -0, -1, ... for pictures with several queries. With --policy a policy answers the
samples of --data first. A checkpoint is measured on held-out scenes of the shapes world, by sampling. Protocols and
formats: docs/evaluation.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpad_fast.commands import _data_source, _output, _policy, _side_file
from dpad_fast.terminal import say

if TYPE_CHECKING:
    from dpad_fast.evaluate.measure import Record

_OF_PREDICTIONS: dict[str, Any] = {
    "data": None,
    **dict.fromkeys(_data_source.OPTIONS),
    "format": "picture",
    "segmenter": "polygon",
    "protocol": "strict",
    "missing": "skip",
    "unknown": "error",
    "model_size": None,
    "processor": None,
    "resize": False,
    "tokenizer": "words",
    "compare": None,
    "workers": 1,
    "table": "text",
}
_OF_CHECKPOINTS: dict[str, Any] = {"seed": 9000}
_NO_DATA = "--data FOLDER is missing (or --shapes SCENES, for a checkpoint)"
# Every sample has an answer, and the lines say what it refers to.
_NOT_OF_POLICIES = ("missing", "unknown", "model_size", "processor", "resize")
_OF_POLICIES = {**_OF_PREDICTIONS, **_policy.DEFAULTS}
_NAMED = {"--shapes": "--shapes SCENES, for a checkpoint,"}
_KINDS = {"predictions": _OF_PREDICTIONS, "--shapes": _OF_CHECKPOINTS, "--policy": _OF_POLICIES}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options.

    Args:
        parser: the parser of `dpad-fast evaluate`.
    """
    parser.add_argument(
        "subject", nargs="?", help="predictions, or a checkpoint (shipped name or folder) with --shapes"
    )
    parser.add_argument("--predictions", metavar="FILE", help="the same, by name (- reads standard input)")
    parser.add_argument("--data", help="data that the predictions answer: a file or folder of any form")
    parser.add_argument(
        "--format",
        help="how answers are written: dpad, vlm-r1, qwen3-vl, ... (default: dpad's, in the picture's pixels)",
    )
    parser.add_argument("--model-size", metavar="WxH", help="pixels that answers refer to (default: the format's)")
    parser.add_argument("--processor", metavar="FOLDER", help="the processor that says what pixels answers refer to")
    parser.add_argument(
        "--segmenter",
        help="mask of an answer: polygon (its box without one), box, background, sam2[:FOLDER], MODULE:FUNCTION",
    )
    parser.add_argument("--protocol", help="strict, lisa, released, lens, ..., or all side by side (default: strict)")
    parser.add_argument(
        "--missing",
        choices=["count-zero", "skip"],
        help="samples of --data without a prediction: counted as 0, or left out and named (default: skip)",
    )
    parser.add_argument("--unknown", choices=["error", "skip"], help="ids that --data has not (default: error)")
    parser.add_argument("--resize", action="store_const", const=True, help="bring masks to the truth's size")
    parser.add_argument("--tokenizer", help="of chain length: words, open_clip, NAME or FOLDER (default: words)")
    parser.add_argument(
        "--compare", metavar="FILE", help="other predictions, or a JSON of evaluate: paired differences"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: 1)")
    parser.add_argument("--table", choices=["text", "markdown", "latex"], help="how tables are printed (default: text)")
    parser.add_argument("--shapes", type=int, metavar="SCENES", help="sample the checkpoint on so many held-out scenes")
    parser.add_argument("--seed", type=int, help="of sampling; with --shapes, of their world (default: 9000)")
    _data_source.add_arguments(parser, "of --data")
    _policy.add_arguments(parser)
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
    notes: tuple[str, ...]


def run(args: argparse.Namespace) -> int:
    """Measure and print a table.

    Args:
        args: the parsed arguments.

    Returns:
        The exit status.
    """
    _settle(args)
    _side_file.spare(
        {"--json": args.json, "--completions": args.completions}, [args.predictions, args.data, args.compare]
    )
    _output.prepare(args.json, args.completions)
    if args.policy is not None:
        return _policy.run(args)
    if args.shapes is None:
        from dpad_fast.commands import _ruler

        return _ruler.run(args) if args.data is not None else _ruler.run_stored(args)
    measured = _checkpoint(args)
    from dpad_fast.evaluate.measure import METRICS, summarise, to_rows
    from dpad_fast.evaluate.metrics import plain
    from dpad_fast.evaluate.tables import Table, shown

    found = summarise(measured.records)
    rows = tuple((METRICS[key].label, shown(key, value)) for key, value in found.items())
    table = Table(args.predictions, ("metric", "value"), rows, measured.notes)
    say(table.text(), quiet=args.quiet or args.json == _output.STDOUT)
    content: dict[str, Any] = {
        "n": measured.samples,
        "missing": 0,
        "format_rate": found["format"].value,
        "metrics": plain(found),
        "notes": list(measured.notes),
        "records": to_rows(measured.records),
    }
    _output.write_json(args.json, content, args.quiet)
    return 0


def _settle(args: argparse.Namespace) -> None:
    """Fill in defaults; an option that the chosen kind of subject does not look at is refused."""
    kind = "predictions" if args.shapes is None else "--shapes"
    if args.policy is not None:
        if args.shapes is not None or args.subject is not None or args.predictions is not None:
            other = "--shapes" if args.shapes is not None else "predictions"
            raise ValueError(f"--policy is given and {other}, too; give one")
        kind = "--policy"
    elif (args.subject is None) == (args.predictions is None):
        missing = "--predictions FILE is missing (or --policy NAME_OR_FOLDER)"
        raise ValueError(missing if args.subject is None else "two predictions are named")
    args.predictions = args.predictions if args.subject is None else args.subject
    _refuse_others(args, kind)
    if kind == "predictions" and args.data is None:
        _refuse_measuring(args)
    for name, default in _KINDS[kind].items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    if kind == "--policy" and args.data is None:
        raise ValueError(_NO_DATA)
    if args.shapes is not None and not 1 <= args.shapes <= 1_000_000:
        raise ValueError(f"--shapes must be at least 1 and at most 1,000,000, got {args.shapes}")
    if args.seed is not None and not 0 <= args.seed < 1 << 63:
        raise ValueError(f"--seed must be at least 0 and below 2^63, got {args.seed}")


def _refuse_others(args: argparse.Namespace, kind: str) -> None:
    known = {name: set(options) for name, options in _KINDS.items()}
    known["--policy"] -= set(_NOT_OF_POLICIES)
    for name in sorted({name for options in known.values() for name in options} - known[kind]):
        if getattr(args, name) is not None:
            kinds = [_NAMED.get(other, other) for other, options in known.items() if name in options]
            raise ValueError(f"--{name.replace('_', '-')} goes with {' or '.join(kinds)}, not with {kind}")


def _refuse_measuring(args: argparse.Namespace) -> None:
    """Without data only areas can be summed, as the released evaluation writes them without completions."""
    from dpad_fast.evaluate.predictions import stored

    if stored(args.predictions) is None:
        raise ValueError(_NO_DATA)
    for name in (*_OF_PREDICTIONS, "encoder"):
        if name != "table" and getattr(args, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} needs --data: {args.predictions} holds areas, which are summed as they are")


def _checkpoint(args: argparse.Namespace) -> _Measured:
    from dpad_fast.evaluate.policies import evaluate_policy, judge
    from dpad_fast.train.config import DataConfig, EvaluationConfig, TrainConfig
    from dpad_fast.train.run import make_encoder

    if args.seed == DataConfig().seed:
        raise ValueError(f"--seed {args.seed} is the world that policies are trained on; give another")
    evaluation = EvaluationConfig(scenes=args.shapes, seed=args.seed)
    config = TrainConfig(policy=args.predictions, encoder=args.encoder or "clip", evaluation=evaluation)
    records = evaluate_policy(config.policy, judge(make_encoder(config)), config)
    notes = (
        f"{len(records)} completions of {args.shapes} samples; ± is the bootstrap standard error.",
        "Chain length is in tokens of the policy. Masks: what is not background in the box.",
    )
    return _Measured(records, args.shapes, notes)
