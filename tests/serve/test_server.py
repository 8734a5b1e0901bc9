"""A server's life: tokens, overload, a graceful stop, kills with clients that retry, several servers, foreign forms."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import dpad_fast as df
from dpad_fast.serve.foreign import response_of
from dpad_fast.serve.server import listen
from dpad_fast.serve.settings import Refusal, Settings
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.serving import Running, ask, request, score_body
from dpad_fast.testing.soak import soak

TARGET = df.Target.parse(shared.SOLUTION)
ONE = ([shared.completion()], [TARGET], [shared.picture()])


def test_a_token(start):
    server = start(token="s3cret-token", window_ms=0)
    body = json.dumps(score_body()).encode()
    assert ask(server.port, request("GET", "/healthz"))[0] == 200
    for path in ("/score", "/score?token=wrong", "/metrics", "/config", "/openapi.json"):
        status, _, answer = ask(server.port, request("POST" if "score" in path else "GET", path, body))
        assert (status, b"the token is missing or wrong" in answer) == (401, True)
    for raw in (
        request("POST", "/score?token=s3cret-token", body),
        request("POST", "/score", body, authorization="Bearer s3cret-token"),
    ):
        assert ask(server.port, raw)[0] == 200
    assert df.RemoteScorer(server.url, "s3cret-token").score(*ONE).errors == (None,)
    for wrong in ("s3cret-tokem", None):
        with pytest.raises(ValueError, match="the token is missing or wrong"):
            df.RemoteScorer(server.url, wrong).score(*ONE)


def test_a_page_in_a_browser_cannot_have_its_name_point_here(running):
    body = json.dumps(score_body()).encode()
    for host in ("127.0.0.1:8421", "localhost", "[::1]:99"):
        assert ask(running.port, request("POST", "/score", body, host=host))[0] == 200
    status, _, answer = ask(running.port, request("POST", "/score", body, host="evil.example:80"))
    assert (status, b"evil.example" in answer) == (421, True)


def test_overload_is_told_and_nothing_accepted_is_lost(running):
    """Of requests that are together too much, some are turned away with Retry-After, and all are scored in the end."""
    body = json.dumps(score_body(1500, completions=[shared.completion(caption="a red cat " * 9)] * 1500)).encode()

    def until_scored(number):
        statuses = []
        while 200 not in statuses and len(statuses) < 500:
            status, headers, answer = ask(running.port, request("POST", "/score", body, x_request_id=f"load {number}"))
            statuses.append(status)
            if status == 503:
                assert int(headers["retry-after"]) >= 1
                time.sleep(0.05)
        return statuses, json.loads(answer)["total"]

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(until_scored, range(6)))
    seen = {status for statuses, _ in answers for status in statuses}
    assert seen <= {200, 503}
    assert all(statuses[-1] == 200 and len(totals) == 1500 for statuses, totals in answers)


def test_more_rows_than_may_wait_are_turned_away(start):
    server = start(queue=5, window_ms=0)
    status, headers, answer = ask(server.port, request("POST", "/score", json.dumps(score_body(6)).encode()))
    assert (status, headers["retry-after"], b"rows are waiting" in answer) == (503, "1", True)
    assert ask(server.port, request("POST", "/score", json.dumps(score_body(5)).encode()))[0] == 200


def test_what_was_accepted_is_answered_when_the_server_is_stopped(scorer):
    server = Running("--set", "shape=margin", "--window-ms", 1500)
    client = df.RemoteScorer(server.url, retry_s=5)
    assert client.config.needs_encoder
    pending = client.score_async(*ONE)
    deadline = time.monotonic() + 20
    while b"dpad_queue_rows 1.0" not in ask(server.port, request("GET", "/metrics"))[2]:
        assert time.monotonic() < deadline
    assert server.stop(signal.SIGTERM) == 0
    assert torch.equal(pending.result(5).total, scorer.score(*ONE).total)
    with pytest.raises(ConnectionError, match="no server scored this within"):
        df.RemoteScorer(server.url, retry_s=0.3).score(*ONE)


def test_clients_that_retry_lose_nothing_when_the_server_is_killed():
    """The small form of `python -m bench.serve --soak`."""
    found = soak(clients=8, rows=60, kills=1)
    assert (found.scored, found.wrong, found.failures) == (8 * 60, 0, [])
    assert found.restarts == 1


ALONE = """
import gc, os, signal
import dpad_fast as df
from dpad_fast.serve.app import ScoreServer
from dpad_fast.serve.server import listen, serve
from dpad_fast.serve.settings import Settings

def ready(url):
    print(gc.get_freeze_count(), len(gc.get_objects()))
    os.kill(os.getpid(), signal.SIGTERM)

