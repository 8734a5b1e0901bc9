"""What the server refuses, and how: hostile requests get a clear 4xx, and it goes on scoring right."""

import base64
import gc
import hashlib
import json
import os
import random

import pytest
from PIL import Image

import dpad_fast as df
from dpad_fast.serve.rows import is_light
from dpad_fast.serve.schema import ScoreRequest
from dpad_fast.serve.settings import Refusal
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.hostile import ESCAPES, hostile_request
from dpad_fast.testing.inputs import cases
from dpad_fast.testing.serving import ask, bomb, request, score_body

TARGET = df.Target.parse(shared.SOLUTION)
LINKS = ("link", "loop", "chain", "pipe", "out/x", "out/secret.png", "x" * 4000)  # of an attack's own root


def post(port, body, path="/score", **headers):
    status, heads, answer = ask(port, request("POST", path, json.dumps(body).encode(), **headers))
    return status, heads, json.loads(answer)


def picture_bytes(tmp_path, seed=3):
    shared.picture(seed).save(tmp_path / f"{seed}.png")
    return (tmp_path / f"{seed}.png").read_bytes()


def test_hostile_requests(running, scorer):
    rng = random.Random(5)
    counts = {}
    for number in range(cases(300)):
        hostile = hostile_request(rng)
        raw = hostile.raw
        status, _, body = ask(running.port, raw, finish=hostile.finish)
        counts[status] = counts.get(status, 0) + 1
        assert status < 500, (number, raw[:200], body)
        if status >= 400 and body[:1] == b"{":
            assert json.loads(body)["error"], raw[:200]
        if status == 200 and b"POST /score" in raw[:12]:
            found = json.loads(body)
            assert all(total is not None or error for total, error in zip(found["total"], found["errors"], strict=True))
    assert {400, 403, 413, 415, 422} <= set(counts)
    assert ask(running.port, request("GET", "/healthz"))[0] == 200
    columns = [shared.completion()] * 3, [TARGET] * 3, [shared.picture(i) for i in range(3)]
    client = df.RemoteScorer(running.url, retry_s=20)
    assert client.score(*columns).total.tolist() == scorer.score(*columns).total.tolist()
    client.close()


@pytest.mark.parametrize("path", [path for path in ESCAPES if path not in LINKS])
def test_paths_do_not_leave_the_root(running, path):
    status, _, answer = post(running.port, score_body(images=[{"path": path}]))
    if status == 200:  # inside the root there is no such file
        assert answer["reasons"] == ["bad-image"]
        assert answer["total"] == [None]
    else:
        assert (status, answer["error"][:16]) in ((403, "a picture's path"), (422, "a picture's path"))


def test_paths_inside_the_root_and_links_out_of_it(running, root, scorer, tmp_path):
    picture_bytes(root, 8)
    picture_bytes(tmp_path, 9)
    (root / "in").mkdir()
    (root / "in" / "link.png").symlink_to(root / "8.png")
    (root / "out.png").symlink_to(tmp_path / "9.png")
    (root / "out").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    expected = scorer.score([shared.completion()], [TARGET], [root / "8.png"]).total.tolist()
    for path in ("8.png", "in/link.png", "in/../8.png", str(root / "8.png")):
        assert post(running.port, score_body(images=[{"path": path}]))[2]["total"] == expected
    for path, status in (("out.png", 403), ("out/9.png", 403), ("in/../../x", 403), ("pipe", 422), ("in", 422)):
        assert post(running.port, score_body(images=[{"path": path}]))[0] == status
    far = df.RemoteScorer(running.url, retry_s=20, send_paths=True)
    assert far.score([shared.completion()], [TARGET], ["8.png"]).total.tolist() == expected
    with pytest.raises(ValueError, match="leads out of the server's root"):
        far.score([shared.completion()], [TARGET], [str(tmp_path / "9.png")])
    far.close()


