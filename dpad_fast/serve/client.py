"""`RemoteScorer`: `RewardScorer.score` by a server, or by several of them."""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from dpad_fast.clip.images import source_of
from dpad_fast.rewards.arguments import check_lengths, snapshot
from dpad_fast.rewards.background import PendingScore
from dpad_fast.rewards.batch import joined
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.spaces import ModelSizes
from dpad_fast.row_errors import RowErrors
from dpad_fast.serve import wire
from dpad_fast.serve.outgoing import (
    OutgoingRows,
    body_of,
    digests_of,
    file_bytes,
    key_entries,
    size_entries,
    target_entry,
    text_entry,
)
from dpad_fast.serve.settings import TOKEN_VARIABLE
from dpad_fast.serve.transport import Reply, Server, Transport
from dpad_fast.types import ScoreBatch, Target

_KNOWN = 200_000  # digests remembered per server
_PICTURES_AT_ONCE = 4
_BYTES = {"Content-Type": "application/octet-stream"}
_ROUNDS = 3  # of sending pictures that a server forgets at once; then they travel in the request


@dataclass(frozen=True)
class _About:
    """What the servers say of themselves."""

    identity: str
    config: RewardConfig
    rows: int
    body: int
    picture: int


@dataclass
class _Image:
    """An image of a call: its name in messages; what stands behind it; the key of plain pixels; what is sent for it."""

    name: str
    source: Any = None
    content: Hashable | None = None
    entry: dict[str, Any] | None = None