serve(ScoreServer(df.RewardScorer(df.RewardConfig.preset("seg-zero")), Settings()), listen("127.0.0.1", 0), ready)
"""


def test_garbage_is_not_looked_for_among_what_stays():
    """Torch's half a million objects took 0.3 s each time, in which the server answered nobody."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", ALONE], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    frozen, looked_at = map(int, done.stdout.split())
    assert looked_at < 20_000 < 100_000 < frozen


def test_a_request_that_takes_too_long_is_scored_all_the_same(start, scorer):
    server = start(window_ms=1000, answer_s=0.2)
    client = df.RemoteScorer(server.url, retry_s=30)
    assert torch.equal(client.score(*ONE).total, scorer.score(*ONE).total)
    text = ask(server.port, request("GET", "/metrics"))[2].decode()
    assert 'dpad_requests_total{endpoint="/score",status="503"}' in text
    assert 'dpad_rows_total{outcome="scored"} 1.0' in text  # once, however often it was asked for
    client.close()


def test_several_servers_take_turns_and_one_that_is_gone_is_left_out(running, start, scorer):
    other = start(window_ms=0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{free.getsockname()[1]}"
    client = df.RemoteScorer([gone, running.url, other.url], retry_s=20)
    expected = scorer.score(*ONE).total
    for _ in range(6):
        assert torch.equal(client.score(*ONE).total, expected)
    assert b'endpoint="/score",status="200"' in ask(other.port, request("GET", "/metrics"))[2]
    other.stop()
    for _ in range(4):
        assert torch.equal(client.score(*ONE).total, expected)
    client.close()


def test_of_two_processes_one_is_killed_and_comes_back(running, scorer):
    """The rows that it had go to the other; when it is back, both work again."""
    options = ("--set", "shape=margin", "--window-ms", 2)
    other = Running(*options)
    client = df.RemoteScorer([running.url, other.url], retry_s=60)
    texts = [shared.completion(caption=f"the {word} near the table") for word in shared.WORDS[:24]]
    images = [shared.picture(i % 5) for i in range(24)]
    expected = scorer.score(texts, [TARGET] * 24, images).total
    wrong = []

    def work(first):
        for i in range(first, first + 60):
            chosen = [i % 24, (i * 7) % 24]
            found = client.score([texts[j] for j in chosen], [TARGET] * 2, [images[j] for j in chosen]).total
            wrong.extend(j for j, total in zip(chosen, found, strict=True) if total != expected[j])

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    while answered(other.port) < 10:
        time.sleep(0.005)
    other.stop(signal.SIGKILL)
    for thread in threads:
        thread.join(60)
    assert wrong == []
    other = Running(*options, port=other.port)
    try:
        deadline = time.monotonic() + 30
        while answered(other.port) == 0 and time.monotonic() < deadline:  # it is asked again after a pause
            assert client.score(texts[:1], [TARGET], images[:1]).total[0] == expected[0]
        assert answered(other.port) > 0
    finally:
        other.stop()
        client.close()


def answered(port):
    text = ask(port, request("GET", "/metrics"))[2].decode()
    name = 'dpad_requests_total{endpoint="/score",status="200"}'
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def test_a_head_that_does_not_end_ends_the_connection(start):
    """It would be kept for ever, and a thousand of them take every file that a process may open."""
    server = start(head_s=0.3, window_ms=0)
    for sent in (b"", b"GET /healthz HTTP/1.1\r\nhost: 127", b"GET /" + b"x" * 200_000):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as slow:
            try:
                slow.sendall(sent)
                while slow.recv(1000):
                    pass
            except ConnectionError:
                continue
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as twice:  # and one that has asked before
        twice.sendall(request("GET", "/healthz"))
        assert b" 200 " in twice.recv(1000)
        twice.sendall(b"GET")
        while twice.recv(1000):
            pass
    assert ask(server.port, request("GET", "/healthz"))[0] == 200


def test_answers_wait_for_no_acknowledgement():
    """Head and body are two packets, and with Nagle's algorithm the second is 40 ms late."""
    with listen("127.0.0.1", 0) as listening:
        with socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.proto == socket.IPPROTO_TCP  # where asyncio looks
        with pytest.raises(OSError, match="cannot listen on 127"):  # two servers on one port
            listen(*listening.getsockname())


def test_the_token_of_the_environment(start, monkeypatch):
    server = start(token="s3cret-token", window_ms=0)
    monkeypatch.setenv("DPAD_FAST_TOKEN", "s3cret-token")
    assert df.RemoteScorer(server.url).score(*ONE).errors == (None,)
    with pytest.raises(ValueError, match="the token is missing or wrong"):
        df.RemoteScorer(server.url, "another").score(*ONE)
    monkeypatch.setenv("DPAD_FAST_TOKEN", "two\nlines")
    with pytest.raises(ValueError, match=r"token must be printable ASCII text \(argument or DPAD_FAST_TOKEN\)"):
        df.RemoteScorer(server.url)


def test_servers_that_score_in_different_ways_are_refused(running, start, scorer):
    other = start(df.RewardScorer(df.RewardConfig.preset("dpad"), scorer.encoder), window_ms=0)
    client = df.RemoteScorer([running.url, other.url], retry_s=20)
    said = []
    for _ in range(2):  # whichever is asked first, the other is refused
        try:
            client.score(*ONE)
        except ValueError as error:
            said.append(str(error))
    assert len(said) == 1
    assert "scores otherwise than the server that was asked first" in said[0]


@pytest.mark.parametrize("url", ["127.0.0.1:1", "ftp://x", "http://", "http://x:99999", "http://x:1?a=b", []])
def test_addresses_that_are_none(url):
    with pytest.raises(ValueError, match="url "):
        df.RemoteScorer(url)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"token": "short"}, "at least 8"), ({"root": "/no/such"}, "no folder"), ({"queue": 0}, "queue must be above 0")],
)
def test_settings_that_are_none(settings, words):
    with pytest.raises(ValueError, match=words):
        Settings(**settings)


