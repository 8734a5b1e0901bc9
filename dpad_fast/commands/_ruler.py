"""`dpad-fast evaluate --predictions`: measure, summarise, print, write."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dpad_fast import files
from dpad_fast.commands import _comparison, _data_source, _encoder, _output, _ruler_tables, _side_file
from dpad_fast.terminal import say

if TYPE_CHECKING:
    from dpad_fast.evaluate.predictions import Coverage
    from dpad_fast.evaluate.ruler import Settings
    from dpad_fast.evaluate.summary import Interval, Sums

    Found = Mapping[str | None, Mapping[str, Interval]]


def run(args: argparse.Namespace, policy: Mapping[str, Any] | None = None) -> int:
    """Measure predictions and print tables.

    Args:
        args: the parsed arguments, with defaults filled in.
        policy: what the predictions are of, for the JSON; None where they are somebody's.

    Returns:
        The exit status.
    """
    from dpad_fast.evaluate import summary

    settings = settings_of(args)
    other = _comparison.looked_at(args.compare, args.predictions, settings.protocols)
    extra = {} if policy is None else {"policy": dict(policy)}
    with (
        _side_file.beside(args.json) as side_path,
        _measured(args, args.predictions, settings, side_path) as (side, met),
    ):
        sums = summary.count(_records(side), settings.protocols)
        if not sums.records:
            why = f"; {len(met.broken)} cannot be read, the first: {met.broken[0]}" if met.broken else ""
            raise ValueError(f"no sample of {args.data} is left to measure{why}")
        found = summary.estimates(sums)
        head = _head(args, settings, sums, found, met) | extra
        if args.compare is not None:
            head["comparison"] = _compared(args, settings, sums, other)
        tables = _ruler_tables.tables(args, settings, sums, head, found)
        for table in tables:
            say(getattr(table, args.table)(), quiet=args.quiet or args.json == _output.STDOUT)
        _write(args.json, head, side)
    if args.json not in (None, _output.STDOUT):
        say(f"wrote {args.json}", quiet=args.quiet)
    return 0


def run_stored(args: argparse.Namespace) -> int:
    """Print the metrics of an output file of the released evaluation, which holds areas, so that no data is needed.

    Args:
        args: the parsed arguments, without data.

    Returns:
        The exit status.
    """
    from dpad_fast.evaluate.predictions import stored
    from dpad_fast.evaluate.tables import Table

    pairs = stored(args.predictions) or []
    ious = [shared / union if union else 0.0 for shared, union in pairs]
    total = sum(union for _, union in pairs)
    values = {"gIoU": sum(ious) / len(ious), "cIoU": sum(shared for shared, _ in pairs) / total if total else 0.0}
    values |= {f"P@{least}": sum(iou >= least for iou in ious) / len(ious) for least in (0.5, 0.7, 0.9)}
    note = f"{len(pairs)} samples as the file has them; those that its evaluation dropped are not in it."
    rows = tuple((key, f"{value:.4f}") for key, value in values.items())
    table = Table(args.predictions, ("metric", "released"), rows, (note,))
    say(getattr(table, args.table)(), quiet=args.quiet or args.json == _output.STDOUT)
    content: dict[str, Any] = {"n": len(pairs), "missing": None, "format_rate": None, "notes": [note], "records": []}
    content["protocols"] = {"released": {**values, "n": len(pairs)}}
    _output.write_json(args.json, content, args.quiet)
    return 0


def settings_of(args: argparse.Namespace) -> Settings:
    """The settings that the options ask for.

    Args:
        args: the parsed arguments.

    Returns:
        Settings of the ruler.

    Raises:
        ValueError: an option's value is unknown; names it.
    """
    from dpad_fast.evaluate.protocols import PROTOCOLS
    from dpad_fast.evaluate.readers import FORMATS
    from dpad_fast.evaluate.ruler import Settings

    if args.format not in FORMATS:
        raise ValueError(f"--format {args.format!r:.80} is unknown; known: {', '.join(FORMATS)}")
    if args.protocol != "all" and args.protocol not in PROTOCOLS:
        raise ValueError(f"--protocol {args.protocol!r:.80} is unknown; known: {', '.join(PROTOCOLS)}, all")
    if args.model_size is not None and args.processor is not None:
        raise ValueError("--model-size and --processor both say what the model saw; give one")
    _side_file.check_workers(args.workers)
    source = args.predictions
    return Settings(
        format=args.format,
        segmenter=args.segmenter,
        protocols=tuple(PROTOCOLS) if args.protocol == "all" else (args.protocol,),
        model_size=None if args.model_size is None else _size(args.model_size),
        processor=args.processor,
        resize=args.resize,
        encoder=args.encoder,
        tokenizer=args.tokenizer,
        **_places(source),
    )


def _places(source: str) -> dict[str, Any]:
    """Where masks of predictions are: fields of `Settings`."""
    folder = "." if source == "-" else os.path.abspath(os.path.dirname(source))
    return {"folder": folder, "archive": os.path.abspath(source) if source.endswith(".npz") else None}


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.partition("x")
    if not x or not all(side.isascii() and side.isdigit() and 0 < int(side) < 1 << 20 for side in (width, height)):
        raise ValueError(f"--model-size must be WIDTHxHEIGHT in pixels, got {text!r:.80}")
    return int(width), int(height)


@contextlib.contextmanager
def _measured(
    args: argparse.Namespace, source: str, settings: Settings, path: Path
) -> Iterator[tuple[IO[str], Coverage]]:
    from dpad_fast.evaluate import chunks
    from dpad_fast.evaluate.predictions import Coverage, Predictions, items
    from dpad_fast.evaluate.ruler import measuring

    with contextlib.closing(Predictions(source)) as predictions:
        settings = replace(settings, **_places(source))
        met = Coverage()
        met_items = items(
            predictions,
            _data_source.source_of(args, args.data),
            zero_missing=args.missing == "count-zero",
            # Of a part of the data, ids of the rest are not looked for.
            skip_unknown=args.unknown == "skip" or args.limit is not None,
            met=met,
            probe=args.policy is not None,
        )
        asked = {
            "settings": asdict(settings),
            "data": _side_file.state_of(args),
            "missing": args.missing,
            "unknown": args.unknown,
            "predictions": _side_file.digest(source, predictions.held),
        }
        side, written = chunks.open_side(path, asked)
        with side:
            if written:
                say(f"going on after {written} chunks of {path}", quiet=args.quiet, file=sys.stderr)
            if settings.encoder is not None:
                met_items = _encoder.warned(settings.encoder, met_items, quiet=args.quiet)
            make = partial(measuring, settings)
            chunks.measure_into(side, chunks.chunked(met_items), make, args.workers, written)
            broken = chunks.broken_of(side)
            met.broken += broken.values()
            met.answered -= sum(name in predictions for name in broken)
            met.missing -= sum(name not in predictions for name in broken)
            yield side, met


def _records(side: IO[str]) -> Iterator[dict[str, Any]]:
    from dpad_fast.evaluate.chunks import results_of

    return results_of(side)


def _head(args: argparse.Namespace, settings: Settings, sums: Sums, found: Found, met: Coverage) -> dict[str, Any]:
    """Everything of the JSON but the records."""
    from dpad_fast.evaluate import summary

    protocols: dict[str, dict[str, Any]] = {}
    for name in settings.protocols:
        own = found.get(name, {})
        protocols[name] = {key: value.value for key, value in own.items()}
        protocols[name] |= {
            "n": sums.records - sums.dropped[name] - sums.unmasked,
            "dropped": sums.dropped[name],
            "differs": sums.differing[name] if "strict" in settings.protocols else None,
            "intervals": {key: [value.plain()["low"], value.plain()["high"]] for key, value in own.items()},
        }
        if sums.unmasked == sums.records:
            protocols[name]["not_measured"] = "no masks"
    first = found.get(settings.protocols[0], {})
    metrics = {_SHORT.get(key, key): value.plain() for key, value in first.items()}
    general = dict(found.get(None, {}))
    if settings.encoder is None:
        general.pop("s1_wins", None)
    if not sums.boxed:
        for name in ("box_giou", "box_ciou", "box_p50"):
            general.pop(name, None)
    metrics |= {key: value.plain() for key, value in general.items()}
    rates = {key: metrics[key]["value"] if key in metrics else None for key in ("format", "format_tolerant")}
    return {
        "n": met.answered + (met.missing if args.missing == "count-zero" else 0),
        "missing": met.missing,
        "unknown": len(met.unknown),
        "completions": summary.answered(sums),
        "format_rate": rates["format"],
        "format_rate_tolerant": rates["format_tolerant"],
        "settings": {**asdict(settings), "missing": args.missing},
        "protocols": protocols,
        "metrics": metrics,
        "box_ap": summary.box_ap(sums),
        "reasons": dict(sorted(sums.reasons.items(), key=lambda pair: (-pair[1], pair[0]))),
        "notes": _notes(args, settings, sums, met),
    }


_SHORT = {"gIoU": "giou", "cIoU": "ciou", "P@0.5": "p50", "P@0.7": "p70", "P@0.9": "p90"}


def _notes(args: argparse.Namespace, settings: Settings, sums: Sums, met: Coverage) -> list[str]:
    from dpad_fast.evaluate import readers, summary
    from dpad_fast.evaluate.predictions import by_reason

    all_ = met.answered + met.missing
    notes = [
        f"{summary.answered(sums)} predictions of {met.answered} of {all_} samples; "
        f"{met.missing} missing, {len(met.unknown)} unknown ids; ± is the bootstrap standard error."
    ]
    if met.missing:
        done = {"count-zero": "count as 0", "skip": "are left out (--missing count-zero counts them as 0)"}
        notes.append(f"{met.missing} of {all_} samples have no prediction and {done[args.missing]}.")
    if met.unknown:
        notes.append(f"{len(met.unknown)} ids are not in the data and are left out, the first: {met.unknown[0]}")
    if met.broken:
        notes.append(
            f"{len(met.broken)} files of the data cannot be read and are not among them, the first: {met.broken[0]}"
        )
    if sums.unmasked:
        notes.append(
            f"{sums.unmasked} of {sums.records} records have a true box but no true mask: the protocols, which are of "
            "masks, are not measured on them; those of boxes are."
        )
    form = readers.FORMATS[settings.format]
    space = settings.model_size or settings.processor or form.space
    words = "x".join(map(str, space)) if isinstance(space, tuple) else space
    if met.sized and space == form.space:
        words = "as each line says"
    words = (
        "picture (the format's are those of the model; --model-size or --processor says them)"
        if (words == readers.MODEL)
        else words
    )
    notes.append(f"Format {form.name}, coordinates: {words}. Masks: {settings.segmenter}.")
    unit = "words" if settings.tokenizer == "words" else f"tokens of {settings.tokenizer}"
    notes.append(f"Chain length is in {unit}.")
    if sums.reasons:
        notes.append(f"Reasons: {by_reason(sums.reasons)}.")
    return notes


def _compared(args: argparse.Namespace, settings: Settings, mine: Sums, other: Sums | None) -> dict[str, Any]:
    """Differences to another run, on the samples that both have; without its sums it is measured here."""
    from dpad_fast.evaluate import summary

    if other is None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "chunks"
            with _measured(args, args.compare, settings, path) as (side, _):
                other = summary.count(_records(side), settings.protocols)
    found = summary.compare(mine, other)
    both = len([name for name in mine.ids if name in other.ids])
    return {
        "other": args.compare,
        "n": both,
        "differences": {
            name or "every protocol": {key: value.plain() for key, value in own.items()} for name, own in found.items()
        },
    }


def _write(path: str | None, head: Mapping[str, Any], side: IO[str]) -> None:
    """The JSON, a record at a time, so that no file is too large for the memory; whole or absent."""
    if path is None:
        return
    if path == _output.STDOUT:
        _stream(sys.stdout, head, side)
        return
    with files.replacing(path) as place, open(place, "w", encoding="utf-8", newline="\n") as file:
        _stream(file, head, side)


def _stream(file: IO[str], head: Mapping[str, Any], side: IO[str]) -> None:
    text = json.dumps(head, indent=1, allow_nan=False)
    file.write(text[:-2] + ',\n "records": [')
    for i, record in enumerate(_records(side)):
        file.write(("\n  " if i == 0 else ",\n  ") + json.dumps(record, allow_nan=False))
    file.write("\n ]\n}\n")
