"""Score a JSONL of completions against a data folder: every term, the similarities and the reason, per completion."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpad_fast import files
from dpad_fast.commands import _encoder, _output, _predictions, _reward
from dpad_fast.terminal import printable, say

if TYPE_CHECKING:
    from dpad_fast.rewards import RewardConfig
    from dpad_fast.types import ScoreBatch

DEFAULT_ENCODER = "openai/clip-vit-base-patch32"
_ENCODER_OPTIONS = {
    "encoder": DEFAULT_ENCODER,
    "backend": "transformers",
    "precision": "guarded",
    "device": "cpu",
    "cache": None,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `dpad-fast score`.

    Args:
        parser: the parser of the command.
    """
    parser.add_argument(
        "completions",
        help='JSONL, one {"id": sample id, "completion": text} a line, in pixels of the picture; - reads stdin',
    )
    parser.add_argument("--data", required=True, help="a folder in ReasonSeg's format")
    parser.add_argument("--out", help="write JSONL here instead of a table; - writes to stdout")
    _reward.add_arguments(parser)
    parser.add_argument("--encoder", help=f"a name or folder ({DEFAULT_ENCODER}), or 'shapes', which is built in")
    parser.add_argument("--backend", help="transformers (default) or open_clip")
    parser.add_argument("--precision", help="guarded (default), float32 or bfloat16")
    parser.add_argument("--device", help="where the encoder runs (cpu)")
    parser.add_argument("--cache", help="a folder that keeps the embeddings of images (see dpad-fast data embed)")
    _output.add_json(parser, "the means and the counts of reasons")
    _output.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Scores and prints or writes.

    Args:
        args: the parsed arguments.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: a bad file, setting or encoder; says which.
        OSError: a file cannot be read or written.
    """
    import dpad_fast as df

    config = _reward.config(args)
    _output.spare({"--out": args.out, "--json": args.json}, [args.completions, args.config, args.data])
    _output.prepare(args.out, args.json)
    lines = _predictions.read(args.completions)
    if args.out is not None:
        _predictions.check_plain(lines)
    samples = _predictions.match(lines, args.data)
    encoder = _load_encoder(args, config, samples)
    scorer = df.RewardScorer(config, encoder)
    batch = scorer.score(
        [line.text for line in lines],
        [sample.target for sample in samples],
        [sample.image for sample in samples],
        image_keys=[str(sample.image) if isinstance(sample.image, str | Path) else None for sample in samples],
        # Answers in a file are in pixels of the folder's pictures, unless the configuration says otherwise.
        model_sizes=None if config.model_size is not None else [sample.target.image_size for sample in samples],
    )
    summary = _summary(batch, config)
    if args.out is not None:
        _write(args, lines, batch)
    elif not args.quiet and args.json != _output.STDOUT:
        _print_table([line.id for line in lines], batch, config, summary)
    _output.write_json(args.json, summary, args.quiet or args.out == _output.STDOUT)
    return 0


def _load_encoder(args: argparse.Namespace, config: RewardConfig, samples: list[Any]) -> Any:
    """The encoder that the configuration needs, or None."""
    given = {name: getattr(args, name) for name in _ENCODER_OPTIONS if getattr(args, name) is not None}
    if not config.needs_encoder:
        if given:
            names = ", ".join(f"--{name}" for name in given)
            note = f"note: {names} not used: no term of {config.name} compares with CLIP"
            say(note, quiet=args.quiet, file=sys.stderr)
        return None
    from dpad_fast.clip import EmbeddingCache

    settings = {**_ENCODER_OPTIONS, **given}
    folder = settings.pop("cache")
    settings["cache"] = None if folder is None else EmbeddingCache(folder=folder)
    return _encoder.load(settings.pop("encoder") or "", samples, quiet=args.quiet, **settings)


def _summary(batch: ScoreBatch, config: RewardConfig) -> dict[str, Any]:
    """Means over the completions, of the similarities over those that have one, and how often each reason came."""
    rows = list(batch.rows())

    def mean(values: list[float]) -> float | None:
        values = [value for value in values if math.isfinite(value)]
        return sum(values) / len(values) if values else None

    similar = {name: [r["similarity"][name] for r in rows] for name in batch.similarity}
    return {
        "n": len(rows),
        "preset": config.name,
        "total": mean([row["total"] for row in rows]),
        "terms": {name: mean([row["terms"][name] for row in rows]) for name in config.terms},
        "similarity": {name: mean([v for v in column if v is not None]) for name, column in similar.items()},
        "reasons": dict(Counter(reason for reason in batch.reasons if reason is not None).most_common()),
    }


def _write(args: argparse.Namespace, lines: list[_predictions.Prediction], batch: ScoreBatch) -> None:
    rows = zip(lines, batch.rows(), strict=True)
    text = "".join(json.dumps({**line.values, **scores}, allow_nan=False) + "\n" for line, scores in rows)
    if args.out == _output.STDOUT:
        sys.stdout.write(text)
        return
    files.write_text(args.out, text)
    say(f"{len(lines)} scores written to {args.out}", quiet=args.quiet or args.json == _output.STDOUT)


def _print_table(ids: list[str], batch: ScoreBatch, config: RewardConfig, summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(printable(f"preset {config.name}")))
    table.add_column("id", overflow="fold")
    shown = {"think_format": "think", "answer_format": "answer", "discriminative": "dpad"}
    similar = ("roi", "aoi") if config.needs_encoder else ()
    for name in (*(shown.get(term, term) for term in config.terms), *({"roi": "S1", "aoi": "S2"}[n] for n in similar)):
        table.add_column(name, justify="right")
    table.add_column("total", justify="right")
    table.add_column("reason")
    for name, scores in zip(ids, batch.rows(), strict=True):
        numbers = [_number(scores["terms"][term]) for term in config.terms]
        numbers += ["" if scores["similarity"][n] is None else f"{scores['similarity'][n]:.4f}" for n in similar]
        # Text, so that square brackets in an id are not read as markup.
        table.add_row(Text(printable(name)), *numbers, _number(scores["total"]), scores["reason"] or "")
    table.add_section()
    means = [_number(summary["terms"][term]) for term in config.terms]
    means += ["" if summary["similarity"][n] is None else f"{summary['similarity'][n]:.4f}" for n in similar]
    counted = f"{sum(summary['reasons'].values())} with a reason"
    table.add_row(f"mean of {summary['n']}", *means, _number(summary["total"]), counted)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:.0f}" if value == int(value) else f"{value:.3f}"