class TestForeign:
    """OpenRLHF's and slime's forms; the picture is named by the label."""

    @pytest.fixture
    def label(self, root):
        shared.picture(6).save(root / "6.png")
        return {"solution": shared.SOLUTION, "image": "6.png", "model_size": [96, 72]}

    @pytest.fixture
    def expected(self, root, label, scorer):
        batch = scorer.score([shared.completion()], [TARGET], [root / "6.png"], model_sizes=[(96, 72)])
        return batch

    def test_openrlhf(self, running, label, expected, scorer):
        prompt = "<|im_start|>user\nfind <answer>{}</answer> it<|im_end|>\n<|im_start|>assistant\n"
        query = prompt + shared.completion() + "<|im_end|>"
        body = {"query": [query, query], "prompts": [prompt] * 2, "labels": [label, json.dumps(label)]}
        status, _, answer = ask(running.port, request("POST", "/openrlhf", json.dumps(body).encode()))
        answer = json.loads(answer)
        assert (status, answer["rewards"]) == (200, expected.total.tolist() * 2)
        assert answer["scores"] == [total / len(scorer.config.terms) for total in answer["rewards"]]
        assert answer["extra_logs"]["dpad/iou"] == [1.0, 1.0]
        assert answer["extra_logs"]["dpad/malformed"] == [0.0, 0.0]

    def test_slime(self, running, label, expected):
        body = {"prompt": [{"role": "user"}], "response": shared.completion() + "<|im_end|>\n", "label": label}
        status, _, answer = ask(running.port, request("POST", "/slime", json.dumps(body).encode()))
        assert (status, json.loads(answer)) == (200, expected.total.item())

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"solution": "nothing"}, "labels[0]: text holds no <box>"),
            ({"image": None}, "labels[0] names no picture"),
            ({"image": "missing.png"}, "1 of 1 rows cannot be scored: bad-image: images[0] cannot be opened"),
            ({"image": "../x.png"}, "leads out of the server's root"),
            ({"picture": 1}, "labels[0] cannot be read: picture"),
        ],
    )
    def test_a_failure_is_an_error_and_never_a_reward(self, running, label, change, words):
        body = {"prompt": "p", "response": shared.completion(), "label": label | change}
        status, _, answer = ask(running.port, request("POST", "/slime", json.dumps(body).encode()))
        assert status in (403, 422)
        assert words in json.loads(answer)["error"]

    def test_a_malformed_completion_is_a_low_reward(self, running, label):
        body = {"prompt": "p", "response": "no tags", "label": label}
        assert ask(running.port, request("POST", "/slime", json.dumps(body).encode()))[2] == b"0.0"

    def test_the_response_is_told_from_its_prompt(self):
        prompt = (
            "<|vision_start|><|image_pad|><|vision_end|>" + "words of the question " * 9 + "<|im_end|>\nassistant\n"
        )
        for front in (prompt, prompt.replace("<|image_pad|>", "<|image_pad|>" * 40), prompt[30:], " " + prompt):
            assert response_of(front + "<think>x</think><|im_end|>", prompt, 0) == "<think>x</think>"
        again = f"<think>x</think>{prompt}<answer>"  # a response that repeats the prompt hides nothing
        for front in (prompt, prompt[30:], prompt.replace("<|image_pad|>", "<|image_pad|>" * 40), "other " + prompt):
            assert response_of(front + again, prompt, 0) == again
        with pytest.raises(Refusal, match=r"query\[3\] does not hold the end of prompts\[3\]"):
            response_of("other", prompt, 3)


def test_many_threads_through_one_client(running, scorer):
    client = df.RemoteScorer(running.url, retry_s=20)
    expected = scorer.score(*ONE).total
    wrong = []

    def work():
        wrong.extend(i for i in range(10) if not torch.equal(client.score(*ONE).total, expected))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    client.close()
