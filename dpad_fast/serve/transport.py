"""HTTP of the standard library, for the client: several servers in turn, connections that are kept, patience."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_AGAIN = (408, 429, 502, 503, 504)
_IDLE_S = 30.0
_LONGEST_PAUSE_S = 5.0
_CONNECT_S = 10.0  # a machine that is gone says nothing at all


@dataclass
class Reply:
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def reason(self) -> str:
        """Why it did not do as asked, in its own words."""
        with suppress(ValueError, KeyError, TypeError):
            return str(json.loads(self.body)["error"])
        return self.body[:200].decode("utf-8", "replace") or f"status {self.status}"

    def json(self) -> Any:
        """The body as plain data; a `ValueError` where it is none."""
        return json.loads(self.body)


@dataclass
class Server:
    """One server: its address, connections that nobody uses, and until when it is left alone."""

    url: str
    idle: list[tuple[float, http.client.HTTPConnection]] = field(default_factory=list)
    down_until: float = 0.0
    pauses: int = 0
    said: object = "silent"

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        try:
            self.port = parts.port
        except ValueError:
            self.port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or self.port == 0 or parts.query:
            raise ValueError(f"url must be http://HOST:PORT or https://HOST:PORT, got {self.url!r:.200}")
        self.host, self.secure, self.path = parts.hostname, parts.scheme == "https", parts.path.rstrip("/")

    def connect(self, timeout_s: float) -> http.client.HTTPConnection:
        """A new connection; an `OSError` where nobody takes it."""
        connect_s = min(timeout_s, _CONNECT_S)
        made = http.client.HTTPConnection(self.host, self.port, timeout=connect_s)
        if self.secure:
            context = ssl.create_default_context()
            made = http.client.HTTPSConnection(self.host, self.port, timeout=connect_s, context=context)
        made.connect()
        made.timeout = timeout_s
        made.sock.settimeout(timeout_s)
        return made


class Transport:
    """Sends requests to servers in turn until one of them answers. Used from several threads.

    Args:
        urls: the servers' addresses.
        token: what they want to see, or None.
        timeout_s: how long one of them may stay silent.
        retry_s: how long to try, over all of them.
    """

    def __init__(self, urls: Sequence[str], token: str | None, timeout_s: float, retry_s: float) -> None:
        self.servers = [Server(url) for url in urls]
        self._token, self._timeout_s, self._retry_s = token, timeout_s, retry_s
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._turn = 0

    def next(self) -> Server:
        """The server whose turn it is, of those that are not left alone for now."""
        self._fresh()
        with self._lock:
            now = time.monotonic()
            up = [server for server in self.servers if server.down_until <= now] or [
                min(self.servers, key=lambda server: server.down_until)
            ]
            self._turn += 1
            return up[self._turn % len(up)]

    def send(
        self,
        server: Server,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply | None:
        """One request to one server; None where it did not answer or wants to be asked later."""
        sent = {"Content-Type": "application/json", **(headers or {})}
        if self._token is not None:
            sent["Authorization"] = f"Bearer {self._token}"
        try:
            reply = self._exchange(server, method, server.path + path, body, sent)
        except (OSError, http.client.HTTPException) as error:
            self._leave(server, None, error)
            return None
        if reply.status in _AGAIN:
            self._leave(server, reply.headers.get("retry-after"), reply.reason())
            return None
        server.pauses, server.down_until = 0, 0.0
        return reply

    def deadline(self) -> float:
        """When to give up what is begun now."""
        return time.monotonic() + self._retry_s

    def pause(self, deadline: float) -> None:
        """Waits until a server may be asked again.

        Raises:
            ConnectionError: no server answered in the time given; says what each of them last did.
        """
        now = time.monotonic()
        if now >= deadline:
            said = "; ".join(f"{server.url}: {server.said}" for server in self.servers)
            raise ConnectionError(f"no server scored this within {self._retry_s:g} s: {said}")
        wait = min(server.down_until for server in self.servers) - now
        if wait > 0:
            time.sleep(min(wait, max(deadline - now, 0.0)))

    def close(self) -> None:
        """Ends the connections that are kept."""
        self._fresh()
        with self._lock:
            for server in self.servers:
                while server.idle:
                    server.idle.pop()[1].close()

    def _leave(self, server: Server, after: str | None, said: object) -> None:
        server.said = said
        wait = min(0.05 * 2 ** min(server.pauses, 10), _LONGEST_PAUSE_S)
        with suppress(ValueError):
            wait = max(wait, min(float(after or 0), 60.0))
        server.pauses += 1
        # Callers that were turned away together come back apart.
        server.down_until = time.monotonic() + wait * random.uniform(0.5, 1.0)

    def _exchange(
        self, server: Server, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Reply:
        while True:
            connection, kept = self._take(server)
            try:
                with _in_one(connection.sock):
                    connection.request(method, path, body, dict(headers))
                answer = connection.getresponse()
                reply = Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if kept and not isinstance(error, TimeoutError):
                    continue  # the server may have ended it while nobody looked; a new one tells
                raise
            if answer.will_close:
                connection.close()
            else:
                with self._lock:
                    server.idle.append((time.monotonic(), connection))
            return reply

    def _take(self, server: Server) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            while server.idle:
                since, connection = server.idle.pop()
                if time.monotonic() - since < _IDLE_S:
                    return connection, True
                connection.close()
        return server.connect(self._timeout_s), False

    def _fresh(self) -> None:
        """A forked child uses no connection of its parent's: two would read one answer."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._lock = threading.Lock()
            for server in self.servers:
                server.idle = []


@contextmanager
def _in_one(connection: socket.socket) -> Iterator[None]:
    """Sends a head and what follows it in packets that are as full as can be: the server wakes once for a small one."""
    cork = getattr(socket, "TCP_CORK", None)  # Linux alone
    if cork is not None:
        connection.setsockopt(socket.IPPROTO_TCP, cork, 1)
    yield
    if cork is not None:
        connection.setsockopt(socket.IPPROTO_TCP, cork, 0)
