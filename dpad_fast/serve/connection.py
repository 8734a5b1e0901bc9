"""A connection of uvicorn's: heads have limits of time and size, and large bodies are read in large pieces."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_HEAD = 1 << 16  # bytes of a request's first line and headers
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")
# The parser and the endpoint cost some 0.15 ms for each piece that they are handed, whatever is in it.
_PIECE = 1 << 20
_SMALL = 1 << 16
_GATHERED = 64 << 20  # bytes, by all connections


@dataclass
class _Held:
    """Bytes that the connections of a server have gathered and not yet handed on."""

    bytes: int = 0


def bounded_connection(head_s: float) -> type[Any]:
    """The connection's class, for `uvicorn.Config(http=...)`.

    uvicorn alone waits for a head for ever, and with httptools takes one of any length.

    Args:
        head_s: how long a head may take to arrive, in seconds.
    """
    held = _Held()

    class Bounded(AutoHTTPProtocol):
        timer: asyncio.TimerHandle | None = None
        head = 0
        left = 0  # bytes that are still to come of a large body
        gathered = 0

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            self.pieces: list[bytes] = []

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.timer = self.loop.call_later(head_s, transport.close)

        def data_received(self, data: bytes) -> None:
            if self.left:
                data = self.gather(data)
                if not data:
                    return
            before = self.cycle
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:  # the head is there
                self.stop_waiting()
                self.head = 0
                if self.cycle is not before:
                    self.left = body_left(self.cycle.scope["headers"], data)
                return
            self.head += len(data)
            if self.head > _HEAD:
                self.transport.close()
            elif self.timer is None:
                self.timer = self.loop.call_later(head_s, self.transport.close)

        def gather(self, data: bytes) -> bytes:
            """A large piece of a body, when it is together; else nothing."""
            self.pieces.append(data)
            self.gathered += len(data)
            held.bytes += len(data)
            if self.gathered < min(self.left, _PIECE) and held.bytes < _GATHERED:
                return b""
            self.left = max(self.left - self.gathered, 0)
            return self.take()

        def take(self) -> bytes:
            found = b"".join(self.pieces)
            held.bytes -= self.gathered
            self.gathered = 0
            self.pieces.clear()
            return found

        def connection_lost(self, error: Exception | None) -> None:
            self.stop_waiting()
            self.take()
            super().connection_lost(error)

        def stop_waiting(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

    return Bounded


def body_left(headers: list[tuple[bytes, bytes]], data: bytes) -> int:
    """How many bytes of a request's body are still to come, where that is certain and many; else 0.

    Never more than there are, for they would be waited for.

    Args:
        headers: the request's, with names in lower case.
        data: the bytes that its head ended in.
    """
    lengths = [value for name, value in headers if name == b"content-length"]
    end = _END_OF_HEAD.search(data)
    if len(lengths) != 1 or end is None or any(name == b"transfer-encoding" for name, _ in headers):
        return 0
    left = int(lengths[0]) - (len(data) - end.end())
    return left if left > _SMALL else 0
