"""How bodies come in: in pieces of any size, broken off, too slow; large ones are handed on in few pieces."""

import hashlib
import json
import socket
import time

import pytest

from dpad_fast.serve import connection
from dpad_fast.serve.connection import body_left
from dpad_fast.serve.guard import Budget
from dpad_fast.testing import noisy_pixels
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.serving import ask, request, score_body

LARGE = b"P6 1000 700 255\n" + noisy_pixels(700, 1000).tobytes()  # 2.1 MB
NAME = hashlib.sha256(LARGE).hexdigest()


@pytest.mark.parametrize(
    ("lengths", "data", "left"),
    [
        ([b"200000"], b"PUT / HTTP/1.1\r\na: b\r\n\r\n12345", 199_995),
        ([b"200000"], b"PUT / HTTP/1.1\n\n12345\r\n\r\n", 199_991),  # nothing in a body is taken for the head's end
        ([b"200000"], b"\r\n\r\nPUT / HTTP/1.1\r\n\r\n12", 200_000 - 20),  # too few harms nothing: they come in pieces
        ([b"70000"], b"PUT / HTTP/1.1\r\n\r\n" + bytes(69_000), 0),
        ([b"200000"], b"", 0),
        ([b"200000", b"200000"], b"PUT / HTTP/1.1\r\n\r\n", 0),
        ([], b"PUT / HTTP/1.1\r\n\r\n", 0),
    ],
)
def test_what_is_still_to_come_is_never_overstated(lengths, data, left):
    headers = [(b"content-length", length) for length in lengths]
    assert body_left(headers, data) == left
    assert body_left([*headers, (b"transfer-encoding", b"chunked")], data) == 0


def pieces(content, *sizes):
    for size in sizes:
        yield content[:size]
        content = content[size:]
    yield content


def exchange(port, sent, pause):
    """What is answered until the connection ends."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        for piece in sent:
            client.sendall(piece)
            time.sleep(pause)
        while chunk := client.recv(1 << 16):
            answer += chunk
    return answer


@pytest.mark.parametrize("sizes", [(), (5, 1, 60), (40, 70_000), (100, 1), (20, 500_000, 500_000, 500_000, 500_000)])
def test_bodies_in_pieces_of_any_size(start, sizes):
    """On one connection, which goes on serving behind them."""
    server = start(window_ms=0)
    whole = request("PUT", f"/pictures/{NAME}", LARGE) + request("GET", "/healthz", connection="close")
    answer = exchange(server.port, pieces(whole, *sizes), 0.01)
    assert answer.count(b"HTTP/1.1 ") == 2
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"HTTP/1.1 200 " in answer
    assert server.app.pictures.get(NAME).content == LARGE


def test_a_large_body_is_handed_on_in_few_pieces(start, monkeypatch):
    server, taken = start(window_ms=0), []
    monkeypatch.setattr(Budget, "take", lambda self, count, real=Budget.take: taken.append(count) or real(self, count))
    raw = request("POST", "/pictures", LARGE, connection="close")
    answer = exchange(server.port, (raw[first : first + 20_000] for first in range(0, len(raw), 20_000)), 0.0005)
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"sha256": NAME}
    assert sum(taken) == len(LARGE)
    assert len(taken) <= 4
    assert server.app._budget.held == 0


def test_many_large_bodies_at_once_are_handed_on_as_they_come(start, monkeypatch):
    """What connections gather is bounded together, so that slow ones hold no memory."""
    monkeypatch.setattr(connection, "_GATHERED", 1)
    server = start(window_ms=0)
    assert ask(server.port, request("PUT", f"/pictures/{NAME}", LARGE))[0] == 204
    assert server.app.pictures.get(NAME).content == LARGE


def test_a_body_that_breaks_off_or_takes_too_long_is_let_go(start):
    server = start(window_ms=0, body_s=0.4)
    raw = request("PUT", f"/pictures/{NAME}", LARGE)
    for sent in (raw[:200], raw[:-1]):
        answer = exchange(server.port, [sent], 0)
        assert b" 408 " in answer[:20]
        assert b"the body did not arrive within 0.4 s" in answer
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
            client.sendall(raw[:-1])
    assert ask(server.port, request("PUT", f"/pictures/{NAME}", LARGE))[0] == 204
    deadline = time.monotonic() + 20
    while server.app._budget.held and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.app._budget.held == 0
    assert len(server.app.pictures) == 1


def test_a_large_body_that_is_refused_ends_the_connection(start):
    server = start(window_ms=0, picture=1 << 20, token="s3cret-token")
    for headers, status in (({}, 401), ({"authorization": "Bearer s3cret-token"}, 413)):
        found, heads, _ = ask(server.port, request("PUT", f"/pictures/{NAME}", LARGE, **headers))
        assert found in (status, 0)  # 0: the end of the connection overtook the answer
        assert heads.get("connection", "close") == "close"
    assert len(server.app.pictures) == 0


def test_a_posted_picture_is_named_by_the_server(running, scorer):
    status, _, answer = ask(running.port, request("POST", "/pictures", LARGE, content_type="application/octet-stream"))
    assert (status, json.loads(answer)) == (200, {"sha256": NAME})
    body = score_body(images=[{"sha256": NAME}])
    status, _, answer = ask(running.port, request("POST", "/score", json.dumps(body).encode()))
    expected = scorer.score([shared.completion()], [shared.SOLUTION], [LARGE])
    assert (status, json.loads(answer)["total"]) == (200, expected.total.tolist())
    assert ask(running.port, request("POST", "/pictures", b"", content_length=(32 << 20) + 1))[0] == 413
    assert ask(running.port, request("GET", "/pictures"))[0] == 405
    assert ask(running.port, request("PUT", "/pictures/a/b", b"x"))[0] == 404
    page = json.loads(ask(running.port, request("GET", "/openapi.json"))[2])
    assert set(page["paths"]["/pictures"]) == {"post"}
    text = ask(running.port, request("GET", "/metrics"))[2]
    assert b'dpad_requests_total{endpoint="/pictures",status="200"}' in text
