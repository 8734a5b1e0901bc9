"""Rows one at a time are scored in few batches, with the values of `score`; a bad one harms no other."""

import asyncio
import gc
import math
import os
import pickle
import threading
import time
import warnings
import weakref
from concurrent.futures import CancelledError

import pytest
import torch

import dpad_fast as df
from dpad_fast.row_errors import moved
from dpad_fast.testing import rewards as shared

TARGET = df.Target.parse(shared.SOLUTION, image_size=shared.SIZE)
COUNT = 48


def rows(count=COUNT):
    captions = [f"the {shared.WORDS[i % len(shared.WORDS)]} near the table" for i in range(count)]
    texts = [shared.completion(caption=caption) if i % 7 else "no tags" for i, caption in enumerate(captions)]
    return texts, [TARGET] * count, [shared.picture(i % 5) for i in range(count)]


class Counted:
    """A scorer whose calls are counted, and which fails or sleeps where a completion says so."""

    def __init__(self, scorer):
        self.scorer, self.config, self.calls = scorer, scorer.config, []
        self.go = threading.Event()
        self.go.set()

    def score(self, completions, *rest, **settings):
        self.calls.append(len(completions))
        assert self.go.wait(60)
        if any("explode" in str(text) for text in completions):
            raise RuntimeError("a scorer's own fault")
        return self.scorer.score(completions, *rest, **settings)


@pytest.fixture(scope="module")
def scorer(encoder):
    return df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), encoder)


@pytest.fixture
def counted(scorer):
    return Counted(scorer)


def same(row, batch, i):
    wanted = [batch.total[i], *(column[i] for column in (*batch.terms.values(), *batch.similarity.values()))]
    found = [row.total, *row.terms.values(), *row.similarity.values()]
    return row.reason == batch.reasons[i] and torch.equal(
        torch.tensor(found, dtype=torch.float32).nan_to_num(7), torch.stack(wanted).nan_to_num(7)
    )


def test_48_concurrent_rows_in_few_batches_with_the_values_of_score(counted):
    texts, targets, images = rows()
    expected = counted.scorer.score(texts, targets, images)

    async def all_rows(batcher):
        return await asyncio.gather(*map(batcher.score_one, texts, targets, images))

    with df.MicroBatcher(counted, window_ms=200) as batcher:
        found = asyncio.run(all_rows(batcher))
    assert all(same(row, expected, i) for i, row in enumerate(found))
    assert len(counted.calls) <= 3
    assert sum(counted.calls) == COUNT
    assert batcher.waiting == 0


def test_an_exploding_row_raises_for_its_own_caller_alone(counted):
    texts, targets, images = rows()
    expected = counted.scorer.score(texts, targets, images)
    texts[11] = "explode"
    with df.MicroBatcher(counted, window_ms=200) as batcher:
        futures = [batcher.submit(*row) for row in zip(texts, targets, images, strict=True)]
    with pytest.raises(RuntimeError, match="a scorer's own fault"):
        futures[11].result()
    assert all(same(f.result(), expected, i) for i, f in enumerate(futures) if i != 11)
    assert len(counted.calls) <= 3 * math.ceil(math.log2(COUNT))


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_that_failed_is_let_go_with_its_answers(counted, count):
    # Its pictures may be large, and Python looks only now and then for things that keep each other.
    texts, targets, images = rows(count)
    texts[0] = "explode"
    images = [image.copy() for image in images]
    kept = [weakref.ref(image) for image in images]
    gc.collect()
    gc.disable()
    try:
        with df.MicroBatcher(counted, window_ms=0) as batcher:
            with pytest.raises(RuntimeError, match="own fault") as raised:
                batcher.score(texts, targets, images)
            del raised, images
            assert batcher.score(*rows(1)).errors == (None,)
            assert [one() for one in kept] == [None] * count
    finally:
        gc.enable()


def test_a_server_that_is_not_there_is_asked_once_per_batch(counted, monkeypatch):
    """Each further try would take as long as a client tries, and the first caller would hear of it hours later."""

    def nobody(completions, *rest, **settings):
        counted.calls.append(len(completions))
        raise ConnectionError("nobody answered")

    monkeypatch.setattr(counted, "score", nobody)
    texts, targets, images = rows(8)
    with df.MicroBatcher(counted, window_ms=60_000, max_batch=8) as batcher:
        futures = [batcher.submit(*row) for row in zip(texts, targets, images, strict=True)]
        for future in futures:
            with pytest.raises(ConnectionError, match="nobody answered"):
                future.result(60)
    assert counted.calls == [8]


