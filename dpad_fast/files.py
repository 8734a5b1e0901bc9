"""Output files that are complete or absent: written to a temporary file beside their place, flushed, renamed.

After a full disk, a quota or a kill the old file is still there. Every file that the package writes goes through here.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def prepare(path: str | os.PathLike[str]) -> Path:
    """Make the folder that a file will be written to, so that a bad path is found before the work and not after it.

    Args:
        path: the file.

    Returns:
        The path.

    Raises:
        OSError: the folder cannot be made or written to, or the path is a folder; names the path.
    """
    place = Path(path)
    if place.is_dir():
        raise IsADirectoryError(21, "Is a folder, not a file", str(place))
    folder = make_folder(place.parent)
    if not _is_special(place) and not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(13, "Permission denied", str(folder))
    return place


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder and those above it, where they are not there.

    Args:
        path: the folder.

    Returns:
        The path.

    Raises:
        OSError: it cannot be made; where a file is in its place, or in that of a folder above it, names that file.
    """
    place = Path(path)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        files = (above for above in (*reversed(place.parents), place) if above.exists() and not above.is_dir())
        raise NotADirectoryError(20, "Is a file, not a folder", str(next(files, place))) from None
    return place


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new, never half of it; its folder is made.

    The file keeps the mode that it had; a link stays one, and what it points to is replaced. What is no regular file
    (a pipe, /dev/stdout) is written to as it is.

    Args:
        path: the file.
        content: all of it.

    Raises:
        OSError: it cannot be written (a full disk, say); names the path, and what stood there before still does.
    """
    place = prepare(path)
    try:
        if _is_special(place):
            place.write_bytes(content)
        else:
            _replace(Path(os.path.realpath(place)), content)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(place)) from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A place for a large file to be written piece by piece; it replaces `path` when all went well.

    Args:
        path: the file; what is no regular file (a pipe, /dev/stdout) is written to as it is.

    Yields:
        Where to write.

    Raises:
        OSError: as `write_bytes`.
    """
    place = prepare(path)
    if _is_special(place):
        yield place
        return
    place = Path(os.path.realpath(place))
    partial = place.with_name(f".{place.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        yield partial
        with open(partial, "rb+") as file:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(place.stat().st_mode))
            os.fsync(file.fileno())
        os.replace(partial, place)
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise  # another file's
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(place.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """`write_bytes` of text in UTF-8, line ends as they are.

    Args:
        path: the file.
        text: all of it.

    Raises:
        OSError: as `write_bytes`.
    """
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], value: Any, indent: int = 1) -> None:
    """`write_text` of JSON (ASCII, with a newline at its end).

    Args:
        path: the file.
        value: plain data without NaN and infinities.
        indent: spaces per level.

    Raises:
        OSError: as `write_bytes`.
        ValueError: a number is not finite; nothing is written.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False) + "\n")


def _is_special(path: Path) -> bool:
    if str(path.absolute()).startswith(("/dev/", "/proc/")):
        return True  # /dev/stdout may lead to a regular file that others write to as well
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb", buffering=0) as file:
            left = memoryview(content)
            while left:  # one call may write a part only, which is how a disk that is nearly full begins
                left = left[os.write(file.fileno(), left) :]
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """The rename itself outlives a power cut only when the folder is on the disk; some file systems cannot."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
