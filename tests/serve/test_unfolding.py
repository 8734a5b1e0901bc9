"""A request takes memory in proportion to what the server allows, not to what few bytes of it could become."""

import json
import random

import numpy as np
import pytest

import dpad_fast as df
from dpad_fast import coco_mask
from dpad_fast.serve import wire
from dpad_fast.serve.outgoing import OutgoingRows, body_of
from dpad_fast.serve.settings import Refusal, Settings
from dpad_fast.serve.unfolding import check_weight
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.hostile import run_lengths
from dpad_fast.testing.inputs import cases
from dpad_fast.testing.serving import ask, request, score_body

MIB = 1 << 20
MOST = Settings().weight
TARGET = df.Target.parse(shared.SOLUTION, image_size=shared.SIZE)


def weight(text):
    """What a text weighs, as the check says it."""
    with pytest.raises(Refusal) as raised:
        check_weight([text], 0, "it")
    return int(raised.value.reason.split()[2])


def values(found):
    """How many values there are in what JSON was read into; a key weighs as much as three more."""
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return 1 + (3 * len(found) if isinstance(found, dict) else 0) + sum(map(values, inner))


def made(rng, depth=0):
    kind = rng.randrange(6 if depth < 4 else 3)
    if kind < 3:
        return rng.choice((0, None, "", "a,[{:b", 1.5))
    inner = [made(rng, depth + 1) for _ in range(rng.randrange(6))]
    return inner if kind < 5 else {f"{i}:": value for i, value in enumerate(inner)}


@pytest.mark.parametrize("seed", range(cases(50)))
def test_a_text_weighs_at_least_as_much_as_its_values(seed):
    found = made(random.Random(seed))
    for separators in ((",", ":"), (" , ", " : ")):
        text = json.dumps(found, separators=separators).encode()
        assert values(found) <= weight(text + b",") <= 3 * len(text) + 3


def test_what_weighs_too_much_is_refused_by_its_name():
    check_weight([b"[0,0,0]", b"[]"], 4, "labels")
    with pytest.raises(Refusal, match=r"^labels weigh 4 \(commas, .*\), more than 3: send fewer rows$") as raised:
        check_weight([b"[0,0,0]", b"[]"], 3, "labels")
    assert raised.value.status == 413


def dense(unit, weight_of_one):
    """As many of them as a body may hold, and twice as many."""
    count = MOST // weight_of_one - 40
    return ",".join([unit] * count), ",".join([unit] * 2 * count)


def keys(count):
    return ",".join(f'"{i}":0' for i in range(count))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"completions":[%s],"targets":["x"]}', dense("0", 1)),
        ('{"completions":["x"],"targets":[{"polygons":[[%s]]}]}', dense("[0]", 2)),
        ('{"completions":["x"],"targets":[{%s}]}', (keys(MOST // 4 - 40), keys(MOST // 2))),
    ],
)
def test_few_bytes_do_not_become_gigabytes(running, text, parts):
    """Such bodies took up to 2 GiB each, and twice as large ones 5 GiB."""
    before = running.memory()
    running.forget_most_memory()
    answers = [ask(running.port, request("POST", "/score", (text % part).encode())) for part in parts]
    assert [status for status, _, _ in answers] == [422, 413]
    assert all(json.loads(body)["error"] for _, _, body in answers)
    assert running.most_memory() - before < 450 * MIB


def test_a_label_s_text_is_weighed_as_what_it_says(running):
    """Inside a string of the body a comma can be written so that the body does not show it."""
    label = json.dumps("{" + keys(MOST // 2) + "}").replace(",", "\\u002c").replace(":", "\\u003a")
    for path, body in (
        ("/slime", f'{{"response":"x","label":{label}}}'),
        ("/openrlhf", f'{{"query":["xy"],"prompts":["x"],"labels":[{label}]}}'),
    ):
        assert weight(body.encode()) < 20
        for unscored in ("", "?unscored=lowest"):
            status, _, answer = ask(running.port, request("POST", path + unscored, body.encode()))
            assert status == 413
            assert json.loads(answer)["error"].startswith("labels weigh ")


def test_a_mask_of_more_pixels_than_a_picture_may_have_is_its_row_s_fault(running):
    """It was decoded: 200 bytes took 2 GiB and 8 s."""
    mask = {"size": [30_000, 28_000], "counts": run_lengths(30_000 * 28_000)}
    good = {"box": [20, 12, 64, 52], "points": [[30, 24], [50, 40]]}
    body = score_body(2, targets=[good | {"mask": mask}, good])
    status, _, answer = ask(running.port, request("POST", "/score", json.dumps(body).encode()))
    found = json.loads(answer)
    assert (status, found["reasons"][0], found["total"][0]) == (200, "bad-target", None)
    assert found["errors"][0] == (
        "targets[0]: mask has 28000 x 30000 pixels, more than the limit of 89478485; DPAD_FAST_MAX_PIXELS moves it"
    )
    assert found["total"][1] is not None


@pytest.mark.parametrize("size", [(1, 1), (72, 96), (3, 64), (5, 65), (130, 129), (1, 500), (500, 1)])
def test_a_mask_comes_as_it_went(size):
    mask = np.random.default_rng(0).random(size) < 0.4
    sent = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    found = wire.mask_in(size, sent["counts"].decode())
    assert found.flags.c_contiguous
    assert np.array_equal(found, mask)
    assert found.dtype == np.bool_


@pytest.mark.parametrize(
    "settings",
    [
        {"weight": 900},
        {"masks": 20_000},
        {"pixels": 20_000},
        {"held": 150_000, "body": 1 << 14},
        {"store": 60_000, "body": 1 << 14},
    ],
)
def test_what_a_server_does_not_take_at_once_goes_in_pieces(start, scorer, settings):
    """Masks, pictures, bytes and values of a call are bounded, and a call of many rows is no mistake of its caller."""
    server = start(window_ms=0, **settings)
    client = df.RemoteScorer(server.url, retry_s=5)
    masks = [np.zeros(shared.SIZE[::-1], bool) for _ in range(16)]
    for i, mask in enumerate(masks):
        mask[12:52, 20 : 40 + i] = True
    targets = [df.Target(box=TARGET.box, points=TARGET.points, mask=mask, image_size=shared.SIZE) for mask in masks]
    targets[13] = "nothing"
    texts = [shared.completion(caption=f"a {word} circle") for word in (shared.WORDS * 16)[:16]]
    columns = texts, targets, [shared.picture(i) for i in range(16)], [f"picture {i}" for i in range(16)]
    found, expected = (one.score(*columns, on_error="row") for one in (client, scorer))
    assert found.total.nan_to_num(7).tolist() == expected.total.nan_to_num(7).tolist()
    assert (found.reasons, found.errors) == (expected.reasons, expected.errors)
    client.close()


def test_one_row_that_is_too_much_is_refused(start):
    client = df.RemoteScorer(start(weight=20, window_ms=0).url, retry_s=5)
    with pytest.raises(ValueError, match=r"the values of this body weigh .*, more than 20"):
        client.score([shared.completion()] * 2, [TARGET] * 2, [shared.picture()] * 2)
    client.close()


def test_a_piece_names_its_own_keys_alone():
    rows = OutgoingRows(
        columns={"completions": ["x"] * 4, "targets": ["y"] * 4, "images": None, "image_keys": [0, 1, None, 0]},
        names={"0": "a", "1": "b"},
    )
    named = [json.loads(body_of(rows, i, i + 1))["key_names"] for i in range(4)]
    assert named == [{"0": "a"}, {"1": "b"}, {}, {"0": "a"}]
