"""What tests and benchmarks of the server share: one in a process of its own, and requests as bytes."""

from __future__ import annotations

import base64
import os
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

    def most_memory(self) -> int:
        """The most bytes that were resident at one time, so far or since `forget_most_memory`."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

    def forget_most_memory(self) -> None:
        """`most_memory` begins again with what is resident now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def cpu_seconds(self) -> float:
        """Seconds of processors that the process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

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


def bomb(width: int, height: int, *notes: bytes) -> bytes:
    """A grey PNG of any size in few bytes: what decodes it needs the memory of its pixels; `notes` are more chunks."""
    if width * height <= 1 << 20:
        pixels = zlib.compress(b"".join(b"\0" + b"\x7f" * width for _ in range(height)), 9)
    else:
        pixels = zlib.compress(bytes(1 << 20), 9)  # ends too early; the header alone must be enough to refuse it
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(notes) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
