"""Requests that mean a server no good, and an attack of many of them: what it answers, and its memory on the way."""

from __future__ import annotations

import base64
import json
import os
import random
import socket
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from dpad_fast.testing import rewards as shared
from dpad_fast.testing.serving import Running, ask, bomb, png_chunk, request, score_body

_SLOW = 60  # connections of each kind that send a byte now and then
_AT_ONCE = 8
_PATIENCE_S = 90.0

ESCAPES = (
    "../x", "/etc/passwd", "a/../../x", "....//x", "/proc/self/environ", "/dev/zero", "/dev/stdin", "link", "out/x",
    "..\\x", "loop", "chain", "pipe", "out/secret.png", "%2e%2e/x", "~/x", "\0", "a\0b", "/", "..",
    "x" * 4000, "file:///etc/passwd", "./../" * 50 + "etc/passwd",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, 10**30, "", "x", "\ud800", [], {}, [[]], {"error": 5}, {"error": "x" * 3000}, [None] * 3,
    {"base64": "!"}, {"sha256": "0" * 64}, {"sha256": "0"}, {"path": 7}, {"base64": "", "path": "a"}, {"x": 1},
    "9" * 5000,
    {"box": [1, 2, 3]}, {"box": ["1", "2", "3", "4"]}, {"mask": {"size": [1 << 20, 1 << 20], "counts": "0"}},
    {"mask": {"size": [-1, 5], "counts": "0"}}, {"mask": {"size": [5, 5], "counts": "\uffff"}}, {"polygons": [[[1]]]},
    {"mask": {"size": [72, 96], "counts": "A" * 50000}}, {"base64": "AAAA", "shape": [1 << 20, 1 << 20, 3]},
    {"base64": "AAAA", "shape": [0, 1]}, {"base64": "AAAA", "shape": [1, 1, 1, 1]}, {"points": [[1, 2]]},
    {"image_size": [0, 0]}, {"objects": [[[1, 2, 3, 4], [1]]]}, {"text": 5},
)  # fmt: skip


@dataclass(frozen=True)
class Hostile:
    """A request that something is wrong with.

    Attributes:
        kind: what, in a word.
        raw: its bytes.
        finish: whether it breaks off, and would be waited for.
    """

    kind: str
    raw: bytes
    finish: bool = False


def hostile_request(rng: random.Random) -> Hostile:
    """One of any kind."""
    kind = rng.choice(list(_KINDS))
    raw = _KINDS[kind](rng)
    return Hostile(kind, raw, kind == "truncated" or b"\r\n\r\n" not in raw or b"chunked" in raw)


def _score(**columns: Any) -> bytes:
    return request("POST", "/score", json.dumps(score_body(**columns)).encode())


def _path(rng: random.Random) -> str:
    return rng.choice(("/score", "/score", "/score", "/openrlhf", "/slime"))


def _deep(rng: random.Random) -> bytes:
    text = rng.choice(("[", '{"a":', '{"completions":[', '[{"text":')) * rng.choice((50, 5000, 100_000))
    return request("POST", _path(rng), text.encode())


@cache
def _swollen(mebibytes: int) -> bytes:
    """Few bytes that become many."""
    return zlib.compress(bytes(mebibytes << 20), 9)


def _picture_bomb(rng: random.Random) -> bytes:
    """Too many pixels, as many as are allowed and none behind them, compressed notes that swell, and no picture."""
    swollen = _swollen(64)
    notes = (
        png_chunk(b"zTXt", b"Comment\0\0" + swollen),
        png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + swollen),
        png_chunk(b"iCCP", b"icc\0\0" + swollen),
    )
    content = rng.choice(
        (
            *(bomb(side, side) for side in (60_000, 1 << 30, 20_000, 8_000)),
            bomb(96, 72, rng.choice(notes)),
            b"\x89PNG" + bytes(99),
            b"GIF89a\xff\xff\xff\xff" + bytes(99),
            b"II*\0\x08\0\0\0\xff\xff" + rng.randbytes(600),
        )
    )
    return _score(images=[{"base64": base64.b64encode(content).decode()}])


