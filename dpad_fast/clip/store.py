"""Embeddings on disk: one SQLite file that many processes may read and write, each of which may be killed at any time.

A row holds a key, an embedding and a checksum over both, so that a flipped bit is never served. A file that is damaged,
or that is not what was written, is deleted and begun again, with one warning. The store waits once for a file that
another process locks. A failure of the disk costs time, never a reward.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

from dpad_fast.clip.fork import fork_between_uses
from dpad_fast.files import make_folder

FILE = "embeddings.sqlite"
_FORMAT = 1  # of the rows; another number is another table
_TABLE = f"embeddings_{_FORMAT}"
_SCHEMA = (
    f"CREATE TABLE {_TABLE} (id INTEGER PRIMARY KEY, key BLOB UNIQUE NOT NULL, value BLOB NOT NULL, sum BLOB NOT NULL)"
)
# What SQLite needs for a row besides key and value, measured on rows of 512 floats: 4 KB pages hold one or two rows.
_PAGE = 4096
_BATCH = 400  # keys in one statement; SQLite's own limit is 999 in old releases
# Wait for another process's lock. A process that holds it longer may hold it for ever, so the next call does not wait.
_WAIT_S = 0.5
# SQLite's words for a lock, and for faults outside the file. Any other error means damage.
_BUSY = ("locked", "locking protocol")
_OUTSIDE = ("readonly", "unable to open", "disk i/o error", "permission denied", "is full", "interrupted")
# Python's sqlite3 raises these on a damaged file: names and messages that are no text, sizes beyond memory.
_ERRORS = (sqlite3.Error, sqlite3.Warning, ValueError, TypeError, OverflowError, MemoryError, SystemError)


class EmbeddingStore:
    """A bounded file of embeddings in a folder.

    Args:
        folder: made if missing.
        max_bytes: the file never grows beyond this; the rows written first go first. At least 64 KB.

    Raises:
        ValueError: `max_bytes` is too small, or `folder` cannot be a folder.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int = 1 << 30) -> None:
        if not isinstance(max_bytes, int) or max_bytes < 1 << 16:
            raise ValueError(f"folder_bytes must be at least {1 << 16}, got {max_bytes!r:.80} (a whole number)")
        self.max_bytes = max_bytes
        try:
            self.path = Path(folder) / FILE
            make_folder(self.path.parent)
        except (OSError, TypeError, ValueError) as error:  # ValueError: a NUL in the name
            why = error.strerror if isinstance(error, NotADirectoryError) else error
            raise ValueError(f"folder {folder!r:.200} cannot be used for embeddings: {why}") from None
        self._lock = Lock()
        fork_between_uses(self)
        self._connection: sqlite3.Connection | None = None
        self._owner = 0
        self._inode = 0
        self._patience = {"read": True, "write": True}
        self._warned: set[str] = set()

    def get(self, keys: Sequence[bytes], size: int | None = None) -> dict[bytes, torch.Tensor]:
        """The embeddings, float32 [D], of those keys that the file has.

        Args:
            keys: as they were put.
            size: D; a row of another one is damage. None: any.
        """
        found: dict[bytes, torch.Tensor] = {}
        with self._lock:
            for start in range(0, len(keys), _BATCH):
                part = list(keys[start : start + _BATCH])
                marks = ",".join("?" * len(part))
                rows = self._read(f"SELECT key, value, sum FROM {_TABLE} WHERE key IN ({marks})", part)
                if rows is None:  # the next batch would meet the same lock or the same lost file
                    break
                for row in rows:
                    value = _embedding(row, size)
                    if value is None:
                        self._begin_again(f"the checksum of a row in {self.path} is wrong")
                        return {}
                    found[row[0]] = value
        return found

    def put(self, embeddings: Mapping[bytes, torch.Tensor]) -> None:
        """Keeps copies of embeddings, float32 [D]; all of them or, if the process is killed, none."""
        rows = []
        for key, value in embeddings.items():
            content = value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
            rows.append((key, content, _checksum(key, content)))
        with self._lock:
            try:
                self._write(self._open("write"), rows)
                self._patience["write"] = True
            except _ERRORS as error:
                self._handle(error, "write")

    def __len__(self) -> int:
        with self._lock:
            counts = self._read(f"SELECT COUNT(*) FROM {_TABLE}", [])
        return int(counts[0][0]) if counts else 0

    def close(self) -> None:
        """Closes the file; it is opened again when needed."""
        with self._lock:
            self._close()

    def _write(self, connection: sqlite3.Connection, rows: Sequence[tuple[bytes, bytes, bytes]]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            # The pages left are for SQLite's own use.
            self._make_room(connection, sum(_pages(row[1]) for row in rows), self.max_bytes // _PAGE - 8)
            connection.executemany(f"INSERT OR REPLACE INTO {_TABLE} (key, value, sum) VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(*_ERRORS):
                connection.execute("ROLLBACK")
            raise

    def _make_room(self, connection: sqlite3.Connection, wanted: int, room: int) -> None:
        pages = int(connection.execute("PRAGMA page_count").fetchone()[0])
        free = int(connection.execute("PRAGMA freelist_count").fetchone()[0])
        missing = pages - free + wanted - room
        if missing > 0:
            # A tenth more than needed, so that a full file is not trimmed at every step.
            count = missing + room // 10
            connection.execute(
                f"DELETE FROM {_TABLE} WHERE id IN (SELECT id FROM {_TABLE} ORDER BY id LIMIT ?)", (count,)
            )

    def _read(self, statement: str, values: Sequence[bytes]) -> list[tuple[Any, ...]] | None:
        """The rows; None where the file cannot be read now, or had to be begun again."""
        try:
            rows: list[tuple[Any, ...]] = self._open("read").execute(statement, values).fetchall()
        except _ERRORS as error:
            self._handle(error, "read")
            return None
        self._patience["read"] = True
        return rows

    def _open(self, use: str) -> sqlite3.Connection:
        # Another process may have deleted a damaged file: then this connection's file is not the one that others see.
        # A connection does not survive a fork either: the child makes its own.
        if self._connection is None or self._owner != os.getpid() or self._inode != _inode(self.path):
            self._close()
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(connection, use)
            except BaseException:
                connection.close()
                raise
            self._connection, self._owner, self._inode = connection, os.getpid(), _inode(self.path)
        self._connection.execute(self._busy_timeout(use))
        return self._connection

    def _prepare(self, connection: sqlite3.Connection, use: str) -> None:
        connection.text_factory = bytes  # a name that is no text is damage, and not an error of decoding
        connection.execute(self._busy_timeout(use))
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()
        # Nothing waits for the disk, so that locks are short. A killed process loses nothing by it; if the machine
        # itself stops, a half-written file is found damaged and made again.
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(f"PRAGMA max_page_count={self.max_bytes // _PAGE}")
        tables = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall())
        schema = tables.pop(_TABLE.encode(), None)
        if schema is not None and schema != _SCHEMA.encode():
            raise sqlite3.DatabaseError(f"the table is {schema[:200]!r}")
        for name in tables:  # tables of another format: nobody reads them, and they would keep their space for ever
            quoted = name.decode().replace('"', '""')
            try:
                connection.execute(f'DROP TABLE IF EXISTS "{quoted}"')
            except sqlite3.OperationalError as error:
                if not _says(error, (*_BUSY, *_OUTSIDE)):
                    raise
        if schema is None:
            connection.execute(_SCHEMA.replace("TABLE", "TABLE IF NOT EXISTS", 1))

    def _busy_timeout(self, use: str) -> str:
        return f"PRAGMA busy_timeout={round(1000 * _WAIT_S) if self._patience[use] else 0}"

    def _handle(self, error: BaseException, use: str) -> None:
        """A file in use or a disk that is full or read-only is left alone; anything else is damage."""
        if isinstance(error, sqlite3.Error) and _says(error, _BUSY):
            self._patience[use] = False
            self._warn("busy", f"{self.path} cannot be used now, so embeddings are computed; no more waiting: {error}")
        elif isinstance(error, sqlite3.Error) and _says(error, _OUTSIDE) and not self._should_work(error):
            self._warn("outside", f"{self.path} cannot be used now, so embeddings are computed: {error}")
        else:
            self._begin_again(f"{self.path} is damaged ({error})")

    def _should_work(self, error: BaseException) -> bool:
        """Whether the disk allows what SQLite refuses: then a damaged header is the cause."""
        if _says(error, ("is full",)):  # the disk, or the bound that rows were dropped for
            with suppress(OSError):
                return self.path.stat().st_size > self.max_bytes - 8 * _PAGE
            return False
        if not _says(error, ("readonly", "unable to open")):
            return False
        try:
            with self.path.open("r+b"):
                return os.access(self.path.parent, os.W_OK)
        except OSError:
            return False

    def _begin_again(self, what: str) -> None:
        self._warn("damaged", f"{what}; it is thrown away and filled again")
        self._close()
        for suffix in ("", "-journal", "-wal", "-shm"):
            with suppress(OSError):
                os.unlink(f"{self.path}{suffix}")

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, RuntimeWarning, stacklevel=2)

    def _close(self) -> None:
        if self._connection is not None:
            with suppress(*_ERRORS):
                self._connection.close()
        self._connection = None


def _embedding(row: tuple[Any, ...], size: int | None) -> torch.Tensor | None:
    """The embedding of a row, float32 [D]; None where the row is not as it was written."""
    key, value, checksum = row
    if not all(isinstance(part, bytes) for part in row) or not value or len(value) % 4 != 0:
        return None
    if _checksum(key, value) != checksum or (size is not None and len(value) != 4 * size):
        return None
    numbers = np.frombuffer(value, np.float32)
    return torch.from_numpy(numbers.copy()) if bool(np.isfinite(numbers).all()) else None


def _says(error: BaseException, words: Sequence[str]) -> bool:
    return any(word in str(error).lower() for word in words)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return -1


def _pages(value: bytes) -> int:
    return 1 + (len(value) + 64) // (_PAGE // 2)


def _checksum(key: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=16, key=hashlib.blake2b(key, digest_size=16).digest()).digest()
