import multiprocessing
import os
import signal
import sqlite3
import time
import warnings

import pytest
import torch

import dpad_fast as df
from dpad_fast import testing_rewards as shared
from dpad_fast.clip import EmbeddingCache
from dpad_fast.clip.store import FILE, EmbeddingStore

CAPTIONS = ("a red cat", "a small dog near the table", "the blue chair")


def score(encoder, pictures=6):
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), encoder)
    texts = [shared.completion(caption=CAPTIONS[i % 3]) for i in range(pictures)]
    shown = [shared.picture(i) for i in range(pictures)]
    return scorer.score(texts, [df.Target.parse(shared.SOLUTION)] * pictures, shown)


def made(tiny, folder, **settings):
    return df.ClipEncoder.from_transformers(*tiny, cache=EmbeddingCache(folder=folder, **settings))


def count_images(encoder):
    """Counts the pictures that the model is shown."""
    seen = []
    forward = encoder._forwards[True]
    run = forward.images
    forward.images = lambda pixels, threads: seen.append(len(pixels)) or run(pixels, threads)
    return seen


@pytest.fixture(scope="module")
def expected(tiny):
    return score(df.ClipEncoder.from_transformers(*tiny)).total


def test_a_second_process_embeds_nothing(tiny, tmp_path, expected):
    first = made(tiny, tmp_path)
    assert torch.equal(score(first).total, expected)
    second = made(tiny, tmp_path)
    seen = count_images(second)
    assert torch.equal(score(second).total, expected)
    assert seen == []
    assert len(second.cache.store) == 12  # six pictures, whole and cropped


def test_another_model_finds_nothing_of_it(tiny, tmp_path):
    score(made(tiny, tmp_path))
    other = shared.tiny_clip(seed=8)
    encoder = df.ClipEncoder.from_transformers(*other, cache=EmbeddingCache(folder=tmp_path))
    seen = count_images(encoder)
    score(encoder)
    assert sum(seen) == 12
    assert encoder.digest != made(tiny, tmp_path).digest


