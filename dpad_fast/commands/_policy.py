"""`dpad-fast evaluate --policy`: sample a policy into a file of completions, then measure that."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpad_fast.commands import _data_source, _output, _ruler, _side_file
from dpad_fast.terminal import say

if TYPE_CHECKING:
    from dpad_fast.evaluate.asking import Asking
    from dpad_fast.types import Sample

# Those that are None are left to the policy, its run or `Asking`.
DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("completions", "prompt_template", "system", "coordinates", "tokens", "format", "seed")),
    "samples": 1,
    "temperature": 0.0,
    "batch": 8,
    "device": "cpu",
}
_SHOWN = ("prompt", "system", "samples", "temperature", "seed", "batch", "tokens")
_EVERY = 10.0  # seconds between two words on how far it is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options.

    Args:
        parser: the parser of `dpad-fast evaluate`.
    """
    group = parser.add_argument_group("of --policy")
    group.add_argument("--policy", help="sample this policy on --data: shipped name, folder, run folder or hub name")
    group.add_argument(
        "--completions", metavar="FILE", help="its answers, as they come (default: FILE.completions.jsonl of --json)"
    )
    group.add_argument(
        "--prompt-template",
        help="dpad, seg-zero, vision-reasoner, or a text with {question} (default: its run's, or dpad)",
    )
    group.add_argument("--system", help="the system's turn (default: its run's, or none)")
    group.add_argument("--coordinates", help="pixel, norm1000 or norm1 (default: its run's, or its family's)")
    group.add_argument("--batch", type=int, help="completions at a time (default: 8)")
    group.add_argument("--temperature", type=float, help="of sampling; 0 is greedy (default: 0)")
    group.add_argument("--samples", type=int, help="answers per sample (default: 1)")
    group.add_argument("--tokens", type=int, help="longest answer (default: its run's, or 512)")
    group.add_argument("--device", help="where the policy runs (default: cpu)")


def run(args: argparse.Namespace) -> int:
    """Sample, then measure.

    Args:
        args: the parsed arguments, with defaults filled in.

    Returns:
        The exit status.

    Raises:
        ValueError: a bad option, policy or sample; says which.
    """
    from dpad_fast.evaluate.asking import asking_of
    from dpad_fast.train import processes

    asking = asking_of(
        args.policy,
        prompt=args.prompt_template,
        system=args.system,
        coordinates=args.coordinates,
        format=args.format,
        samples=args.samples,
        temperature=args.temperature,
        seed=args.seed,
        batch=args.batch,
        tokens=args.tokens,
    )
    args.format = asking.format
    processes.join(cpu=args.device == "cpu")
    with _file(args) as path:
        args.predictions = str(path)
        _ruler.settings_of(args)  # what is wrong with the other options is told before hours of sampling
        _sample(args, asking, path)
        if not processes.is_main():
            return 0
        return _ruler.run(args, {"name": args.policy, **{name: getattr(asking, name) for name in _SHOWN}})


def _sample(args: argparse.Namespace, asking: Asking, path: Path) -> None:
    from dpad_fast.evaluate.completions import write_completions
    from dpad_fast.train import processes

    source = _data_source.source_of(args, args.data)
    asked = {
        "policy_files": _side_file.digest(asking.policy),
        "data": os.path.abspath(args.data) if os.path.exists(args.data) else args.data,
        "data_files": _side_file.digest(args.data),
        **_data_source.named(args),
    }

    def samples() -> Iterator[Sample]:
        return source.samples(on_error=lambda _: None, points=False)  # the ruler says what cannot be read

    told = None if args.quiet or not processes.is_main() else _Progress(path)
    write_completions(path, samples, asking, asked, _device(args.device), told)


class _Progress:
    """A word on standard error now and then."""

    def __init__(self, path: Path) -> None:
        self._path, self._last, self._first = path, time.monotonic(), True

    def __call__(self, count: int) -> None:
        if self._first and count:
            say(f"going on after {count} completions in {self._path}", file=sys.stderr)
        elif not self._first and time.monotonic() - self._last > _EVERY:
            say(f"{count} completions", file=sys.stderr)
            self._last = time.monotonic()
        self._first = False


def _device(name: str) -> Any:
    """The device; `cuda` of several processes is each one's own."""
    from dpad_fast.clip.load import find_device
    from dpad_fast.train import processes

    if name == "cuda" and processes.count() > 1:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    return find_device(name)


@contextlib.contextmanager
def _file(args: argparse.Namespace) -> Iterator[Path]:
    """Where the completions go; without a name they go away at the end."""
    named = args.completions
    if named == _output.STDOUT:
        raise ValueError("--completions must be a file: it is read again to be measured")
    if named is None and _output.is_file(args.json):
        named = f"{args.json}.completions.jsonl"
    if named is None:
        from dpad_fast.train import processes

        with tempfile.TemporaryDirectory() as folder:
            yield Path(processes.from_main(lambda: folder)) / "completions.jsonl"
        return
    _output.prepare(named)
    yield Path(named)
