"""Runs the application on a socket until it is told to stop."""

from __future__ import annotations

import gc
import logging
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from dpad_fast.serve.app import ScoreServer, make_app
from dpad_fast.serve.connection import bounded_connection

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
    # Half a million objects of torch's and others' stay anyway; to look for garbage among them took 0.3 s each time, in
    # which nobody was answered.
    gc.collect()
    gc.freeze()
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
        http=bounded_connection(server.settings.head_s),
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
