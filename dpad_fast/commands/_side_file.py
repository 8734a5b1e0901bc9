"""The file of finished chunks of `evaluate` and `score`: where it stands, and what its content depends on."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dpad_fast.commands import _data_source, _output


def check_workers(number: int) -> None:
    """Refuse a number of processes that cannot be."""
    if not 1 <= number <= 256:
        raise ValueError(f"--workers must be at least 1 and at most 256, got {number}")


def spare(outputs: Mapping[str, str | None], inputs: Sequence[str | None]) -> None:
    """`_output.spare` of the outputs, and of the files of finished chunks beside them."""
    _output.spare(outputs, inputs)
    named = {name: path for name, path in outputs.items() if path not in (None, _output.STDOUT)}
    _output.spare({name: f"{path}.part" for name, path in named.items()}, inputs)


def state_of(args: argparse.Namespace) -> dict[str, Any]:
    """What results depend on of `--data` and the options beside it."""
    return {"path": os.path.abspath(args.data), "files": digest(args.data), **_data_source.named(args)}


@contextlib.contextmanager
def beside(path: str | None) -> Iterator[Path]:
    """The side file: FILE.part until the result is written, else a temporary file.

    Args:
        path: where the result goes.
    """
    if not _output.is_file(path):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / "chunks"
        return
    side = Path(f"{path}.part")
    before = side.stat().st_size if side.is_file() else 0
    try:
        yield side
    except BaseException:
        if side.is_file() and not before and not _has_chunks(side):
            side.unlink()  # nothing to go on with
        raise
    side.unlink()


def _has_chunks(side: Path) -> bool:
    with side.open("rb") as file:
        return bool(file.readline() and file.readline())


def digest(source: str, held: bytes | None = None) -> str:
    """What changes where a file or folder does: of a file its bytes, of a folder's files names, sizes and times.

    Args:
        source: a path; any other text is its own digest.
        held: what was read of standard input or a pipe, which has its content once; None of a file.
    """
    found = hashlib.sha256(held or b"")
    if held is not None:
        return found.hexdigest()
    if os.path.isdir(source):
        for path in sorted(path for path in Path(source).rglob("*") if path.is_file()):
            state = path.stat()
            found.update(os.fsencode(path.relative_to(source)))  # a name of the file system need not be UTF-8
        found.update(f"\n{state.st_size} {state.st_mtime_ns}\n".encode())
        return found.hexdigest()
    if source == "-" or not os.path.isfile(source):
        return source
    with open(source, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()
