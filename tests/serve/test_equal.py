"""Through the server everything is what `scorer.score` gives, bit for bit, whatever is sent."""

import asyncio
import json
import os
import pickle
import random
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import dpad_fast as df
from dpad_fast.integrations.trl import TrlRewards
from dpad_fast.serve import schema, wire
from dpad_fast.serve.rows import _Masks, _target
from dpad_fast.serve.transport import Reply
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.inputs import cases
from dpad_fast.testing.serving import ask, request, score_body

TARGET = df.Target.parse(shared.SOLUTION, image_size=shared.SIZE)


@pytest.fixture
def remote(running):
    client = df.RemoteScorer(running.url, retry_s=20)
    yield client
    client.close()


def equal(one, other):
    for a, b in ((one.terms, other.terms), (one.similarity, other.similarity)):
        assert list(a) == list(b)
        assert all(torch.equal(a[name].nan_to_num(7), b[name].nan_to_num(7)) for name in a)
        assert all(torch.equal(a[name].isnan(), b[name].isnan()) for name in a)
    assert torch.equal(one.total.nan_to_num(7), other.total.nan_to_num(7))
    assert one.total.dtype == other.total.dtype
    assert one.reasons == other.reasons
    assert one.errors == other.errors
    assert set(one.timings) == set(other.timings)


def both(remote, scorer, *columns, **settings):
    found, expected = remote.score(*columns, **settings), scorer.score(*columns, **settings)
    equal(found, expected)
    return found


def captions(count):
    return [shared.completion(caption=f"a {shared.WORDS[i % len(shared.WORDS)]} circle") for i in range(count)]


def test_config_and_values(remote, scorer):
    assert remote.config == scorer.config
    texts = [*captions(30), "no tags", ""]
    found = both(remote, scorer, texts, [TARGET] * 32, [shared.picture(i % 4) for i in range(32)])
    assert len(set(found.total.tolist())) > 5
    both(remote, scorer, [], [], [])


@pytest.mark.parametrize("seed", range(cases(3)))
def test_hostile_completions(remote, scorer, seed):
    rng = random.Random(seed)
    texts = [shared.hostile(rng) for _ in range(60)]
    both(remote, scorer, texts, [TARGET] * 60, [shared.picture(i % 3) for i in range(60)])


def every_kind(tmp_path):
    """Images of every kind that a scorer takes."""
    rgb = shared.picture(1)
    pixels = np.asarray(rgb)
    sideways = tmp_path / "sideways.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb.resize((72, 96)).save(sideways, exif=exif)
    clear = rgb.convert("P")
    clear.info["transparency"] = 3
    rgba = np.dstack([pixels, np.arange(pixels[..., 0].size, dtype=np.uint8).reshape(pixels.shape[:2])])
    (tmp_path / "a.png").write_bytes(b"")
    rgb.save(tmp_path / "a.png")
    modes = [rgb.convert(mode) for mode in ("L", "LA", "P", "RGBA", "CMYK", "1", "I", "F", "YCbCr")]
    return [
        rgb, *modes, clear, Image.fromarray(rgba), Image.open(sideways), sideways, str(tmp_path / "a.png"),
        (tmp_path / "a.png").read_bytes(), {"bytes": None, "path": str(tmp_path / "a.png")},
        {"bytes": sideways.read_bytes(), "path": None}, pixels, pixels[::-1], pixels.transpose(2, 0, 1), pixels[..., 0],
        rgba, torch.from_numpy(pixels.copy()), torch.from_numpy(pixels.copy()).permute(2, 0, 1), pixels[..., :1],
    ]  # fmt: skip


def test_every_kind_of_image(remote, scorer, tmp_path):
    images = every_kind(tmp_path)
    texts = captions(len(images))
    found = both(remote, scorer, texts, [TARGET] * len(images), images)
    assert found.errors == (None,) * len(images)
    assert len(set(found.similarity["aoi"].tolist())) > len(images) // 2


def test_every_field_of_a_target(remote, scorer):
    mask = np.zeros(shared.SIZE[::-1], bool)
    mask[12:52, 20:64] = True
    third = 1 / 3
    targets = [
        shared.SOLUTION,
        df.Target(box=(20 + third, 12.1, 64, 52 - third), points=((30, 24 + third), (50, 40)), mask=mask, ignore=~mask),
        df.Target(box=TARGET.box, points=TARGET.points, polygons=([[20.1, 12], [64, 12], [64, 52 - third]],)),
        df.Target(
            box=TARGET.box, points=TARGET.points, other_boxes=((0, 0, 9.5, 9),), text="words \ud800 of no unicode"
        ),
        df.Target(box=(64, 52, 20, 12), points=TARGET.points),
        df.Target(objects=((TARGET.box, (30.0, 24.0)),)),
        df.Target(),
        "nothing",
        ValueError("the solution is lost"),
        7,
    ]
    count = len(targets)
    found = both(remote, scorer, captions(count), targets, [shared.picture()] * count, on_error="row")
    assert sum(error is not None for error in found.errors) == 6