def test_a_row_that_cannot_be_scored_is_named_by_its_own_index(scorer):
    with df.MicroBatcher(scorer, window_ms=200) as batcher:
        good = [batcher.submit(*row) for row in zip(*rows(5), strict=True)]
        bad = batcher.submit(shared.completion(), TARGET, b"no picture")
        lost = batcher.submit(shared.completion(), ValueError("solution is lost"), shared.picture())
        two = batcher.submit_rows(["x"] * 3, [TARGET, 7, TARGET], [shared.picture()] * 3)
    assert not any(math.isnan(future.result().total) for future in good)
    assert (bad.result().reason, bad.result().error[:10]) == ("bad-image", "images[0] ")
    assert lost.result().error == "targets[0]: solution is lost"
    assert two.result().errors[1] == "targets[1] must be a Target or a string, got int"


def test_messages_move_with_their_rows():
    assert moved("images[12] is another picture than images[10]", -10) == "images[2] is another picture than images[0]"
    assert moved("targets[12]: the text images[3] is a user's", -10) == "targets[2]: the text images[3] is a user's"
    assert moved("model_sizes[0]: no", 4) == "model_sizes[4]: no"
    assert moved(None, 4) is None


def test_rows_with_and_without_pictures_meet(encoder):
    plain = df.RewardScorer(df.RewardConfig.preset("seg-zero"))
    text = shared.completion().replace("<caption>", "").split("</answer>")[0] + "</answer>"
    with df.MicroBatcher(plain, window_ms=100) as batcher:
        futures = [batcher.submit(text, TARGET, image) for image in (None, shared.picture(), None)]
    assert [future.result().total for future in futures] == [plain.score([text], [TARGET]).total.item()] * 3
    needs = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder)
    with df.MicroBatcher(needs, window_ms=100) as batcher:
        none, one = batcher.submit(text, TARGET), batcher.submit(text, TARGET, shared.picture())
    with pytest.raises(ValueError, match="images is missing"):
        none.result()
    assert one.result().error is None


def test_a_slow_batch_loses_nothing_and_what_arrives_meanwhile_is_the_next_batch(counted):
    texts, targets, images = rows(20)
    expected = counted.scorer.score(texts, targets, images)
    counted.go.clear()
    with df.MicroBatcher(counted, window_ms=0) as batcher:
        slow = batcher.submit(texts[0], targets[0], images[0])
        while not counted.calls:
            time.sleep(0.001)
        futures = [batcher.submit(*row) for row in zip(texts, targets, images, strict=True)]
        assert batcher.waiting == 21
        assert not slow.done()
        counted.go.set()
        assert all(same(future.result(60), expected, i) for i, future in enumerate(futures))
    assert counted.calls == [1, 20]
    assert same(slow.result(), expected, 0)


def test_max_batch_ends_the_window_and_rows_handed_in_together_stay_together(counted):
    texts, targets, images = rows(8)
    with df.MicroBatcher(counted, window_ms=60_000, max_batch=4) as batcher:
        futures = [batcher.submit(*row) for row in zip(texts[:4], targets, images, strict=False)]
        assert [future.result(60).total for future in futures]
        assert len(batcher.submit_rows(texts, targets, images).result(60)) == 8
    assert counted.calls == [4, 8]


def test_nobody_waits_when_all_callers_wait(counted):
    """As many as waited together lately: one caller alone is scored at once, of three the first two wait."""
    texts, targets, images = rows(4)
    with df.MicroBatcher(counted, window_ms=60_000, max_batch=4) as batcher:
        batcher.submit_rows(texts, targets, images).result(30)
        for _ in range(3):
            assert batcher.submit(texts[0], targets[0], images[0]).result(30).error is None
        counted.go.clear()
        first = batcher.submit_rows(texts, targets, images)
        while len(counted.calls) < 5:
            time.sleep(0.001)
        futures = [batcher.submit(*row) for row in zip(texts[:2], targets, images, strict=False)]
        counted.go.set()
        first.result(30)
        futures.append(batcher.submit(texts[2], targets[2], images[2]))
        assert [future.result(30).error for future in futures] == [None] * 3
    assert counted.calls == [4, 1, 1, 1, 4, 3]


def test_cancelled_rows_are_left_out(counted):
    texts, targets, images = rows(6)
    expected = counted.scorer.score(texts, targets, images)
    with df.MicroBatcher(counted, window_ms=300) as batcher:
        futures = [batcher.submit(*row) for row in zip(texts, targets, images, strict=True)]
        assert futures[2].cancel()

        async def impatient():
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(batcher.score_one(texts[0], TARGET, images[0]), 0.001)

        asyncio.run(impatient())
        assert all(same(f.result(60), expected, i) for i, f in enumerate(futures) if i != 2)
    with pytest.raises(CancelledError):
        futures[2].result()
    assert counted.calls[-1] == 5


