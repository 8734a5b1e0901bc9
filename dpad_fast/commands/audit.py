"""Look for signs of reward hacking in results of `dpad-fast train`, `demo` and `evaluate`.

Repeated tags, copied prompts, descriptions that echo the query or that many samples share, boxes of the whole picture,
groups with equal descriptions or without variance, terms that never move: how many, with examples, and what each of
these would earn under each preset. Targets and pictures come from the records, from --data, or are drawn again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from dpad_fast.commands import _output
from dpad_fast.commands.report import add_results, read_results, result_file
from dpad_fast.terminal import printable, say

_MOST_EXAMPLES = 1000
_EXCERPT = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options.

    Args:
        parser: the parser of `dpad-fast audit`.
    """
    add_results(parser)
    parser.add_argument("--examples", type=int, default=3, metavar="N", help="of each sign (default: %(default)s)")
    parser.add_argument("--encoder", help="CLIP for what examples earn; by default of the S1 and S2 that were measured")
    _output.add_json(parser, "counts and examples")
    _output.add_quiet(parser)


def run(args: argparse.Namespace) -> int:
    """Audit and print.

    Args:
        args: the parsed arguments.

    Returns:
        The exit status.
    """
    if not 0 <= args.examples <= _MOST_EXAMPLES:
        raise ValueError(f"--examples must be at least 0 and at most {_MOST_EXAMPLES}, got {args.examples}")
    inputs = [result_file(path) for path in args.result]
    _output.spare({"--json": args.json}, [*inputs, args.data])
    _output.prepare(args.json)
    results, lookup = read_results(args)
    from dpad_fast.commands import _encoder
    from dpad_fast.evaluate.audit import audit
    from dpad_fast.evaluate.results import read_sources

    sources = read_sources(results)
    encoder = None if args.encoder is None else _encoder.load(args.encoder, (), quiet=args.quiet)
    found = audit(sources, lookup, encoder, args.examples)
    notes = lookup.notes
    quiet = args.quiet or args.json == _output.STDOUT
    if not found:
        say(f"no answers and no log in {', '.join(source.name for source in sources)}", quiet=quiet)
    for series in found:
        say("\n".join(_lines(series)) + "\n", quiet=quiet)
    for note in notes[:3]:
        say(printable(note), quiet=quiet)
    _output.write_json(args.json, {"series": found, "notes": notes}, args.quiet)
    return 0


def _lines(series: Mapping[str, Any]) -> Iterator[str]:
    """One series in text: a table of signs, then their examples."""
    from dpad_fast.evaluate.audit import CHECKS
    from dpad_fast.evaluate.tables import Table

    rows = tuple(
        (CHECKS[check["check"]], str(check["count"]), str(check["of"]), _share(check["share"]))
        for check in series["checks"]
    )
    notes = tuple(f"{CHECKS[check['check']]}: {note}" for check in series["checks"] for note in check["notes"])
    yield Table(f"{series['name']} ({series['answers']})", ("sign", "count", "of", "share"), rows, notes).text()
    for check in series["checks"]:
        for example in check["examples"]:
            yield f"{CHECKS[check['check']]}: {printable(example['id'])}: {printable(example['why'])}"
            yield f"    {_excerpt(example['text'])}"
            yield f"    would earn: {', '.join(_earned(*pair) for pair in example['earns'].items())}"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _excerpt(text: str) -> str:
    whole = printable(" ".join(text.split()))
    return whole if len(whole) <= _EXCERPT else whole[:_EXCERPT] + " ..."


def _earned(preset: str, earned: Mapping[str, Any]) -> str:
    if "why" in earned:
        return f"{preset} - ({printable(earned['why'])})"
    left_out = "".join(f" without {term}" for term in earned.get("left_out", ()))
    return f"{preset} {earned['total']:.2f}{left_out}"
