"""What every request passes before it reaches its endpoint: the token, the host's name, and limits of size and time."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from dpad_fast.serve.metrics import Metrics
from dpad_fast.serve.settings import Refusal, Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Endpoint = Callable[[Request], Awaitable[Response]]
_OPEN = ("/healthz",)


class Budget:
    """Bytes that requests in flight hold; beyond the most, the next one is told to come again."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0

    def take(self, count: int) -> None:
        """Adds to what is held, or raises a `Refusal` of 503."""
        if self.held + count > self.most:
            raise Refusal(503, "the server holds as many bytes as it may; try again", retry_s=1)
        self.held += count

    def give(self, count: int) -> None:
        """Takes it back."""
        self.held -= count


class Guard:
    """An ASGI application around another: checks, counts, and turns what is raised into an answer with its reason.

    Args:
        app: the other.
        settings: rights and limits.
        metrics: what counts.
        quick: the endpoint of a method and a path, where it is called without the application around it, whose own part
            of a request is a third of what one row costs.
    """

    def __init__(
        self, app: Any, settings: Settings, metrics: Metrics, quick: Callable[[str, str], Endpoint | None]
    ) -> None:
        self._app, self._settings, self._metrics, self._quick = app, settings, metrics, quick
        self._token = None if settings.token is None else settings.token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        started, status = time.perf_counter(), 500
        begun = False

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
            await send(message)

        try:
            self._check(scope)
            quick = self._quick(scope["method"], scope["path"])
            if quick is None:
                await self._app(scope, receive, watched)
            else:
                await (await quick(Request(scope, receive)))(scope, receive, watched)
        except Refusal as refusal:
            await _refuse(watched, refusal)
        except Exception as error:
            logging.getLogger(__name__).exception("a request failed")
            if not begun:
                await _refuse(watched, Refusal(500, f"the server failed: {type(error).__name__}: {error}"[:500]))
        finally:
            self._metrics.request(scope["path"], status, time.perf_counter() - started)

    def _check(self, scope: Scope) -> None:
        headers = {name: value for name, value in scope["headers"]}
        if self._token is None and self._settings.hosts:
            host = headers.get(b"host", b"").decode("latin-1").lower()
            name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
            if name not in self._settings.hosts:  # a page in a browser that had its name point here
                raise Refusal(421, f"this server answers to {', '.join(self._settings.hosts)}, not to {name!r:.80}")
        if self._token is not None and scope["path"] not in _OPEN and not self._shown(scope, headers):
            raise Refusal(401, "the token is missing or wrong: Authorization: Bearer TOKEN, or ?token=TOKEN")
        coding = headers.get(b"content-encoding", b"identity").decode("latin-1").lower()
        if coding != "identity":
            raise Refusal(415, f"a body in Content-Encoding {coding!r:.40} is not read; send it as it is")

    def _shown(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        assert self._token is not None
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() != b"bearer":
            values = parse_qs(scope.get("query_string", b"")[:4096]).get(b"token", [b""])
            given = values[0]
        return hmac.compare_digest(given.strip(), self._token)


def refusal_parts(refusal: Refusal) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a refusal.

    It ends the connection, because the rest of the body may never be read. After a 409 the whole body was read.
    """
    body = json.dumps({"error": refusal.reason, "missing": refusal.missing}).encode()
    headers = {"content-type": "application/json", "x-content-type-options": "nosniff"}
    if refusal.status != 409:
        headers["connection"] = "close"
    if refusal.retry_s is not None:
        headers["retry-after"] = str(refusal.retry_s)
    return body, headers


async def _refuse(send: Send, refusal: Refusal) -> None:
    body, headers = refusal_parts(refusal)
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    pairs.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": refusal.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


async def read_body(request: Request, most: int, settings: Settings, budget: Budget, *, kind: str | None) -> bytes:
    """The body of a request, whose bytes are then held in the budget; the caller gives them back.

    Args:
        request: whose.
        most: bytes.
        settings: how long it may take.
        budget: of all requests.
        kind: the media type that it must have, or None.

    Raises:
        Refusal: 413 too large, 408 too slow, 415 another media type, 400 cut short, 503 no room.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind is not None and given != kind:
        raise Refusal(415, f"the body must be {kind}, got {given or 'no Content-Type'!r:.80}")
    length = request.headers.get("content-length")
    if length is not None and int(length) > most:
        raise Refusal(413, f"the body has {length:.20} bytes, more than the {most} that are read")
    chunks: list[bytes] = []
    try:
        with _Deadline(settings.body_s) as deadline:
            await _collect(request, most, budget, chunks)
    except BaseException:
        budget.give(sum(map(len, chunks)))
        if deadline.passed:
            raise Refusal(408, f"the body did not arrive within {settings.body_s:g} s") from None
        raise
    return b"".join(chunks)


class _Deadline:
    """Ends what a task waits for inside; without a task of its own, as `asyncio.timeout`, which Python 3.10 lacks."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._seconds = seconds

    def __enter__(self) -> _Deadline:
        self._task: Any = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._end)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self.passed and hasattr(self._task, "uncancel"):
            self._task.uncancel()

    def _end(self) -> None:
        self.passed = self._task.cancel()


async def _collect(request: Request, most: int, budget: Budget, chunks: list[bytes]) -> None:
    count = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "the connection ended before the body did")
        chunk = message.get("body", b"")
        count += len(chunk)
        if count > most:
            raise Refusal(413, f"the body has more than the {most} bytes that are read")
        budget.take(len(chunk))
        chunks.append(chunk)
        more = message.get("more_body", False)
