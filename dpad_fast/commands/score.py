"""Score completions against data of any form: every term, the similarities and the reason, per completion.

The completions are a JSONL or Parquet file of {"id", "completion"}; with `--out` their rows are written again, in their
order, with the scores beside them. Large files: docs/scale.md.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from dpad_fast import files
from dpad_fast.commands import _data_source, _encoder, _output, _reward, _side_file
from dpad_fast.terminal import printable, say

if TYPE_CHECKING:
    from dpad_fast.evaluate.predictions import Predictions
    from dpad_fast.evaluate.score_rows import Row
    from dpad_fast.evaluate.scoring import Scoring
    from dpad_fast.rewards import RewardConfig

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
        help='JSONL, one {"id": sample id, "completion": text} a line, in pixels of the picture, or Parquet of such '
        "columns; - reads JSONL from stdin",
    )
    parser.add_argument("--data", required=True, help="data that the completions answer: a file or folder of any form")
    parser.add_argument("--out", help="write JSONL (FILE.parquet: Parquet) here instead of a table; - writes to stdout")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    _data_source.add_arguments(parser, "of --data")
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
    config = _reward.config(args)
    _side_file.check_workers(args.workers)
    _side_file.spare({"--out": args.out, "--json": args.json}, [args.completions, args.config, args.data])
    _output.prepare(args.out, args.json)
    from dpad_fast.evaluate import score_rows
    from dpad_fast.evaluate.predictions import Predictions
    from dpad_fast.evaluate.scoring import ScoresByLine, Tally

    with contextlib.ExitStack() as held:
        predictions = held.enter_context(contextlib.closing(Predictions(args.completions)))
        if predictions.first_mask is not None:
            raise ValueError(f'{predictions.first_mask} must be {{"id": text, "completion": text}}')
        if args.out is not None and not _is_parquet(args.out):
            score_rows.check_plain(predictions)
        scoring = _scoring(args, config, held)
        side = held.enter_context(_scored(args, predictions, scoring))
        scores, tally = ScoresByLine(side), Tally(config)
        rows = _tallied(score_rows.with_scores(predictions, scores.get), tally)
        if args.out is not None:
            _write(args, predictions, rows, config)
        else:
            shown = not args.quiet and args.json != _output.STDOUT
            kept = [(str(values["id"]), found) for values, found in rows if shown]  # the tally wants every row
            if shown:
                _print_table(kept, config, tally.summary())
    _output.write_json(args.json, tally.summary(), args.quiet or args.out == _output.STDOUT)
    return 0


def _tallied(rows: Iterable[Row], tally: Any) -> Iterator[Row]:
    for values, scores in rows:
        tally.add(scores)
        yield values, scores


def _is_parquet(path: str) -> bool:
    return path.endswith(".parquet")


def _scoring(args: argparse.Namespace, config: RewardConfig, held: contextlib.ExitStack) -> Scoring:
    """How to score, with the encoder that the configuration needs, or none."""
    from dpad_fast.evaluate.scoring import Scoring

    given = {name: getattr(args, name) for name in _ENCODER_OPTIONS if getattr(args, name) is not None}
    if not config.needs_encoder:
        if given:
            names = ", ".join(f"--{name}" for name in given)
            note = f"note: {names} not used: no term of {config.name} compares with CLIP"
            say(note, quiet=args.quiet, file=sys.stderr)
        return Scoring(config)
    settings = {**_ENCODER_OPTIONS, **given}
    cache, encoder = settings.pop("cache"), settings.pop("encoder")
    if cache is None and args.workers > 1:  # what one process has embedded, no other embeds again
        cache = held.enter_context(tempfile.TemporaryDirectory())
    return Scoring(config, encoder, settings, cache)


@contextlib.contextmanager
def _scored(args: argparse.Namespace, predictions: Predictions, scoring: Scoring) -> Iterator[Any]:
    """The side file with the scores of all lines."""
    from dpad_fast.evaluate import chunks
    from dpad_fast.evaluate.predictions import Coverage, items

    met = items(
        predictions,
        _data_source.source_of(args, args.data),
        zero_missing=False,
        skip_unknown=args.limit is not None,
        met=Coverage(),
        points=True,
    )
    asked = {
        "config": scoring.config.to_dict(),
        "encoder": [scoring.encoder, dict(scoring.settings)],
        "encoder_files": None if scoring.encoder is None else _side_file.digest(scoring.encoder),
        "data": _side_file.state_of(args),
        "completions": _side_file.digest(args.completions, predictions.held),
    }
    with _side_file.beside(args.out) as path:
        side, written = chunks.open_side(path, asked)
        with side:
            if written:
                say(f"going on after {written} chunks of {path}", quiet=args.quiet, file=sys.stderr)
            if scoring.encoder is not None:
                met = _encoder.warned(scoring.encoder, met, quiet=args.quiet)
            chunks.measure_into(side, chunks.chunked(met), scoring.make, args.workers, written)
            yield side


def _write(args: argparse.Namespace, predictions: Predictions, rows: Iterable[Row], config: RewardConfig) -> None:
    from dpad_fast.evaluate import score_rows

    if args.out == _output.STDOUT:
        score_rows.write_jsonl(rows, sys.stdout)
        return
    with files.replacing(args.out) as place:
        if _is_parquet(args.out):
            count = score_rows.write_parquet(predictions, rows, config.terms, place)
        else:
            with open(place, "w", encoding="utf-8", newline="\n") as file:
                count = score_rows.write_jsonl(rows, file)
    say(f"{count} scores written to {args.out}", quiet=args.quiet or args.json == _output.STDOUT)


def _print_table(rows: list[tuple[str, dict[str, Any]]], config: RewardConfig, summary: dict[str, Any]) -> None:
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
    for name, scores in rows:
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