def _escape(rng: random.Random) -> bytes:
    return _score(images=[{"path": rng.choice(ESCAPES)}])


def _label(rng: random.Random) -> bytes:
    """OpenRLHF's and slime's forms, with paths and values in their labels."""
    label = {"solution": shared.SOLUTION, "image": rng.choice(ESCAPES)} | rng.choice(({}, {"x": 1}, {"image_size": 3}))
    value = rng.choice((json.dumps(label), label, "{" * 50, rng.choice(_VALUES)))
    if rng.random() < 0.5:
        return request("POST", "/slime", json.dumps({"prompt": 1, "response": "x", "label": value}).encode())
    body = {"query": ["prompt answer"], "prompts": [rng.choice(("prompt", "other" * 20))], "labels": [value]}
    return request("POST", "/openrlhf", json.dumps(body).encode())


def _wrong_type(rng: random.Random) -> bytes:
    body = score_body()
    name = rng.choice((*body, "image_keys", "model_sizes", "key_names", "unknown"))
    body[name] = rng.choice((rng.choice(_VALUES), [rng.choice(_VALUES)], [rng.choice(_VALUES)] * 2))
    return request("POST", _path(rng), json.dumps(body).encode())


def _not_json(rng: random.Random) -> bytes:
    """NaN, numbers without end, keys twice, text that is no Unicode, wrong media types."""
    whole = json.dumps(score_body())
    body = rng.choice(
        (
            b'{"completions": [NaN], "targets": [Infinity]}',
            b'{"completions": ["x"], "targets": [{"box": [1, 2, 3, NaN]}]}',
            b'{"completions": ["x"], "targets": [{"box": [1, 2, 3, 1e999]}]}',
            b'{"completions": ["x"], "targets": [{"box": [1, 2, 3, ' + b"9" * 100_000 + b"]}]}",
            whole[:-1].encode() + b', "targets": ["y", "z"]}',
            b'{"completions": ["x"], ' * 1000 + b'"targets": ["x"]' + b"}" * 1000,
            b'{"completions": ["\\ud800"], "targets": ["x"]}',
            b"\xff\xfe{}",
            whole.encode() + b"x",
            b"",
        )
    )
    return request("POST", _path(rng), body)


def _truncated(rng: random.Random) -> bytes:
    whole = request("POST", "/score", json.dumps(score_body()).encode())
    return whole[: rng.randrange(len(whole))]


def _sizes(rng: random.Random) -> bytes:
    """Lengths that are too large, contradict or mean nothing; encodings; digests of other bytes."""
    packed = _swollen(10)
    return rng.choice(
        (
            request("POST", "/score", b"{}", content_length=1 << 40),
            request("POST", "/score", b'{"completions": []}GET / HTTP/1.1', content_length=2),
            request("POST", "/score", b"{}", content_length="2\r\ncontent-length: 3"),
            request("POST", "/score", b"0\r\n\r\n", content_length=5, transfer_encoding="chunked"),
            request("POST", "/score", b"{}", content_length="-5"),
            request("POST", "/score", b"{}", content_length="5, 6"),
            request("POST", "/score", b"zz\r\n{}", content_length=None, transfer_encoding="chunked"),
            request("POST", "/score", b"7fffffff\r\n{}", content_length=None, transfer_encoding="chunked"),
            request("POST", "/score", packed, content_encoding="deflate"),
            request("POST", "/score", packed, content_encoding="gzip"),
            request("PUT", "/pictures/" + "0" * 64, b"other bytes"),
            request("PUT", "/pictures/..%2f..%2fetc%2fpasswd", b"x"),
            request("PUT", "/pictures/" + "0" * 64, b"x", content_length=1 << 33),
        )
    )