@pytest.mark.parametrize("preset", ["region", "objects", "released"])
def test_what_other_configurations_read_of_a_target_travels_too(preset):
    """The fields themselves, since one server has one configuration."""
    mask = np.zeros((30, 40), bool)
    mask[3:9, 5:30] = True
    full = {
        "region": df.Target(box=(5, 3, 30, 9), mask=mask, ignore=~mask, polygons=([[1.1, 2], [3, 1 / 3], [9, 9]],)),
        "objects": df.Target(objects=(((1, 2, 3 + 1 / 7, 4), (2, 3)),), other_boxes=((1, 2, 3, 4.7),)),
        "released": df.Target(text="<box>(1,2),(3,4)</box>\udfff", box=(1, 2, 3, 4), image_size=(9, 9)),
    }[preset]
    sent = json.dumps(wire.target_out(full))
    again = _target(schema.TargetIn.model_validate_json(sent), "targets[0]", _Masks(1 << 20))
    for name in ("box", "points", "image_size", "objects", "other_boxes", "text"):
        assert getattr(again, name) == getattr(full, name), name
    for name in ("mask", "ignore"):
        one, other = getattr(again, name), getattr(full, name)
        assert (one is None and other is None) or np.array_equal(one, other)
    for one, other in zip(again.polygons or (), full.polygons or (), strict=True):
        assert np.array_equal(one, other)


def test_bad_rows_have_the_same_reasons_and_messages(remote, scorer, tmp_path):
    shared.picture(4).save(tmp_path / "cut.jpg", quality=95)
    cut = (tmp_path / "cut.jpg").read_bytes()
    cut = cut[: len(cut) // 2]
    good = shared.picture(2)
    images = [
        good, 7, b"no image", str(tmp_path / "missing.png"), cut, {"bytes": None}, ValueError("images[?] holds 2"),
        good.resize((40, 30)), np.zeros((3, 3)), np.zeros((0, 4, 3), np.uint8), shared.picture(3), good, good,
    ]  # fmt: skip
    count = len(images)
    keys = [*("first", None, None, None, None, None, None, None, None, None), "first", "first", "second"]
    sizes = [None] * count
    sizes[11], sizes[12] = (0, 5), ValueError("too thin")
    texts = captions(count)
    texts[2] = 5
    columns = (texts, [TARGET] * count, images)
    found = both(remote, scorer, *columns, image_keys=keys, model_sizes=sizes, on_error="row")
    assert found.errors[0] is None
    assert all(error is not None for error in found.errors[1:])
    assert "another picture than images[0], though both have the key 'first'" in found.errors[10]
    for one in (remote, scorer):
        with pytest.raises(ValueError, match=r"^images\[1\] must be a PIL image"):
            one.score(captions(3), [TARGET] * 3, [good, 7, good])


def test_keys_that_cannot_be_hashed_and_keys_of_other_calls(remote, scorer):
    one, other = shared.picture(1), shared.picture(2)
    with ThreadPoolExecutor(2) as pool:  # the same key, another picture, at once
        calls = [pool.submit(remote.score, captions(1), [TARGET], [image], ["key"]) for image in (one, other) * 8]
        for call, image in zip(calls, (one, other) * 8, strict=True):
            equal(call.result(), scorer.score(captions(1), [TARGET], [image], ["key"]))
    found = remote.score(captions(2), [TARGET] * 2, [one, one], [[1], None], on_error="row")
    assert "image_keys[0] cannot be hashed: '[1]'" in found.errors[0]
    assert found.errors[1] is None


def test_model_sizes(remote, scorer):
    texts, targets, images = captions(3), [TARGET] * 3, [shared.picture(i) for i in range(3)]
    for sizes in ([(48, 36), None, (960, 720)], np.array([[48, 36]] * 3), lambda size: (size[0] // 2, size[1] // 2)):
        both(remote, scorer, texts, targets, images, model_sizes=sizes)
    both(remote, scorer, texts, targets, images, model_sizes=lambda size: None)

    def refuse(size):
        raise ValueError("no such size")

    both(remote, scorer, texts, targets, images, model_sizes=refuse, on_error="row")


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("one string", [TARGET]), {}, "completions must be a list of strings, got one string"),
        ((["x"], [TARGET] * 2), {}, "targets has 2 entries for 1 completions"),
        ((["x"], [TARGET], []), {}, "images has 0 entries for 1 completions"),
        ((["x"], [TARGET]), {}, "images is missing: the term 'discriminative' needs them"),
        ((["x"], [TARGET], [b""], [1, 2]), {}, "image_keys has 2 entries for 1 images"),
        ((["x"], [TARGET], [b""]), {"on_error": "maybe"}, "on_error must be one of raise, row"),
        ((["x"], [TARGET]), {"model_sizes": lambda size: size}, "images is missing: model_sizes is a function"),
    ],
)
def test_mistakes_of_a_call(remote, scorer, arguments, settings, message):
    for one in (remote, scorer):
        with pytest.raises(ValueError, match=message):
            one.score(*arguments, **settings)