def test_a_decompression_bomb_is_a_bad_picture(running):
    image = {"base64": base64.b64encode(bomb(60_000, 60_000)).decode()}
    status, _, answer = post(running.port, score_body(2, images=[image, score_body()["images"][0]]))
    assert (status, answer["reasons"][0], answer["errors"][1]) == (200, "bad-image", None)
    assert answer["errors"][0].startswith("images[0] has")
    assert "more" in answer["errors"][0]
    many = [{"base64": base64.b64encode(bomb(9000, 9000 + i)).decode()} for i in range(14)]
    status, _, answer = post(running.port, score_body(14, images=many))
    assert (status, answer["error"]) == (413, "the pictures of this request are more than the server takes at once")


@pytest.mark.parametrize(
    ("columns", "light"),
    [
        ({"images": [{"sha256": "0" * 64}]}, True),
        ({"images": None, "targets": [{"box": [1, 2, 3, 4], "image_size": [5, 6]}]}, True),
        ({"images": [{"size": [3, 4]}]}, True),
        ({"images": [{"base64": "AAAA"}]}, False),
        ({"images": [{"path": "a.png"}]}, False),
        ({"images": [{"sha256": "0" * 64, "shape": [4, 5]}]}, False),
        ({"images": None, "targets": [{"mask": {"size": [30_000, 30_000], "counts": "0"}}]}, False),
        ({"images": None, "targets": [{"polygons": [[[1, 2], [3, 4], [5, 6]]]}]}, False),
    ],
)
def test_what_takes_time_to_read_holds_up_nobody(columns, light):
    """Only what takes none is read on the event loop."""
    assert is_light(ScoreRequest.model_validate_json(json.dumps(score_body(1, **columns)))) is light


def test_masks_are_bounded_together(running):
    mask = {"size": [9_400, 9_400], "counts": "0"}
    targets = [{"box": [1, 2, 30, 40], "mask": mask | {"counts": str(i)}} for i in range(7)]
    status, _, answer = post(running.port, score_body(7, targets=targets))
    assert (status, "masks of this request" in answer["error"]) == (413, True)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"completions": "x", "targets": ["x"]}, "completions: Input should be a valid"),
        ({"completions": ["x"]}, "targets: Field required"),
        ({"completions": [1], "targets": ["x"]}, "completions.0"),
        (score_body(extra=1), "extra: Extra inputs"),
        (score_body(targets=["x", "y"]), "targets has 2 entries for 1 completions"),
        (
            score_body(images=[{}]),
            "images[0] must have exactly one of sha256, base64, path, error, size, unreadable, got none",
        ),
        (score_body(images=[{"base64": "?"}]), "images[0].base64 cannot be read"),
        (score_body(images=None), "images is missing: the term 'discriminative' needs them"),
        ([], "body: Input should be"),
    ],
)
def test_reasons_name_the_field(running, body, words):
    status, _, answer = post(running.port, body)
    assert status == 422
    assert words in answer["error"]
    assert len(answer["error"]) < 1500


def test_limits(running):
    assert post(running.port, score_body(4097))[0] == 413
    status, headers, _ = ask(running.port, request("POST", "/score", b"{}", content_length=(64 << 20) + 1))
    assert (status, headers["connection"]) == (413, "close")
    size = (64 << 20) // 16 + 1
    chunk = b"%x\r\n" % size + b" " * size + b"\r\n"
    raw = request("POST", "/score", b"", content_length=None, transfer_encoding="chunked") + chunk * 17 + b"0\r\n\r\n"
    assert ask(running.port, raw)[0] == 413
    assert ask(running.port, request("PUT", "/pictures/" + "0" * 64, b"", content_length=(32 << 20) + 1))[0] == 413