def test_float32_serves_where_less_is_asked_for(tiny, tmp_path, expected):
    score(made(tiny, tmp_path))
    encoder = df.ClipEncoder.from_transformers(*tiny, precision="guarded", cache=EmbeddingCache(folder=tmp_path))
    for forward in encoder._forwards.values():
        forward.images = None  # not called
    torch.testing.assert_close(score(encoder).total, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("keep", [0, 1, 100, 4096, 5000])
def test_truncated(tiny, tmp_path, expected, keep):
    encoder = made(tiny, tmp_path)
    score(encoder)
    encoder.cache.store.close()
    with (tmp_path / FILE).open("r+b") as file:
        file.truncate(keep)
    check_rebuilt(tiny, tmp_path, expected, damaged=keep >= 100)  # SQLite takes less for a new file


def check_rebuilt(tiny, folder, expected, damaged=True):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = made(tiny, folder)
        assert torch.equal(score(again).total, expected)
        again.cache.clear()
        assert torch.equal(score(again).total, expected)
    told = [str(warning.message) for warning in caught if issubclass(warning.category, RuntimeWarning)]
    assert len(told) == damaged, told
    assert all("thrown away and filled again" in message for message in told)
    third = made(tiny, folder)
    seen = count_images(third)
    assert torch.equal(score(third).total, expected)
    assert seen == []


def test_flipped_bits(tiny, tmp_path, expected):
    encoder = made(tiny, tmp_path)
    score(encoder)
    encoder.cache.store.close()
    whole = (tmp_path / FILE).read_bytes()
    for place in range(3, len(whole), len(whole) // 25):
        content = bytearray(whole)
        content[place] ^= 0x10
        (tmp_path / FILE).write_bytes(content)
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            flipped = made(tiny, tmp_path)
            assert torch.equal(score(flipped).total, expected), place
            flipped.cache.store.close()


def test_a_wrong_checksum_is_told_once(tiny, tmp_path, expected):
    encoder = made(tiny, tmp_path)
    score(encoder)
    encoder.cache.store.close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE embeddings_1 SET value = zeroblob(64) WHERE id = 3")
    connection.close()
    check_rebuilt(tiny, tmp_path, expected)


def _fill(folder, number, started):
    store = EmbeddingStore(folder)
    started.set()
    for i in range(number, 10_000_000, 4):
        store.put({f"{i % 500}-{j}".encode(): torch.full((64,), float(i % 500)) for j in range(20)})


def _check(folder, number, result):
    store = EmbeddingStore(folder)
    wrong = 0
    for i in range(60):
        key = f"{(i * 7 + number) % 40}".encode()
        found = store.get([key]).get(key)
        wrong += found is not None and found.tolist() != [float(key)] * 8
        store.put({key: torch.full((8,), float(key))})
    result.put((number, wrong))


def test_killed_while_writing(tmp_path):
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        started = context.Event()
        process = context.Process(target=_fill, args=(tmp_path, 0, started))
        process.start()
        assert started.wait(20)
        time.sleep(0.15)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        store = EmbeddingStore(tmp_path)
        count = len(store)
        assert count > 0
        assert count % 20 == 0  # whole transactions
        keys = [f"{i}-{j}".encode() for i in range(500) for j in range(20)]
        for key, value in store.get(keys).items():
            assert value.tolist() == [float(key.split(b"-")[0])] * 64
        store.close()


def test_four_processes_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    result = context.Queue()
    processes = [context.Process(target=_check, args=(tmp_path, i, result)) for i in range(4)]
    for process in processes:
        process.start()
    found = dict(result.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert found == dict.fromkeys(range(4), 0)
    assert len(EmbeddingStore(tmp_path)) == 40


def test_bounded(tmp_path):
    store = EmbeddingStore(tmp_path, max_bytes=1 << 18)
    for i in range(40):
        store.put({f"{i}-{j}".encode(): torch.full((512,), float(i)) for j in range(10)})
        assert (tmp_path / FILE).stat().st_size <= 1 << 18
    assert 30 < len(store) < 130
    assert store.get([b"39-3"])[b"39-3"][0] == 39
    assert b"0-0" not in store.get([b"0-0"])
    with pytest.raises(ValueError, match="folder_bytes must be at least 65536, got 5"):
        EmbeddingStore(tmp_path, 5)


def test_another_process_began_the_file_again(tmp_path):
    first, second = EmbeddingStore(tmp_path), EmbeddingStore(tmp_path)
    first.put({b"a": torch.ones(4)})
    assert len(second) == 1
    first._begin_again = lambda what: None  # it keeps its connection
    with pytest.warns(RuntimeWarning, match="thrown away"):
        second._begin_again("a test")
    second.put({b"b": torch.ones(4)})
    first.put({b"c": torch.ones(4)})
    assert sorted(second.get([b"a", b"b", b"c"])) == [b"b", b"c"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(ValueError, match="cannot be used for embeddings"):
        EmbeddingCache(folder=tmp_path / "x")


def test_a_file_that_cannot_be_written_costs_only_time(tmp_path):
    store = EmbeddingStore(tmp_path)
    store.put({b"a": torch.ones(4)})
    other = sqlite3.connect(tmp_path / FILE)
    other.execute("BEGIN EXCLUSIVE")
    store.close()
    import dpad_fast.clip.store as module

    wait, module._WAIT_S = module._WAIT_S, 0.05
    try:
        with pytest.warns(RuntimeWarning, match="cannot be used now"):
            assert store.get([b"a"]) == {}
        store.put({b"b": torch.ones(4)})
    finally:
        module._WAIT_S = wait
        other.close()
    assert store.get([b"a"])[b"a"].tolist() == [1.0] * 4


def test_embedded_ahead(tiny, tmp_path):
    from dpad_fast.rewards.ahead import embed_ahead
    from dpad_fast.types import Sample

    target = df.Target.parse(shared.SOLUTION)
    for i in range(3):
        shared.picture(i).save(tmp_path / f"{i}.png")
    samples = [Sample(f"{i}-{j}", tmp_path / f"{i}.png", "?", target) for i in range(3) for j in range(2)]
    first = made(tiny, tmp_path / "cache")
    assert embed_ahead(first, samples) == 6
    texts, targets = [shared.completion()] * 3, [target] * 3
    fresh = df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), df.ClipEncoder.from_transformers(*tiny))
    for images in ([tmp_path / f"{i}.png" for i in range(3)], [shared.picture(i) for i in range(3)]):
        second = made(tiny, tmp_path / "cache")
        seen = count_images(second)
        scorer = df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), second)
        assert torch.equal(scorer.score(texts, targets, images).total, fresh.score(texts, targets, images).total)
        assert seen == []