def test_async_pickled_and_from_threads(remote, scorer):
    again = pickle.loads(pickle.dumps(remote))
    columns = captions(9), [TARGET] * 9, [shared.picture(i % 3) for i in range(9)]
    expected = scorer.score(*columns)

    async def several():
        return await asyncio.gather(*(one(client) for client in (remote, again) * 4))

    async def one(client):
        return await client.score_async(*columns)

    for batch in asyncio.run(several()):
        equal(batch, expected)
    pending = again.score_async(*columns)
    equal(pending.result(60), expected)
    assert pending.done()
    again.close()


def test_a_forked_child_makes_connections_of_its_own(remote, scorer):
    columns = captions(4), [TARGET] * 4, [shared.picture(i % 2) for i in range(4)]
    expected = scorer.score(*columns).total.numpy().tobytes()
    remote.score(*columns)  # leaves an open connection, which parent and child must not both read
    assert remote._transport.servers[0].idle
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        child = os.fork()
    if child == 0:
        try:
            os.write(write, remote.score(*columns).total.numpy().tobytes())
        finally:
            os._exit(0)
    assert remote.score(*columns).total.numpy().tobytes() == expected
    os.waitpid(child, 0)
    assert os.read(read, 1000) == expected
    os.close(read)
    os.close(write)


def test_equal_pixels_in_other_objects_are_written_once(running, scorer, monkeypatch):
    client = df.RemoteScorer(running.url, retry_s=20)
    written = []
    monkeypatch.setattr(wire, "_image_out", lambda *a, real=wire._image_out: written.append(a[1]) or real(*a))
    images = [shared.picture(i % 2) for i in range(8)] + [
        shared.picture(0).convert("L"),
        shared.picture(1).convert("L"),
    ]
    columns = captions(10), [TARGET] * 10, images
    for _ in range(2):
        equal(client.score(*columns), scorer.score(*columns))
    assert sorted(written) == ["images[0]", "images[1]", "images[8]", "images[9]"]
    client.close()


def sends(client, change=None):
    """Notes what a client sends, as (method, first part of the path); `change` may answer in the server's place."""
    sent, send = [], client._transport.send

    def noted(server, method, path, *rest):
        sent.append((method, path[:9]))
        answer = None if change is None else change(server, method, path, *rest)
        return send(server, method, path, *rest) if answer is None else answer

    client._transport.send = noted
    return sent


def test_new_pixels_are_sent_once_and_hashed_by_the_server_alone(running, scorer, monkeypatch):
    client = df.RemoteScorer(running.url, retry_s=20)
    sent, hashed = sends(client), []
    real = wire.PictureBytes.sha256
    monkeypatch.setattr(wire.PictureBytes, "sha256", lambda self: hashed.append(self) or real(self))
    images: list = [shared.picture(40 + i % 3) for i in range(6)] + [np.asarray(shared.picture(43)), b"no picture"]
    columns = captions(8), [TARGET] * 8, images
    for _ in range(2):
        equal(client.score(*columns, on_error="row"), scorer.score(*columns, on_error="row"))
    assert [picture.content for picture in hashed] == [b"no picture"] * 2
    assert sent.count(("POST", "/pictures")) == 4
    assert sent.count(("PUT", "/pictures")) == 1
    client.close()


@pytest.mark.parametrize("status", [404, 405, 413])
def test_a_server_that_names_no_pictures_gets_them_under_their_names(running, scorer, status):
    """An earlier version, for instance; it is not asked with each."""
    client = df.RemoteScorer(running.url, retry_s=20)
    refusal = Reply(status, {}, b"{}")
    sent = sends(client, lambda _, method, path, *rest: refusal if (method, path) == ("POST", "/pictures") else None)
    columns = captions(12), [TARGET] * 12, [shared.picture(50 + i) for i in range(12)]
    equal(client.score(*columns), scorer.score(*columns))
    assert sent.count(("PUT", "/pictures")) == 12
    assert sent.count(("POST", "/pictures")) <= 4  # those that travel together; a silent server is waited for once
    client.close()