def test_pictures_by_their_hash(running, scorer, tmp_path):
    content = picture_bytes(tmp_path)
    digest = hashlib.sha256(content).hexdigest()
    status, _, answer = post(running.port, score_body(images=[{"sha256": digest}]))
    assert (status, answer["missing"]) == (409, [digest])
    assert ask(running.port, request("PUT", f"/pictures/{digest}", content + b"x"))[0] == 422
    assert ask(running.port, request("PUT", f"/pictures/{digest}", content))[0] == 204
    expected = scorer.score([shared.completion()], [TARGET], [content]).total.tolist()
    assert post(running.port, score_body(images=[{"sha256": digest}]))[2]["total"] == expected


def test_what_was_refused_is_let_go_with_its_answer(start, scorer):
    server = start(window_ms=0)
    bad_picture = base64.b64encode(bomb(1500, 1000)[:-60]).decode()
    for body in (
        b'{"completions": [',
        json.dumps(score_body(targets=["x", "y"])).encode(),
        json.dumps(score_body(images=None)).encode(),
        json.dumps(score_body(images=[{"sha256": "0" * 64}])).encode(),
        json.dumps(score_body(images=[{"base64": bad_picture}])).encode(),
    ):
        ask(server.port, request("POST", "/score", body))
        gc.collect()
        gc.disable()  # it looks only now and then for things that keep each other, and a body may have 64 MiB
        try:
            before = errors_and_pictures()
            for _ in range(5):
                ask(server.port, request("POST", "/score", body))
            ask(server.port, request("GET", "/healthz"))
            assert errors_and_pictures() <= before, body[:200]
        finally:
            gc.enable()


def errors_and_pictures():
    """How many are alive; by type, for some objects warn when they are asked for their class."""
    kinds = (ValueError, Refusal, Image.Image)
    return sum(issubclass(type(one), kinds) for one in gc.get_objects())


def test_a_request_id_stands_for_one_request(running, scorer):
    body = score_body(3)
    rows = 'dpad_rows_total{outcome="scored"}'
    before = metric(running.port, rows)
    answers = [post(running.port, body, x_request_id="one")[2] for _ in range(3)]
    assert answers[0]["total"] == answers[1]["total"] == answers[2]["total"]
    assert answers[0]["timings"] == answers[1]["timings"]  # the same answer, not another scoring
    assert metric(running.port, rows) == before + 3
    status, _, answer = post(running.port, score_body(2), x_request_id="one")
    assert (status, answer["error"]) == (422, "the request id '/score one' stands for another request")
    assert metric(running.port, rows) == before + 3


def metric(port, name):
    text = ask(port, request("GET", "/metrics"))[2].decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def test_metrics_count(running):
    names = (
        "dpad_malformed_total",
        'dpad_rows_total{outcome="unscored"}',
        "dpad_batch_rows_count",
        "dpad_batch_seconds_sum",
    )
    before = [metric(running.port, name) for name in names]
    post(
        running.port, score_body(3, completions=["?", "?", shared.completion()], targets=[shared.SOLUTION] * 2 + ["no"])
    )
    after = [metric(running.port, name) for name in names]
    assert [b - a for a, b in zip(before, after, strict=True)][:3] == [2, 1, 1]
    assert after[3] > before[3]
    assert metric(running.port, "dpad_queue_rows") == 0
    assert metric(running.port, "dpad_held_bytes") == 0
    ask(running.port, request("GET", "/no/such/place"))
    assert metric(running.port, 'dpad_requests_total{endpoint="other",status="404"}') >= 1


def test_open_api_describes_the_bodies(running):
    page = json.loads(ask(running.port, request("GET", "/openapi.json"))[2])
    for path, name in (("/score", "ScoreRequest"), ("/openrlhf", "OpenRlhfRequest"), ("/slime", "SlimeRequest")):
        body = page["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert body == {"$ref": f"#/components/schemas/{name}"}
        assert page["components"]["schemas"][name]["properties"]
    references = set(json.dumps(page).split('"#/components/schemas/')[1:])
    assert {text.split('"')[0] for text in references} <= set(page["components"]["schemas"])