class RemoteScorer:
    """Scores like a `RewardScorer`, in the process of `dpad-fast serve`, wherever that is.

    `config`, `score` and `score_async` are a `RewardScorer`'s, with the same values to the bit, so that this goes
    wherever a scorer goes. Pictures are sent once, by the SHA-256 of their bytes, and stay what they are: files as they
    are, decoded ones without loss. It can be pickled, forked and used by several threads, and needs no package beside
    this one.

    A server that is not there, that is overloaded or that goes away in between is asked again, with the same request
    id: nothing is scored twice or lost while it lives, and after a restart scoring again gives the same numbers.

    Args:
        url: the server's address, or a list of several, which take turns; one that fails is left out for a while.
        token: what the servers want to see; None: what the environment variable DPAD_FAST_TOKEN says, if anything.
        retry_s: how long to try until a `ConnectionError`, in seconds.
        timeout_s: how long a server may stay silent, in seconds.
        send_paths: send a path as it is, relative to the server's `--root` or below it, instead of the file's bytes.

    Raises:
        ValueError: an address that is none.
    """

    def __init__(
        self,
        url: str | Sequence[str],
        token: str | None = None,
        *,
        retry_s: float = 300.0,
        timeout_s: float = 600.0,
        send_paths: bool = False,
    ) -> None:
        urls = [url] if isinstance(url, str) else list(url)
        if not urls:
            raise ValueError("url is an empty list; give the address of at least one server")
        token = os.environ.get(TOKEN_VARIABLE) or None if token is None else token
        if token is not None and not (isinstance(token, str) and token.isascii() and token.isprintable()):
            raise ValueError(f"token must be printable ASCII text (argument or {TOKEN_VARIABLE}), or None")
        self._arguments = (urls, token)
        self._settings = {"retry_s": retry_s, "timeout_s": timeout_s, "send_paths": send_paths}
        self._send_paths = send_paths
        self._transport = Transport(urls, token, timeout_s, retry_s)
        self._known: dict[str, dict[str, None]] = {address: {} for address in urls}
        self._about: _About | None = None
        self._sent: dict[Hashable, str] = {}  # SHA-256 by a faster digest of the pixels
        self._threads: tuple[int, ThreadPoolExecutor] | None = None
        weakref.finalize(self, self._transport.close)

    @property
    def config(self) -> RewardConfig:
        """The configuration of the servers' scorer.

        Raises:
            ConnectionError: none of them answered.
        """
        return self._servers().config

    def score(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None = None,
        image_keys: Sequence[Hashable] | None = None,
        model_sizes: ModelSizes | None = None,
        on_error: str = "raise",
    ) -> ScoreBatch:
        """`RewardScorer.score`, by a server.

        A call of more rows than a server takes is sent in pieces; that images of equal keys are equal is then looked at
        within each. `timings` are those of the batches that the rows were scored in.

        Raises:
            ValueError: as `RewardScorer.score` (of several bad rows the first is named), or the server refuses the
                request, for instance its token; gives its reason.
            RuntimeError: the scorer itself failed.
            ConnectionError: no server answered within `retry_s`.
        """
        keep = RowErrors(on_error).kept
        count = check_lengths(completions, targets, images, model_sizes)
        if images is not None and image_keys is not None and len(image_keys) != count:
            raise ValueError(f"image_keys has {len(image_keys)} entries for {count} images")
        if callable(model_sizes) and images is None:
            raise ValueError("images is missing: model_sizes is a function of their sizes")
        rows = self._rows(completions, targets, images, image_keys, model_sizes)
        batch = self._all(rows, count)
        if not keep:
            wrong = next((error for error in batch.errors if error is not None), None)
            if wrong is not None:
                raise ValueError(wrong)
        return batch

    def score_async(
        self,
        completions: Sequence[str],
        targets: Sequence[Target | str],
        images: Sequence[Any] | None = None,
        image_keys: Sequence[Hashable] | None = None,
        model_sizes: ModelSizes | None = None,
        on_error: str = "raise",
    ) -> PendingScore:
        """`score` in the background: returns at once a handle as `RewardScorer.score_async` does."""
        texts, truths, shown, keys, sizes = map(snapshot, (completions, targets, images, image_keys, model_sizes))
        if self._threads is None or self._threads[0] != os.getpid():
            self._threads = (os.getpid(), ThreadPoolExecutor(8, "dpad-remote"))
        return PendingScore(self._threads[1].submit(self.score, texts, truths, shown, keys, sizes, on_error))

    def close(self) -> None:
        """Ends the connections; a later call makes new ones."""
        self._transport.close()

    def __reduce__(self) -> Any:
        return _rebuild, (self._arguments, self._settings)

    def _servers(self) -> _About:
        """What the servers are; the first that answers is asked."""
        if self._about is None:
            deadline = self._transport.deadline()
            while (reply := self._transport.send(self._transport.next(), "GET", "/config")) is None:
                self._transport.pause(deadline)
            found = _right(reply).json()
            limits = found["limits"]
            config = RewardConfig.from_dict(found["config"])
            identity = reply.headers.get(wire.SCORER_ID.lower(), "")
            self._about = _About(identity, config, limits["rows"], limits["body"], limits["picture"])
        return self._about

    def _rows(self, completions: Any, targets: Any, images: Any, keys: Any, sizes: Any) -> OutgoingRows:
        made = OutgoingRows()
        made.columns["completions"] = [text_entry(text, f"completions[{i}]") for i, text in enumerate(completions)]
        seen: dict[int, Any] = {}  # a group's completions share a target
        made.columns["targets"] = [
            seen[id(target)] if id(target) in seen else seen.setdefault(id(target), target_entry(target, i))
            for i, target in enumerate(targets)
        ]
        shown = None if images is None else list(images)
        made.columns["images"] = None if shown is None else self._images(shown, made)
        made.columns["image_keys"] = None
        if shown is not None and keys is not None:
            made.columns["image_keys"] = key_entries(list(keys), made)
        made.columns["model_sizes"] = size_entries(sizes, shown)
        return made

    def _images(self, images: list[Any], made: OutgoingRows) -> list[Any]:
        """An entry per image; each distinct object is read once, and each distinct content written once."""
        objects: dict[Any, int] = {}
        for i, image in enumerate(images):
            objects.setdefault(_same(image), i)
        read = dict(zip(objects, _at_once(lambda i: self._read(images[i], i), list(objects.values())), strict=True))
        open_ones = [found for found in read.values() if found.entry is None]
        distinct = {found.content or found.name: found for found in reversed(open_ones)}
        if distinct:
            made.server = self._transport.next()
        _at_once(lambda found: self._write(found, made), list(distinct.values()))
        entries = []
        for i, image in enumerate(images):
            found = read[_same(image)]
            if found.entry is not None and "error" in found.entry and objects[_same(image)] != i:
                found = self._read(image, i)  # what is wrong is said of each row by its own name
            if found.entry is None:
                self._write(found, made)
            entries.append(found.entry)
        return entries

    def _read(self, image: Any, i: int) -> _Image:
        name = f"images[{i}]"
        try:
            source = source_of(image, name)
            if isinstance(source, str) and self._send_paths:
                return _Image(name, entry={"path": source})
            if not wire.looks(self.config):
                return _Image(name, entry=wire.size_out(source, name))
            if isinstance(source, str):
                source = file_bytes(source, name)
            # A trainer hands over an object per completion: pixels that were sent are not written and hashed again.
            return _Image(name, source, wire.plain_content(source, name))
        except ValueError as error:
            return _Image(name, entry=wire.failure_out(error))

    def _write(self, found: _Image, made: OutgoingRows) -> None:
        """Makes the entry, and what is to be sent where a server does not know it."""
        source, name, content = found.source, found.name, found.content

        def again() -> bytes:
            return wire.picture_out(source, name).content

        if content is not None and content in self._sent:
            digest = self._sent[content]
            made.pictures.setdefault(digest, again)
            found.entry = {"sha256": digest}
            return
        try:
            picture, most = wire.picture_out(source, name), self._servers().picture
            if len(picture.content) > most:
                raise ValueError(f"{name} has {len(picture.content)} bytes, more than the {most} that the server takes")
        except ValueError as error:
            found.entry = wire.failure_out(error)
            return
        digest = (None if content is None else self._named(made, picture.content)) or picture.sha256()
        if content is not None:
            if len(self._sent) >= _KNOWN:
                self._sent.clear()
            self._sent[content] = digest
        # Large ones are not kept until the end of the call; most were sent by now.
        made.pictures.setdefault(digest, (lambda: picture.content) if content is None else again)
        found.entry = {"sha256": digest} | ({} if picture.shape is None else {"shape": list(picture.shape)})

    def _named(self, made: OutgoingRows, content: bytes) -> str | None:
        """Sends a new picture at once, and the server finds its SHA-256; None where it did not."""
        server = made.server
        if server is None:
            return None
        reply = self._transport.send(server, "POST", "/pictures", content, _BYTES)
        if reply is None or reply.status != 200:  # what a server says against it, it says again when it gets the rows
            made.server = None  # one that is silent is not waited for with each picture
            return None
        digest = str(reply.json()["sha256"])
        self._remember(server, digest)
        return digest

    def _all(self, rows: OutgoingRows, count: int) -> ScoreBatch:
        most = max(self._servers().rows, 1)
        parts = [self._piece(rows, first, min(first + most, count)) for first in range(0, max(count, 1), most)]
        return parts[0] if len(parts) == 1 else joined(parts)

    def _piece(self, rows: OutgoingRows, first: int, end: int) -> ScoreBatch:
        """Some rows in one request; in two, where it is too large, or holds more than the server takes at once."""
        body, one = body_of(rows, first, end), end - first <= 1
        values = self._post(rows, first, end, body) if one or len(body) <= self._servers().body else None
        if values is None:
            middle = (first + end) // 2
            return joined([self._piece(rows, first, middle), self._piece(rows, middle, end)])
        batch = wire.scores_in(values, end - first)
        if first == 0:
            return batch
        return joined([batch], first)

    def _post(self, rows: OutgoingRows, first: int, end: int, body: bytes) -> Any:
        """The answer; None where several rows are more than the server takes or keeps at once."""
        name, rounds = uuid.uuid4().hex, 0
        deadline = self._transport.deadline()
        needed = digests_of(rows, first, end)
        while True:
            server, rows.server = rows.server or self._transport.next(), None
            reply = None
            if rounds > _ROUNDS or self._brought(server, rows, needed):
                headers = {wire.REQUEST_ID: name}
                reply = self._transport.send(server, "POST", "/score", body, headers)
            if reply is None:
                self._transport.pause(deadline)
                continue
            if reply.status == 409:
                for digest in reply.json()["missing"]:
                    self._known[server.url].pop(digest, None)
                rounds += 1
                if rounds > 1 and end - first > 1:
                    return None  # it does not keep as many pictures as these rows have
                if rounds > _ROUNDS:  # it forgets them as fast as they come
                    body, name = body_of(rows, first, end, inline=True), uuid.uuid4().hex
                continue
            if reply.status == 413 and end - first > 1:
                return None
            found = _right(reply)
            if found.headers.get(wire.SCORER_ID.lower(), "") != self._servers().identity:
                raise ValueError(
                    f"{server.url} scores otherwise than the server that was asked first: its configuration, encoder "
                    "or version is another"
                )
            return found.json()

    def _brought(self, server: Server, rows: OutgoingRows, needed: list[str]) -> bool:
        """Sends a server the pictures that it was not sent before; False where it did not answer."""
        known = self._known[server.url]

        def bring(digest: str) -> bool:
            reply = self._transport.send(server, "PUT", f"/pictures/{digest}", rows.pictures[digest](), _BYTES)
            if reply is None:
                return False
            _right(reply)
            self._remember(server, digest)
            return True

        return all(_at_once(bring, [digest for digest in needed if digest not in known]))

    def _remember(self, server: Server, digest: str) -> None:
        known = self._known[server.url]
        if len(known) >= _KNOWN:
            known.clear()
        known[digest] = None


def _same(image: Any) -> Any:
    """Equal for what is read once in a call: one object, which the call keeps alive, or one path."""
    return image if isinstance(image, str) else id(image)


def _at_once(function: Callable[[Any], Any], values: list[Any]) -> list[Any]:
    """The function's values: hashing and sending of large pictures need no interpreter, so several go on together."""
    if len(values) < 2:
        return [function(value) for value in values]
    with ThreadPoolExecutor(min(_PICTURES_AT_ONCE, len(values)), "dpad-pictures") as pool:
        return list(pool.map(function, values))


def _rebuild(arguments: Any, settings: Any) -> RemoteScorer:
    return RemoteScorer(*arguments, **settings)


def _right(reply: Reply) -> Reply:
    """The reply, where it is what was asked for; else its reason is raised."""
    if reply.status < 300:
        return reply
    if reply.status >= 500:
        raise RuntimeError(reply.reason())
    raise ValueError(reply.reason())
