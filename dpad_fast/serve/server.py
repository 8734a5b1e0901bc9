"""Runs the application on a socket until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from dpad_fast.serve.app import ScoreServer, make_app

_HEAD = 1 << 16  # bytes of a request's first line and headers
LOCAL = ("localhost", "127.0.0.1", "::1", "[::1]")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OSError: the address is taken or is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By its number: asyncio switches Nagle's algorithm off only where it sees TCP, and each answer would be 40 ms late.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found.bind((host, port))
        found.listen(2048)
    except OSError as error:
        found.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return found


def serve(server: ScoreServer, listening: socket.socket, ready: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; what was accepted by then is answered.

    Args:
        server: the endpoints.
        listening: from `listen`.
        ready: called with the server's address when it answers.
    """
    running = runner(server, listening, ready)

    def stop(*_: object) -> None:
        running.should_exit = True

    # uvicorn raises the signal again when it has stopped, which would look like a process that was killed.
    before = signal.signal(signal.SIGTERM, stop)
    try:
        running.run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)


def runner(server: ScoreServer, listening: socket.socket, ready: Callable[[str], None]) -> Any:
    """The `uvicorn.Server` that `serve` runs; the arguments are the same."""
    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    config = uvicorn.Config(
        make_app(server),
        access_log=False,  # addresses may hold tokens
        log_level="warning",
        log_config=None,
        lifespan="on",
        http=_connection(server.settings.head_s),
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(server.settings.answer_s + server.settings.body_s),
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)

    class Announced(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if not self.should_exit:
                ready(address)

    return Announced(config)


def _connection(head_s: float) -> type[Any]:
    """A connection of uvicorn's, which alone waits for a head for ever, and with httptools takes one of any length."""

    class Bounded(AutoHTTPProtocol):
        timer: asyncio.TimerHandle | None = None
        head = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.timer = self.loop.call_later(head_s, transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:  # the head is there
                self.stop_waiting()
                self.head = 0
                return
            self.head += len(data)
            if self.head > _HEAD:
                self.transport.close()
            elif self.timer is None:
                self.timer = self.loop.call_later(head_s, self.transport.close)

        def connection_lost(self, error: Exception | None) -> None:
            self.stop_waiting()
            super().connection_lost(error)

        def stop_waiting(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

    return Bounded