_DENSE = {
    "/score": (
        '{"completions":[%s],"targets":["x"]}', '{"completions":["x"],"targets":[%s]}',
        '{"completions":["x"],"targets":["x"],"images":[%s]}',
        '{"completions":["x"],"targets":["x"],"image_keys":[%s]}',
        '{"completions":["x"],"targets":[{"polygons":[[%s]]}]}', '{"completions":["x"],"targets":[{"objects":[%s]}]}',
        '{"completions":["x"],"targets":["x"],"unknown":[%s]}',
    ),
    "/openrlhf": ('{"query":[%s],"prompts":["x"],"labels":["x"]}', '{"query":["x"],"prompts":["x"],"labels":[%s]}'),
    "/slime": ('{"response":"x","label":[%s]}', '{"response":"x","label":{"solution":"x","image":[%s]}}'),
}  # fmt: skip
_KEYS = (
    '{"completions":["x"],"targets":["x"],%s}', '{"completions":["x"],"targets":[{%s}]}',
    '{"completions":["x"],"targets":["x"],"images":[{%s}]}', '{"completions":["x"],"targets":["x"],"key_names":{%s}}',
)  # fmt: skip


@cache
def _dense(unit: str, count: int) -> str:
    return ",".join([unit] * count)


@cache
def _keys(count: int) -> str:
    return ",".join(f'"{i}":0' for i in range(count))


def _unfolding(rng: random.Random) -> bytes:
    """Few bytes that become many values, messages, pixels or seconds."""
    count = rng.choice((30, 3_000, 30_000, 1_000_000))
    kind = rng.randrange(8)
    if kind == 0:
        return request("POST", "/score", (rng.choice(_KEYS) % _keys(count)).encode())
    if kind == 1:  # a label's text, whose commas the body does not show
        hidden = "{" + _keys(min(count, 30_000)) + "}"
        label = json.dumps(hidden).replace(",", "\\u002c")
        return request("POST", "/slime", f'{{"response":"x","label":{label}}}'.encode())
    if kind == 2:
        side = rng.choice((1_000, 9_000, 20_000, 1 << 16))
        mask = {"size": [side, side], "counts": run_lengths(side * side)}
        return _score(targets=[{"box": [1, 2, 30, 40], "points": [[3, 4], [5, 6]], "mask": mask}])
    if kind == 3:  # what looks like the end of a turn again and again, and is not
        response = rng.choice(("<|im_end|>", "\n", "<|", "<answer>")) * 50_000 + "x"
        return request("POST", "/slime", json.dumps({"response": response, "label": shared.SOLUTION}).encode())
    path = rng.choice(list(_DENSE))
    unit = rng.choice(("0", "[]", "{}", '""', "null", "[0,0]", '{"a":0,"b":0}'))
    return request("POST", path, (rng.choice(_DENSE[path]) % _dense(unit, count)).encode())


def run_lengths(*runs: int) -> str:
    """COCO's compressed counts of the first three runs of a mask."""
    text = ""
    for run in runs[:3]:  # the fourth is written as a difference
        more = True
        while more:
            digit, run = run & 31, run >> 5
            more = run != 0 or digit & 16 != 0
            text += chr(48 + digit + 32 * more)
    return text


def _garbage(rng: random.Random) -> bytes:
    """What is no request, or one to nowhere."""
    return rng.choice(
        (
            rng.randbytes(rng.randrange(1, 2000)),
            b"GET " + b"/" * 100_000,
            b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000,
            request("GET", "/score"),
            request("DELETE", "/pictures/" + "0" * 64),
            request("POST", "/" + "x" * 3000, b"{}"),
            request("POST", "/score", b"{}", content_type="text/plain"),
            request("POST", "/score", json.dumps(score_body()).encode(), x_request_id="x" * 3000),
            request("POST", "/score", json.dumps(score_body()).encode(), host="evil.example"),
            request("GET", "/score", upgrade="websocket", connection="upgrade"),
        )
    )


_KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "truncated": _truncated,
    "sizes": _sizes,
    "garbage": _garbage,
    "deep": _deep,
    "picture bomb": _picture_bomb,
    "escape": _escape,
    "label": _label,
    "wrong type": _wrong_type,
    "not json": _not_json,
    "unfolding": _unfolding,
}


