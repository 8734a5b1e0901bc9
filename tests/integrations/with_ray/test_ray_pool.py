"""A pool of Ray actors gives the rewards of one scorer, and loses no row when an actor dies."""

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("ray")

import ray

import dpad_fast as df
from dpad_fast.integrations.ray_pool import RayScorer
from dpad_fast.testing import rewards as shared

SPEC = df.ScorerSpec(config=df.RewardConfig.preset("dpad", shape="sigmoid"), encoder="shapes")
COUNT = 300


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def pool(cluster, tmp_path_factory):
    with RayScorer(replace(SPEC, cache=tmp_path_factory.mktemp("embeddings")), rows=32, timeout_s=120) as pool:
        yield pool


def rows(count=COUNT):
    captions = [f"the {shared.WORDS[i % len(shared.WORDS)]} cat near the table" for i in range(count)]
    texts = [shared.completion(caption=caption) if i % 7 else "no tags" for i, caption in enumerate(captions)]
    targets = [df.Target.parse(shared.SOLUTION, image_size=shared.SIZE)] * count
    pictures = [shared.picture(i) for i in range(9)]
    return texts, targets, [pictures[i % 9] for i in range(count)]


@pytest.fixture(scope="module")
def expected():
    return replace(SPEC, threads=1).build().score(*rows())


def same(found, wanted):
    def flat(batch):
        columns = (batch.total, *batch.terms.values(), *batch.similarity.values())
        return torch.stack(columns).nan_to_num(7.0)

    return torch.equal(flat(found), flat(wanted)) and found.reasons == wanted.reasons


def test_rewards_are_those_of_one_scorer(pool, expected):
    assert same(pool.score(*rows()), expected)
    assert same(pool.score_async(*rows()).result(120), expected)
    assert pool.score([], [], []).total.shape == (0,)
    assert len(set(pool.pids)) == 2
    # One folder of embeddings for all.
    assert any(path.is_file() for path in Path(pool.spec.cache).rglob("*"))


def test_threads_and_cpus_are_those_that_were_asked_for(pool):
    assert pool.spec.threads == 1
    assert ray.available_resources().get("CPU", 0) == 0
    pids = pool.pids
    environments = [Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in pids]
    assert all(b"OMP_NUM_THREADS=1" in environment for environment in environments)


def test_errors_are_named_by_the_row_of_the_whole(pool):
    texts, targets, images = rows(80)
    images[70] = "missing.png"
    batch = pool.score(texts, targets, images, on_error="row", model_sizes=lambda size: size)
    assert [i for i, error in enumerate(batch.errors) if error is not None] == [70]
    assert batch.reasons[70] == "bad-image"
    assert batch.errors[70].startswith("images[70] cannot be opened")
    with pytest.raises(ValueError, match=r"^images\[70\] cannot be opened"):
        pool.score(texts, targets, images)
    with pytest.raises(ValueError, match="targets"):
        pool.score(texts[:79], targets, images[:79])


@pytest.mark.parametrize("how", ["killed", "ended by ray"])
def test_an_actor_that_dies_in_the_middle_loses_nothing(pool, expected, how):
    before = pool.pids
    found = []
    caller = threading.Thread(target=lambda: found.extend(pool.score(*rows()) for _ in range(4)))
    caller.start()
    time.sleep(0.05)
    if how == "killed":
        os.kill(before[0], signal.SIGKILL)
    else:
        ray.kill(pool._actors[0])
    caller.join(240)
    assert len(found) == 4
    assert all(same(batch, expected) for batch in found)
    after = pool.pids
    assert before[0] not in after
    assert before[1] in after


def test_rows_that_kill_every_actor_are_given_up(pool, monkeypatch):
    texts, targets, images = rows(4)

    class Killer:
        """What an actor dies of when it unpickles it."""

        def __reduce__(self):
            return os._exit, (3,)

    with pytest.raises(RuntimeError, match="actors died under the same 4 rows"):
        pool.score([*texts[:3], Killer()], targets, images, on_error="row")
    assert same(pool.score(texts, targets, images), SPEC.build().score(texts, targets, images))


def test_mistakes():
    with pytest.raises(ValueError, match="actors must be a whole number of at least 1, got 0"):
        RayScorer(SPEC, actors=0)
    with pytest.raises(ValueError, match=r"spec.device is 'cuda:1', but num_gpus is 0, and Ray hides"):
        RayScorer(replace(SPEC, device="cuda:1"))
    with pytest.raises(ValueError, match=r"spec.device is 'cpu': with num_gpus=1 it must be 'cuda'"):
        RayScorer(SPEC, num_gpus=1)
    with pytest.raises(RuntimeError, match=r"1 actors of .* did not start in 2 s; the cluster has 2 CPUs and 0 GPUs"):
        RayScorer(SPEC, actors=1, num_cpus=7, timeout_s=2)
