"""Score a JSONL of completions against a data folder: every term, the similarities and the reason, per completion."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from dpad_fast.rewards import RewardConfig
    from dpad_fast.types import Sample, ScoreBatch

DEFAULT_ENCODER = "openai/clip-vit-base-patch32"
SHAPES_NOTE = (
    "note: the built-in encoder knows pictures of coloured shapes and seventy words. On photographs its S1, S2 and "
    "dpad try out the command and judge nothing; every other term is what it is with any encoder."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `dpad-fast score`.

    Args:
        parser: the parser of the command.
    """
    parser.add_argument("completions", help='JSONL, one {"id": sample id, "completion": text} a line; - reads stdin')
    parser.add_argument("--data", required=True, help="a folder in ReasonSeg's format")
    parser.add_argument("--out", help="write JSONL here instead of a table; - writes to stdout")
    parser.add_argument("--preset", help="dpad (default), dpad-released, seg-zero or vision-reasoner")
    parser.add_argument("--config", help="a YAML file of reward settings, instead of a preset")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one reward setting")
    parser.add_argument(
        "--encoder",
        default=DEFAULT_ENCODER,
        help=f"a name or folder ({DEFAULT_ENCODER}), or 'shapes', which is built in",
    )
    parser.add_argument("--backend", default="transformers", help="transformers (default) or open_clip")
    parser.add_argument("--precision", default="guarded", help="guarded (default), float32 or bfloat16")
    parser.add_argument("--device", default="cpu", help="where the encoder runs (cpu)")
    parser.add_argument("--cache", help="a folder that keeps the embeddings of images (see dpad-fast data embed)")


def run(args: argparse.Namespace) -> int:
    """Scores and prints or writes.

    Args:
        args: the parsed arguments.

    Returns:
        The exit status, 0.

    Raises:
        ValueError: a bad file, setting or encoder; says which.
    """
    import dpad_fast as df
    from dpad_fast.train.run import quiet

    config = _config(args)
    rows = _read(args.completions)
    samples = {sample.id: sample for sample in df.data.reasonseg.load(args.data)}
    chosen = _choose(rows, samples, args.data)
    encoder = None
    if config.needs_encoder:
        from dpad_fast.clip import EmbeddingCache

        with quiet():
            encoder = df.load_encoder(
                args.encoder,
                backend=args.backend,
                device=args.device,
                precision=args.precision,
                cache=None if args.cache is None else EmbeddingCache(folder=args.cache),
            )
        if args.encoder == "shapes":
            print(SHAPES_NOTE, file=sys.stderr)
    scorer = df.RewardScorer(config, encoder)
    batch = scorer.score(
        [row["completion"] for row in rows],
        [sample.target for sample in chosen],
        [sample.image for sample in chosen],
        image_keys=[str(sample.image) if isinstance(sample.image, str | Path) else None for sample in chosen],
    )
    if args.out is None:
        _print_table(rows, batch, config)
    else:
        _write(args.out, rows, batch)
    return 0


def _config(args: argparse.Namespace) -> RewardConfig:
    from dpad_fast.rewards import RewardConfig

    if args.config and args.preset:
        raise ValueError("give --config or --preset, not both (a YAML file may hold `preset: NAME`)")
    overrides: dict[str, Any] = {}
    for item in args.set:
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"--set takes KEY=VALUE, got {item!r:.80}")
        try:
            overrides[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"--set {key:.80}: the value is not valid YAML: {value!r:.80}") from None
    if args.config:
        return RewardConfig.from_yaml(Path(args.config)).replace(**overrides)
    return RewardConfig.preset(args.preset or "dpad", **overrides)


def _read(source: str) -> list[dict[str, str]]:
    try:
        # "\n" alone ends a line: JSON strings may hold other separators, such as U+2028.
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"completions: {source} cannot be read: {error}") from None
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{source}:{number} is not valid JSON: {error}") from None
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("id", "completion")):
            raise ValueError(f'{source}:{number} must be {{"id": text, "completion": text}}')
        rows.append(row)
    if not rows:
        raise ValueError(f"completions: {source} holds no line")
    return rows


def _choose(rows: list[dict[str, str]], samples: dict[str, Sample], folder: str) -> list[Sample]:
    for i, row in enumerate(rows):
        if row["id"] not in samples:
            known = ", ".join(list(samples)[:8])
            raise ValueError(
                f"completions[{i}].id is {row['id']!r:.80}, which {folder} does not hold; it holds {known} ..."
            )
    return [samples[row["id"]] for row in rows]


def _write(out: str, rows: list[dict[str, str]], batch: ScoreBatch) -> None:
    lines = [json.dumps({**row, **scores}) + "\n" for row, scores in zip(rows, batch.rows(), strict=True)]
    if out == "-":
        sys.stdout.writelines(lines)
        return
    Path(out).write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines)} scores written to {out}")


def _print_table(rows: list[dict[str, str]], batch: ScoreBatch, config: RewardConfig) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"preset {config.name}")
    table.add_column("id", overflow="fold")
    shown = {"think_format": "think", "answer_format": "answer", "discriminative": "dpad"}
    similar = ("roi", "aoi") if config.needs_encoder else ()
    for name in (*(shown.get(term, term) for term in config.terms), *({"roi": "S1", "aoi": "S2"}[n] for n in similar)):
        table.add_column(name, justify="right")
    table.add_column("total", justify="right")
    table.add_column("reason")
    for row, scores in zip(rows, batch.rows(), strict=True):
        numbers = [_number(scores["terms"][name]) for name in config.terms]
        numbers += ["" if scores["similarity"][n] is None else f"{scores['similarity'][n]:.4f}" for n in similar]
        # Text, so that square brackets in an id are not read as markup.
        table.add_row(Text(row["id"]), *numbers, _number(scores["total"]), scores["reason"] or "")
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.3f}"
