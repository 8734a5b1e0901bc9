"""Pictures that the server knows: those sent before, by the SHA-256 of their bytes, and files inside its root."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock

from dpad_fast.clip.images import KeptBytes, file_key
from dpad_fast.row_images import size_of
from dpad_fast.serve.settings import Refusal


@dataclass(frozen=True)
class Stored:
    """The bytes of a picture, and the pixels that decoding it would make (0 where it cannot be opened)."""

    content: KeptBytes
    pixels: int


def weighed(content: bytes) -> Stored:
    """The bytes with what their header says; bytes that are no picture are kept, for the scorer to say so."""
    kept, pixels = KeptBytes(content), 0
    with suppress(ValueError):
        kept.size = size_of(content, "picture")
        pixels = kept.size[0] * kept.size[1]
    return Stored(kept, pixels)


class PictureStore:
    """Pictures by the SHA-256 of their bytes, bounded in bytes; the least recently used go first."""

    def __init__(self, most: int) -> None:
        self.most, self.bytes = most, 0
        self._entries: OrderedDict[str, Stored] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, expected: str | None, content: bytes) -> str:
        """Keeps bytes under their digest, and returns it in hexadecimal.

        Args:
            expected: the digest that the caller found, or None.
            content: the bytes.

        Raises:
            Refusal: 422, they have another digest.
        """
        found = hashlib.sha256(content)
        sha256 = found.hexdigest()
        if expected not in (None, sha256):
            raise Refusal(422, f"the bytes have the SHA-256 {sha256}, not {expected}")
        picture = weighed(content)
        picture.content.key = file_key(found.digest())  # so that no batch hashes them again
        with self._lock:
            if sha256 not in self._entries and len(content) <= self.most:
                self._entries[sha256] = picture
                self.bytes += len(content)
            while self.bytes > self.most:
                _, dropped = self._entries.popitem(last=False)
                self.bytes -= len(dropped.content)
        return sha256

    def get(self, sha256: str) -> Stored | None:
        """The picture of a digest, if it is still there."""
        with self._lock:
            found = self._entries.get(sha256)
            if found is not None:
                self._entries.move_to_end(sha256)
            return found


def read_inside(root: str | None, path: str, most: int) -> bytes | None:
    """The bytes of a file inside a folder; None where there is no such file.

    Args:
        root: the folder, resolved; None: no file may be named.
        path: relative to it, or absolute; links count as where they lead.
        most: bytes.

    Raises:
        Refusal: 403, there is no root or the path leads out of it; 413, the file is too large; 422, it is no file.
    """
    if root is None:
        raise Refusal(403, "pictures are not read by path: the server was started without --root")
    if "\0" in path:
        raise Refusal(422, "a picture's path holds a zero byte")
    place = os.path.realpath(os.path.join(root, path))
    if os.path.commonpath([root, place]) != root:
        raise Refusal(403, f"a picture's path leads out of the server's root: {path!r:.200}")
    try:
        # The path is resolved, so a link at its end was put there since; a pipe would be waited for.
        handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Refusal(422, f"a picture's path is no file: {path!r:.200}")
    with open(handle, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise Refusal(413, f"a picture has more than {most} bytes: {path!r:.200}")
    return content