def test_new_pictures_go_to_the_server_that_scores_them(running, start, scorer):
    other = start(window_ms=0)
    client = df.RemoteScorer([running.url, other.url], retry_s=20)
    client.config  # noqa: B018  # asks one of them
    where = []
    sends(client, lambda server, method, path, *rest: where.append((server.url, path)))
    for i in range(4):
        columns = captions(2), [TARGET] * 2, [shared.picture(60 + 2 * i), shared.picture(61 + 2 * i)]
        equal(client.score(*columns), scorer.score(*columns))
    assert [path for _, path in where] == ["/pictures", "/pictures", "/score"] * 4
    assert all(len({url for url, _ in where[i : i + 3]}) == 1 for i in range(0, 12, 3))
    assert len({url for url, _ in where}) == 2
    client.close()


def test_where_no_term_looks_at_pixels_only_sizes_travel(start, tmp_path):
    """A picture that cannot be read is an error only of the rows that need its size, as in the process itself."""
    plain = df.RewardScorer(df.RewardConfig.preset("seg-zero", coordinates="norm1000"))
    server = start(plain, window_ms=0)
    client = df.RemoteScorer(server.url, retry_s=20)
    sent = []
    send = client._transport.send
    client._transport.send = lambda s, method, path, *rest: sent.append(path) or send(s, method, path, *rest)
    images = [shared.picture(1), b"no picture", str(tmp_path / "missing.png"), np.zeros((40, 30, 3), np.uint8)]
    missing = str(tmp_path / "missing.png")
    images += [shared.picture(1, (60, 30)).convert("P"), np.zeros((0, 3, 3), np.uint8), 7, missing]
    count = len(images)
    for size in (None, (200, 100)):  # with the size of a target nobody opens its picture
        targets = [df.Target.parse(shared.SOLUTION, image_size=size)] * count
        found = both(client, plain, captions(count), targets, images, on_error="row")
        assert [error is not None for error in found.errors].count(True) == (7 if size is None else 1)
    assert {path for path in sent if path != "/config"} == {"/score"}
    body = score_body(1, images=[{"size": [3, 4]}])
    assert ask(start(window_ms=0).port, request("POST", "/score", json.dumps(body).encode()))[0] == 422
    client.close()


def test_trl_takes_it_where_a_scorer_goes(remote, scorer):
    completions = [[{"role": "assistant", "content": text}] for text in captions(6)]
    columns = {"image": [shared.picture(i % 2) for i in range(6)], "solution": [shared.SOLUTION] * 6, "id": [0, 1] * 3}
    logged = {}
    columns["log_metric"] = lambda name, value: logged.setdefault(name, []).append(value)
    local, far = TrlRewards(scorer, on_error="row"), TrlRewards(remote, on_error="row")
    assert far.weights() == local.weights()
    for one, other in zip(local.functions(), far.functions(), strict=True):
        assert one.__name__ == other.__name__
        assert one(completions=completions, **columns) == other(completions=completions, **columns)
    for name, values in logged.items():
        assert name.endswith("seconds") or values[0] == values[1]


def test_a_call_in_pieces(running, scorer):
    """For a server that takes few rows and small bodies; messages name the rows of the whole."""
    client = df.RemoteScorer(running.url, retry_s=20)
    client._about = client._servers().__class__(
        client._servers().identity, client.config, rows=7, body=3000, picture=1 << 20
    )
    texts = captions(20)
    targets = [TARGET] * 20
    targets[17] = "nothing"
    both(client, scorer, texts, targets, [shared.picture(i % 3) for i in range(20)], on_error="row")
    client.close()


def test_pictures_are_sent_once_and_again_where_the_server_forgot_them(start, scorer):
    server = start(store=1 << 20, window_ms=0)
    client = df.RemoteScorer(server.url, retry_s=20)
    sent = []
    send = client._transport.send
    client._transport.send = lambda s, method, path, *rest: sent.append(path[:9]) or send(s, method, path, *rest)
    columns = captions(4), [TARGET] * 4, [shared.picture(i % 2) for i in range(4)]
    for _ in range(3):
        equal(client.score(*columns), scorer.score(*columns))
    assert sent.count("/pictures") == 2
    large = [shared.picture(i, (640, 480)) for i in range(3)]  # 900 kB each, of which the store holds one
    columns = captions(3), [df.Target.parse(shared.SOLUTION)] * 3, large
    for _ in range(2):
        equal(client.score(*columns), scorer.score(*columns))
    client.close()
