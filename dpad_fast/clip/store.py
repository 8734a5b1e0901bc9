"""Embeddings on disk: one SQLite file that many processes may read and write, and that any of them may be killed in.

A row holds a key, an embedding and a checksum over both, so that a flipped bit is never served. A file that SQLite
finds damaged is thrown away and begun again, with one warning; whatever goes wrong with the disk costs time, never a
reward.
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

import numpy as np
import torch

FILE = "embeddings.sqlite"
_FORMAT = 1  # of the rows; another number is another table
_TABLE = f"embeddings_{_FORMAT}"
# What SQLite needs for a row besides key and value, measured on rows of 512 floats: 4 KB pages hold one or two rows.
_PAGE = 4096
_BATCH = 400  # keys in one statement; SQLite's own limit is 999 in old releases
_WAIT_S = 30.0


class EmbeddingStore:
    """A bounded file of embeddings in a folder.

    Args:
        folder: made if missing.
        max_bytes: the file never grows beyond this; the rows written first go first. At least 64 KB.

    Raises:
        ValueError: `max_bytes` is too small, or `folder` cannot be a folder.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int = 1 << 30) -> None:
        if max_bytes < 1 << 16:
            raise ValueError(f"folder_bytes must be at least {1 << 16}, got {max_bytes}")
        self.path = Path(folder) / FILE
        self.max_bytes = max_bytes
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"folder {os.fspath(folder)!r} cannot be used for embeddings: {error}") from None
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        self._owner = 0
        self._inode = 0
        self._warned = False

    def get(self, keys: Sequence[bytes]) -> dict[bytes, torch.Tensor]:
        """Those of the keys that are there, with their embeddings, float32 [D]."""
        found: dict[bytes, torch.Tensor] = {}
        with self._lock:
            for start in range(0, len(keys), _BATCH):
                part = list(keys[start : start + _BATCH])
                marks = ",".join("?" * len(part))
                rows = self._try(f"SELECT key, value, sum FROM {_TABLE} WHERE key IN ({marks})", part)
                for key, value, checksum in rows:
                    if _checksum(key, value) == checksum and len(value) % 4 == 0:
                        found[key] = torch.from_numpy(np.frombuffer(value, np.float32).copy())
                    else:
                        self._begin_again(f"the checksum of a row in {self.path} is wrong")
                        return {}
        return found

    def put(self, embeddings: Mapping[bytes, torch.Tensor]) -> None:
        """Keeps copies of embeddings, float32 [D]; all of them or, if the process is killed, none."""
        rows = []
        for key, value in embeddings.items():
            content = value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()
            rows.append((key, content, _checksum(key, content)))
        room = self.max_bytes // _PAGE - 8  # pages for SQLite's own use
        with self._lock:
            try:
                connection = self._open()
                with connection:  # one transaction
                    self._make_room(connection, sum(_pages(row[1]) for row in rows), room)
                    connection.executemany(f"INSERT OR REPLACE INTO {_TABLE} (key, value, sum) VALUES (?, ?, ?)", rows)
            except sqlite3.Error as error:
                self._handle(error)

    def __len__(self) -> int:
        with self._lock:
            counts = self._try(f"SELECT COUNT(*) FROM {_TABLE}", [])
        return int(counts[0][0]) if counts else 0

    def close(self) -> None:
        """Closes the file; it is opened again when needed."""
        with self._lock:
            self._close()

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

    def _try(self, statement: str, values: Sequence[bytes]) -> list[tuple[bytes, ...]]:
        try:
            return self._open().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self._handle(error)
            return []

    def _open(self) -> sqlite3.Connection:
        # Another process may have thrown a damaged file away: then this one's is no longer the file that others see.
        if self._connection is not None and self._owner == os.getpid() and self._inode == _inode(self.path):
            return self._connection
        if self._owner == os.getpid():
            self._close()
        # SQLite must not be carried over a fork: the parent's connection is left as it is, closing it would drop the
        # parent's locks.
        self._connection = connection = sqlite3.connect(self.path, timeout=_WAIT_S, check_same_thread=False)
        self._owner = os.getpid()
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA max_page_count={self.max_bytes // _PAGE}")
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {_TABLE} (id INTEGER PRIMARY KEY, key BLOB UNIQUE NOT NULL, "
            "value BLOB NOT NULL, sum BLOB NOT NULL)"
        )
        self._inode = _inode(self.path)
        return connection

    def _handle(self, error: sqlite3.Error) -> None:
        """A file in use or a disk that is full or read-only is left alone; anything else is damage."""
        operational = isinstance(error, sqlite3.OperationalError)
        if operational and not any(word in str(error) for word in ("malformed", "corrupt", "no such")):
            self._warn(f"{self.path} cannot be used now, so embeddings are computed: {error}")
            return
        self._begin_again(f"{self.path} is damaged ({error})")

    def _begin_again(self, what: str) -> None:
        self._warn(f"{what}; it is thrown away and filled again")
        self._close()
        for suffix in ("", "-journal"):
            with suppress(OSError):
                os.unlink(f"{self.path}{suffix}")

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(message, RuntimeWarning, stacklevel=2)

    def _close(self) -> None:
        if self._connection is not None and self._owner == os.getpid():
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return -1


def _pages(value: bytes) -> int:
    return 1 + (len(value) + 64) // (_PAGE // 2)


def _checksum(key: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=16, key=hashlib.blake2b(key, digest_size=16).digest()).digest()
