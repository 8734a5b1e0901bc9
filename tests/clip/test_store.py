"""Embeddings on disk: shared, bounded, and whatever happens to the file costs time and never a reward."""

import random
import sqlite3
import warnings

import pytest
import torch

import dpad_fast as df
from dpad_fast.clip import EmbeddingCache
from dpad_fast.clip import store as store_module
from dpad_fast.clip.store import FILE, EmbeddingStore
from dpad_fast.testing import cases
from dpad_fast.testing import rewards as shared

CASES = cases(1)
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


def fresh(folder, rows=30):
    """A small file with free pages in it, and what it holds."""
    store = EmbeddingStore(folder)
    held = {f"key {i}".encode(): torch.full((64,), float(i)) for i in range(rows)}
    store.put({b"gone %d" % i: torch.zeros(1024) for i in range(8)})
    store.put(held)
    store.close()
    with sqlite3.connect(folder / FILE) as connection:
        connection.execute("DELETE FROM embeddings_1 WHERE key < X'6B'")
    connection.close()
    return held


def use(folder, held):
    """Reads, writes and reads again; every value found must be what was put."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store = EmbeddingStore(folder)
        for _ in range(2):
            found = store.get(list(held), 64)
            assert all(torch.equal(value, held[key]) for key, value in found.items())
            store.put({key: value for key, value in held.items() if key not in found})
        found = store.get(list(held), 64)
        len(store)
        store.close()
    told = [str(warning.message) for warning in caught]
    assert len(told) <= 1, told
    return len(found), told


def damaged(folder, whole, content, held):
    for suffix in ("-journal", "-wal", "-shm"):
        (folder / (FILE + suffix)).unlink(missing_ok=True)
    (folder / FILE).write_bytes(content)
    use(folder, held)
    # The next start reads what the first one left.
    found, told = use(folder, held)
    assert not told
    assert found == len(held)


def test_any_bit_flipped(tmp_path):
    """Every byte of SQLite's header, then anywhere: what is lost is computed again, now and at the next start."""
    held = fresh(tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    rng = random.Random(0)
    places = [*range(108), *(rng.randrange(len(whole)) for _ in range(250 * CASES))]
    for place in places:
        content = bytearray(whole)
        content[place] ^= rng.choice((1, 2, 4, 8, 16, 32, 64, 128, 255))
        damaged(tmp_path, whole, bytes(content), held)
    for _ in range(40 * CASES):  # a block of zeros, or of other bytes
        content = bytearray(whole)
        start, count = rng.randrange(len(whole)), rng.choice((7, 100, 512, 4096))
        count = min(count, len(whole) - start)
        content[start : start + count] = rng.choice((bytes(count), rng.randbytes(count)))
        damaged(tmp_path, whole, bytes(content), held)


ODD = {
    "a number": "UPDATE embeddings_1 SET value = 5",
    "text": "UPDATE embeddings_1 SET value = 'abcd'",
    "text that is none": "UPDATE embeddings_1 SET value = CAST(X'FF80FE81' AS TEXT)",
    "nothing": "UPDATE embeddings_1 SET value = X''",
    "not whole numbers": "UPDATE embeddings_1 SET value = X'000000'",
    "a sum of text": "UPDATE embeddings_1 SET sum = CAST(sum AS TEXT)",
    "a sum that is a number": "UPDATE embeddings_1 SET sum = 1.5",
    "keys of text": "UPDATE embeddings_1 SET key = CAST(key AS TEXT)",
    "keys that are numbers": "UPDATE embeddings_1 SET key = id",
    "another's value": "UPDATE embeddings_1 SET value = (SELECT value FROM embeddings_1 WHERE id = 12)",
    "a column less": "ALTER TABLE embeddings_1 DROP COLUMN sum",
    "a column of another name": "ALTER TABLE embeddings_1 RENAME COLUMN value TO worth",
    "a view of that name": "DROP TABLE embeddings_1; CREATE VIEW embeddings_1 AS SELECT 1 AS key, 2 AS value, 3 AS sum",
    "another table of that name": "DROP TABLE embeddings_1; CREATE TABLE embeddings_1 (key, value, sum)",
    "another way of writing": "PRAGMA journal_mode=WAL",
}


@pytest.mark.parametrize("statement", ODD.values(), ids=ODD)
def test_values_of_another_type_or_size(tmp_path, statement):
    held = fresh(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.executescript(statement)
    connection.close()
    use(tmp_path, held)
    assert use(tmp_path, held) == (len(held), [])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_embeddings_that_are_no_numbers(tmp_path, value):
    store = EmbeddingStore(tmp_path)
    store.put({b"a": torch.full((4,), value)})
    with pytest.warns(RuntimeWarning, match="thrown away"):
        assert store.get([b"a"]) == {}
    store.put({b"b": torch.ones(4)})
    assert store.get([b"b"], 5) == {}  # of another size


def test_rows_of_another_type_cost_no_reward(tiny, tmp_path, expected):
    encoder = made(tiny, tmp_path)
    score(encoder)
    encoder.cache.store.close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE embeddings_1 SET value = 5 WHERE id = 3")
    connection.close()
    check_rebuilt(tiny, tmp_path, expected)


def test_a_table_of_another_format_gives_its_space_back(tmp_path):
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("CREATE TABLE embeddings_0 (key, value)")
        connection.executemany("INSERT INTO embeddings_0 VALUES (?, ?)", [(i, bytes(4000)) for i in range(70)])
    connection.close()
    before = (tmp_path / FILE).stat().st_size
    store = EmbeddingStore(tmp_path, max_bytes=1 << 18)
    assert before > store.max_bytes
    held = {b"%d" % i: torch.full((512,), float(i)) for i in range(20)}
    store.put(held)
    assert len(store.get(list(held))) == 20
    assert (tmp_path / FILE).stat().st_size == before  # its pages are used again
    store.close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        assert connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [
            ("embeddings_1",)
        ]
    connection.close()


def test_a_lock_that_another_process_keeps_is_waited_for_once(tiny, tmp_path, expected):
    score(made(tiny, tmp_path))
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    encoder = made(tiny, tmp_path)
    asked = []  # milliseconds that SQLite was told to wait: no clock decides
    timeout = encoder.cache.store._busy_timeout
    encoder.cache.store._busy_timeout = lambda use: asked.append((use, timeout(use))) or timeout(use)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            encoder.cache.clear()
            assert torch.equal(score(encoder).total, expected)
    assert sum("cannot be used now" in str(warning.message) for warning in caught) == 1
    waits = {use: [text for name, text in asked if name == use] for use in ("read", "write")}
    for texts in waits.values():
        assert texts.count("PRAGMA busy_timeout=500") == 1
        assert texts[0] == "PRAGMA busy_timeout=500"
        assert set(texts[1:]) == {"PRAGMA busy_timeout=0"}
    # As soon as it is free, what the file holds is read again.
    other.execute("COMMIT")
    encoder.cache.clear()
    seen = count_images(encoder)
    assert torch.equal(score(encoder).total, expected)
    assert seen == []
    # A writer that has not written yet does not block readers.
    other.execute("BEGIN IMMEDIATE")
    encoder.cache.clear()
    assert torch.equal(score(encoder).total, expected)
    assert seen == []
    other.close()


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


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(ValueError, match="cannot be used for embeddings"):
        EmbeddingCache(folder=tmp_path / "x")


def test_a_file_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    store = EmbeddingStore(tmp_path)
    store.put({b"a": torch.ones(4)})
    other = sqlite3.connect(tmp_path / FILE)
    other.execute("BEGIN EXCLUSIVE")
    store.close()
    monkeypatch.setattr(store_module, "_WAIT_S", 0.05)
    with pytest.warns(RuntimeWarning, match="cannot be used now"):
        assert store.get([b"a"]) == {}
    store.put({b"b": torch.ones(4)})
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


@pytest.mark.parametrize("folder", ["a\0b", 5, b"bytes"])
def test_a_folder_that_is_none_is_named(folder):
    with pytest.raises(ValueError, match=r"^folder .* cannot be used for embeddings"):
        EmbeddingCache(folder=folder)


@pytest.mark.parametrize("size", [None, "1", 1e9, float("nan"), -1])
def test_bounds_that_are_no_whole_numbers_are_named(tmp_path, size):
    with pytest.raises(ValueError, match=r"^max_bytes must be 0 or more, got .* \(a whole number\)"):
        EmbeddingCache(size)
    with pytest.raises(ValueError, match=r"^folder_bytes must be at least 65536, got .* \(a whole number\)"):
        EmbeddingCache(folder=tmp_path, folder_bytes=size)
