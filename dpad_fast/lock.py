"""One process at a time in a folder: a lock that the operating system releases when its holder dies."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dpad_fast import files

NAME = ".lock"
_held_locks: dict[Path, int] = {}  # folders that this process holds, and the thread that does


@contextmanager
def only_one(folder: Path, mark: bool = True) -> Iterator[None]:
    """Hold a folder. The thread that holds it may take it again; no other thread or process may.

    Args:
        folder: made if missing; gets a file `.lock` with the holder's process number, which is left there.
        mark: False: the folder itself is locked, and nothing is left in it; nobody is told whose it is.

    Yields:
        Nothing.

    Raises:
        ValueError: if another process or thread holds it; names the process.
    """
    files.make_folder(folder)
    key = folder.resolve()
    if key in _held_locks:
        if _held_locks[key] != threading.get_ident():
            raise ValueError(_refusal(folder, str(os.getpid())))
        yield
        return
    if not mark and sys.platform == "win32":  # where a folder cannot be opened
        yield
        return
    descriptor = os.open(key / NAME, os.O_RDWR | os.O_CREAT, 0o644) if mark else os.open(key, os.O_RDONLY)
    try:
        _lock(descriptor, folder, mark)
        _held_locks[key] = threading.get_ident()
        if mark:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        if _held_locks.get(key) == threading.get_ident():
            del _held_locks[key]
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, mark: bool) -> None:
    """Take the lock, or say who has it. File systems without locks are used without one."""
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() if mark else ""
        raise ValueError(_refusal(folder, holder or "unknown")) from None
    except OSError as error:
        warnings.warn(f"{folder} cannot be locked ({error.strerror}): nobody notices a second run in it", stacklevel=3)


def hold(descriptor: int, path: Path) -> None:
    """Hold an open file; the operating system lets go of it when it is closed or its holder dies.

    Args:
        descriptor: of the file.
        path: its name.

    Raises:
        ValueError: another process holds it, or has just finished with it.
    """
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{path} is in use by another run: wait for it, end it, or write to another file") from None
    except OSError as error:
        warnings.warn(f"{path} cannot be locked ({error.strerror}): nobody notices a second run", stacklevel=3)
        return
    if not path.exists() or not os.path.samestat(os.fstat(descriptor), path.stat()):
        raise ValueError(f"{path} was another run's, which has just ended: run again")


def _refusal(folder: Path, holder: str) -> str:
    return (
        f"{folder} is in use by another run, process {holder}: two in one folder would overwrite each other's files. "
        "Wait for it, end it, or give another --out"
    )
