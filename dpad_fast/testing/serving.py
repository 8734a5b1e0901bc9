"""What tests and benchmarks of the server share: one in a process of its own, and requests that mean it no good."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

from dpad_fast.testing import rewards as shared

ROOT = Path(__file__).parents[2]
_WAIT_S = 60.0


class Running:
    """A `dpad-fast serve` process with the built-in encoder, on a free port of this machine unless one is named.

    Attributes:
        url: its address.
        port: its port.
        process: the process.
    """

    def __init__(self, *options: object, port: int = 0) -> None:
        command = [sys.executable, "-m", "dpad_fast.cli", "serve", "--encoder", "shapes", "--port", str(port)]
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        # To a file: a pipe that nobody reads would stop the server when it is full.
        self.process = subprocess.Popen(
            [*command, *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if " on http://" not in line:
            raise RuntimeError(f"the server did not start: {line!r}, status {self.process.wait()}")
        self.url = line.split()[-1]
        self.port = int(self.url.rpartition(":")[2])

    def memory(self) -> int:
        """Resident bytes of the process."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Sends a signal, and waits; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout=_WAIT_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()


def request(method: str, path: str, body: bytes = b"", **headers: object) -> bytes:
    """An HTTP request as bytes; `content_length=None` leaves the length out."""
    given = {"host": "127.0.0.1", "content-type": "application/json", "content-length": len(body)}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}  # type: ignore[dict-item]
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value is not None)
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


def ask(port: int, raw: bytes, *, finish: bool = False) -> tuple[int, dict[str, str], bytes]:
    """Sends bytes as they are; (status, headers, body) of the answer, status 0 where the connection just ended.

    Args:
        port: of the server.
        raw: what is sent.
        finish: whether to end the sending side first, as a client that breaks off does; the server may then not answer.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=_WAIT_S) as connection:
        try:
            connection.sendall(raw)
            if finish:
                connection.shutdown(socket.SHUT_WR)
            while not _whole(answer):
                chunk = connection.recv(1 << 16)
                if not chunk:
                    break
                answer += chunk
        except (ConnectionError, BrokenPipeError):
            pass
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return (int(first.split()[1]) if first else 0), headers, body


def _whole(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if found and line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return bool(found) and b" 204 " in head[:20]


def score_body(count: int = 1, **columns: Any) -> dict[str, Any]:
    """A right body of /score, with columns put in the place of others."""
    body = {
        "completions": [shared.completion()] * count,
        "targets": [shared.SOLUTION] * count,
        "images": [{"base64": base64.b64encode(bomb(96, 72)).decode()}] * count,
    }
    return body | columns


def bomb(width: int, height: int) -> bytes:
    """A grey PNG of any size in few bytes: what decodes it needs the memory of its pixels."""
    if width * height <= 1 << 20:
        pixels = zlib.compress(b"".join(b"\0" + b"\x7f" * width for _ in range(height)), 9)
    else:
        pixels = zlib.compress(bytes(1 << 20), 9)  # ends too early; the header alone must be enough to refuse it

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


ESCAPES = (
    "../x", "/etc/passwd", "a/../../x", "....//x", "/proc/self/environ", "/dev/zero", "/dev/stdin", "link", "out/x",
    "..\\x", "%2e%2e/x", "~/x", "\0", "a\0b", "/", "..", "x" * 4000, "file:///etc/passwd", "./../" * 50 + "etc/passwd",
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


def hostile_request(rng: random.Random) -> tuple[bytes, bool]:
    """A request that something is wrong with, and whether it breaks off (and would be waited for)."""
    kind = rng.randrange(10)
    if kind == 0:
        return _truncated(rng), True
    if kind == 1:
        raw = _sizes(rng)
        return raw, b"chunked" in raw
    if kind == 2:
        raw = _garbage(rng)
        return raw, b"\r\n\r\n" not in raw
    path = rng.choice(("/score", "/score", "/score", "/openrlhf", "/slime"))
    if kind == 3:
        deep = rng.choice(("[", '{"a":', '{"completions":[', '[{"text":')) * rng.choice((50, 5000, 100_000))
        return request("POST", path, deep.encode()), False
    if kind == 4:
        content = rng.choice(
            (bomb(60_000, 60_000), bomb(1 << 30, 1 << 30), bomb(20_000, 20_000), b"\x89PNG" + bytes(99))
        )
        image = {"base64": base64.b64encode(content).decode()}
        return request("POST", "/score", json.dumps(score_body(images=[image])).encode()), False
    if kind == 5:
        return request("POST", "/score", json.dumps(score_body(images=[{"path": rng.choice(ESCAPES)}])).encode()), False
    if kind == 6:
        label = {"solution": shared.SOLUTION, "image": rng.choice(ESCAPES)} | rng.choice(
            ({}, {"x": 1}, {"image_size": 3})
        )
        value = rng.choice((json.dumps(label), label, "{" * 50, rng.choice(_VALUES)))
        if path == "/slime":
            return request("POST", path, json.dumps({"prompt": 1, "response": "x", "label": value}).encode()), False
        body = {"query": ["prompt answer"], "prompts": [rng.choice(("prompt", "other" * 20))], "labels": [value]}
        return request("POST", "/openrlhf", json.dumps(body).encode()), False
    body = score_body()
    name = rng.choice((*body, "image_keys", "model_sizes", "key_names", "unknown"))
    body[name] = rng.choice((rng.choice(_VALUES), [rng.choice(_VALUES)], [rng.choice(_VALUES)] * 2))
    return request("POST", path, json.dumps(body).encode()), False


def _truncated(rng: random.Random) -> bytes:
    whole = request("POST", "/score", json.dumps(score_body()).encode())
    return whole[: rng.randrange(len(whole))]


def _sizes(rng: random.Random) -> bytes:
    """Lengths that are too large, contradict or mean nothing; encodings; digests of other bytes."""
    packed = zlib.compress(bytes(10 << 20), 9)
    return rng.choice(
        (
            request("POST", "/score", b"{}", content_length=1 << 40),
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
            request("POST", "/score", b"\xff\xfe{}"),
            request("POST", "/score", b'{"completions": ["\\ud800"], "targets": ["x"]}'),
            request("POST", "/score", b'{"completions": [NaN], "targets": [Infinity]}'),
            request("POST", "/score", json.dumps(score_body()).encode(), x_request_id="x" * 3000),
            request("POST", "/score", json.dumps(score_body()).encode(), host="evil.example"),
            request("GET", "/score", upgrade="websocket", connection="upgrade"),
        )
    )