@dataclass
class Attacked:
    """What came of an attack.

    Attributes:
        statuses: answers by status; 0: the connection ended without one.
        by_kind: the same by kind of request.
        memory: resident bytes of the server, from before the first request to after the last.
        failures: answers that are crashes or give no reason, and connections that were not ended.
        right: whether the server still gives the scores that it gave before.
    """

    statuses: dict[int, int] = field(default_factory=dict)
    by_kind: dict[str, dict[int, int]] = field(default_factory=dict)
    memory: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    right: bool = False

    def grown(self) -> float:
        """By how much the last quarter's median of `memory` is above the second's; the first leads to a plateau."""
        quarter = max(len(self.memory) // 4, 1)
        return median(self.memory[-quarter:]) - median(self.memory[quarter : 2 * quarter] or self.memory)


def attack(count: int, seed: int = 0) -> Attacked:
    """Sends hostile requests, 8 at once, while others send theirs a byte at a time and never end.

    Args:
        count: requests.
        seed: of their kinds.
    """
    found, lock = Attacked(), threading.Lock()
    with TemporaryDirectory() as folder:
        server = Running("--set", "shape=margin", "--root", _root(Path(folder)))

        def send(hostile: Hostile) -> None:
            status, _, body = ask(server.port, hostile.raw, finish=hostile.finish)
            with lock:
                _count(found, hostile, status, body)

        try:
            good = request("POST", "/score", json.dumps(score_body(4)).encode())
            before = json.loads(ask(server.port, good)[2])["total"]
            slow = [_slow_start(server.port, i) for i in range(2 * _SLOW)]
            rng = random.Random(seed)
            found.memory.append(server.memory())
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                for first in range(0, count, max(count // 20, 1)):
                    some = [hostile_request(rng) for _ in range(min(max(count // 20, 1), count - first))]
                    list(pool.map(send, some))
                    _slow_on(slow)
                    found.memory.append(server.memory())
            found.failures += _slow_end(slow)
            found.memory.append(server.memory())
            found.right = json.loads(ask(server.port, good)[2])["total"] == before
        finally:
            server.stop()
    return found


def _root(folder: Path) -> Path:
    """A folder for `--root` with links that lead out of it, and in circles."""
    root = folder / "root"
    root.mkdir()
    (folder / "secret.png").write_bytes(bomb(96, 72))
    for name, to in (("link", "/etc/passwd"), ("out", folder), ("loop", root / "loop"), ("chain", root / "link")):
        (root / name).symlink_to(to)
    os.mkfifo(root / "pipe")
    return root


def _count(found: Attacked, hostile: Hostile, status: int, body: bytes) -> None:
    for counts in (found.statuses, found.by_kind.setdefault(hostile.kind, {})):
        counts[status] = counts.get(status, 0) + 1
    if status >= 500:
        found.failures.append(f"{status} for {hostile.kind}: {hostile.raw[:200]!r}: {body[:200]!r}")
    if status >= 400 and body[:1] == b"{" and not json.loads(body)["error"]:
        found.failures.append(f"{status} without a reason for {hostile.kind}: {hostile.raw[:200]!r}")


def _slow_start(port: int, i: int) -> socket.socket:
    """A connection whose head, or whose body, does not end."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_S)
    whole = request("POST", "/score", b"{" + b" " * 10_000)
    connection.sendall(whole[: whole.index(b"\r\n\r\n") + 5 if i % 2 else 20])
    return connection


def _slow_on(slow: list[socket.socket]) -> None:
    for connection in slow:
        try:
            connection.send(b" ")
        except OSError:  # ended by the server, as it should
            continue


def _slow_end(slow: list[socket.socket]) -> list[str]:
    """What is wrong with how the server ended them: those with a head are told why."""
    wrong: list[str] = []
    deadline = time.monotonic() + _PATIENCE_S
    for i, connection in enumerate(slow):
        with connection:
            connection.settimeout(max(deadline - time.monotonic(), 0.1))
            try:
                answer = connection.recv(1 << 16)
            except TimeoutError:
                wrong.append(f"slow connection {i} is still open")
                continue
            except ConnectionError:
                answer = b""
            if i % 2 and answer and b" 408 " not in answer[:20]:
                wrong.append(f"slow connection {i} was answered {answer[:40]!r}")
    return wrong