def test_many_threads_and_loops_at_once(scorer):
    texts, targets, images = rows(24)
    expected = scorer.score(texts, targets, images)
    wrong = []

    def by_future(batcher):
        futures = [batcher.submit(*row) for row in zip(texts, targets, images, strict=True)]
        wrong.extend(i for i, future in enumerate(futures) if not same(future.result(60), expected, i))

    def by_loop(batcher):
        async def run():
            found = await asyncio.gather(*map(batcher.score_one, texts, targets, images))
            wrong.extend(i for i, row in enumerate(found) if not same(row, expected, i))

        asyncio.run(run())

    with df.MicroBatcher(scorer, window_ms=2, max_batch=50) as batcher:
        threads = [threading.Thread(target=run, args=(batcher,)) for run in (by_future, by_loop) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert wrong == []


def test_closing_scores_what_was_accepted_and_refuses_the_rest(counted):
    batcher = df.MicroBatcher(counted, window_ms=60_000)
    future = batcher.submit("no tags", TARGET, shared.picture())
    batcher.close()
    assert future.done()
    assert future.result().reason == "no-tags"
    with pytest.raises(RuntimeError, match="is closed"):
        batcher.submit("x", TARGET, shared.picture())
    batcher.close()
    forgotten = df.MicroBatcher(counted, window_ms=60_000)
    future = forgotten.submit("no tags", TARGET, shared.picture())
    del forgotten  # nobody holds it: the same as closing
    gc.collect()
    assert future.result(60).reason == "no-tags"


def test_an_observer_that_fails_harms_nobody(counted, caplog):
    def watch(count, seconds, batch):
        raise KeyError("watching")

    with df.MicroBatcher(counted, window_ms=0, observe=watch) as batcher:
        for _ in range(2):
            assert batcher.submit("no tags", TARGET, shared.picture()).result(60).reason == "no-tags"
    assert "the observer of a MicroBatcher failed" in caplog.text


def test_rows_for_logs_have_the_same_keys_whatever_happened(scorer):
    with df.MicroBatcher(scorer, window_ms=100) as batcher:
        futures = [
            batcher.submit(text, target, shared.picture())
            for text, target in ((shared.completion(), TARGET), ("?", TARGET), (shared.completion(), "nothing"))
        ]
    good, malformed, unscored = (future.result().for_log() for future in futures)
    assert list(good) == list(malformed) == list(unscored)
    assert {key: type(value) for key, value in good.items()} == {key: type(value) for key, value in unscored.items()}
    assert set(good) > set(scorer.config.terms)
    assert (good["malformed"], malformed["malformed"], unscored["malformed"]) == (0, 1, 0)
    assert (good["unscored"], malformed["unscored"], unscored["unscored"]) == (0, 0, 1)
    assert math.isnan(unscored["total"])
    assert (unscored["reason"], malformed["reason"]) == ("bad-target", "no-tags")


def test_a_batcher_is_refused_by_name_where_it_cannot_go(scorer):
    batcher = df.MicroBatcher(scorer)
    with pytest.raises(TypeError, match=r"a MicroBatcher cannot be pickled.*ScorerSpec"):
        pickle.dumps(batcher)
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        child = os.fork()
    if child == 0:
        said = b"no error"
        try:
            batcher.submit("x", TARGET)
        except RuntimeError as error:
            said = str(error).encode()
        os.write(write, said)
        os._exit(0)
    os.waitpid(child, 0)
    assert b"belongs to the process that this one was forked from" in os.read(read, 1000)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("settings", [{"window_ms": -1}, {"window_ms": "30"}, {"max_batch": 0}, {"max_batch": 2.5}])
def test_bad_settings(scorer, settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name} must be .*{value!r}"):
        df.MicroBatcher(scorer, **settings)


def test_lists_of_several_lengths(scorer):
    with df.MicroBatcher(scorer) as batcher, pytest.raises(ValueError, match="images has 1 entries for 2 completions"):
        batcher.submit_rows(["a", "b"], [TARGET] * 2, [shared.picture()])


def test_it_goes_where_a_scorer_goes(scorer):
    """`score` has the arguments, values and messages of `RewardScorer.score`."""
    with df.MicroBatcher(scorer, window_ms=1) as batcher:
        texts, targets, images = rows(12)
        sizes = [None, (96, 72)] * 6
        for given in (None, sizes, torch.tensor([(48, 36)] * 12), lambda size: (size[0] // 2, size[1] // 2)):
            equal = (
                scorer.score(texts, targets, images, model_sizes=given),
                batcher.score(texts, targets, images, model_sizes=given),
            )
            assert torch.equal(equal[0].total, equal[1].total)
            assert equal[0].reasons == equal[1].reasons
        images[3] = "missing.png"
        for where in (scorer, batcher):
            with pytest.raises(ValueError, match=r"^images\[3\] cannot be opened"):
                where.score(texts, targets, images, on_error="raise")
            kept = where.score(texts, targets, images, on_error="row", model_sizes=lambda size: size)
            assert kept.reasons[3] == "bad-image"
            assert kept.errors.count(None) == 11
            with pytest.raises(ValueError, match="images is missing: model_sizes is a function"):
                where.score(texts, targets, model_sizes=lambda size: size)
            with pytest.raises(ValueError, match="on_error must be one of raise, row"):
                where.score(texts, targets, images, on_error="skip")
