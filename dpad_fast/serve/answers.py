"""Requests that carry an id are done once: who asks again waits for the same work, or gets the same answer."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from dpad_fast.serve.settings import Refusal

_LONGEST_ID = 200


class Answers:
    """Answers by request id, bounded in bytes; the oldest go first. Used on one event loop."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._running: dict[str, tuple[bytes, asyncio.Task[bytes]]] = {}
        self._done: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()

    async def get(self, name: str | None, body: bytes, work: Callable[[], Awaitable[bytes]], wait_s: float) -> bytes:
        """The answer to a request.

        Args:
            name: its id; None: it is done, whoever asked before.
            body: its content; an id stands for one content.
            work: makes the answer. It goes on when the caller leaves or is told to come again.
            wait_s: how long to wait for it, in seconds.

        Raises:
            Refusal: 422, the id is too long or stands for another content; 503, it takes longer.
        """
        known = None
        if name is None:
            task = asyncio.ensure_future(work())
        else:
            if len(name) > _LONGEST_ID:
                raise Refusal(422, f"a request id has more than {_LONGEST_ID} characters")
            digest = hashlib.sha256(body).digest()
            known = self._done.get(name) or self._running.get(name)
            if known is not None and known[0] != digest:
                raise Refusal(422, f"the request id {name!r:.80} stands for another request")
            if known is None:
                task = asyncio.ensure_future(self._kept(name, digest, work))
                self._running[name] = (digest, task)
            elif isinstance(known[1], bytes):
                return known[1]
            else:
                task = known[1]
        done, _ = await asyncio.wait({task}, timeout=wait_s)
        if not done:
            raise Refusal(
                503, f"not scored within {wait_s:g} s; ask again with the same {'id' if name else 'rows'}", retry_s=5
            )
        try:
            return task.result()
        finally:
            del task, done, known  # a failure's traceback and this frame would keep each other, and the body

    async def _kept(self, name: str, digest: bytes, work: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            answer = await work()
        finally:
            del self._running[name]  # what failed may be tried again
        self._done[name] = (digest, answer)
        self._bytes += len(answer)
        while self._bytes > self._most and len(self._done) > 1:
            _, (_, dropped) = self._done.popitem(last=False)
            self._bytes -= len(dropped)
        return answer
