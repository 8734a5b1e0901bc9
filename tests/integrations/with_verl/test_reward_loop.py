"""verl's real reward loop on Ray: 48 samples at once in few batches, with the scorer's own values."""

import contextlib
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("verl")

import torch

import dpad_fast as df
from dpad_fast.testing.verl import LOCAL, SIZE, answers, sample

MANAGERS = Path(__file__).with_name("managers.py")


@pytest.fixture(scope="module")
def ray():
    import ray

    ray.init(
        num_cpus=2,
        object_store_memory=200 << 20,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    yield ray
    ray.shutdown()


@contextlib.contextmanager
def loop(ray, config):
    """The handles of verl's reward workers."""
    from verl.experimental.reward_loop import RewardLoopManager

    manager = RewardLoopManager(config)
    names = [f"reward_loop_worker_{i}" for i in range(config.reward.num_workers)]
    try:
        yield manager
    finally:
        for handle in manager.reward_loop_workers:
            ray.kill(handle)
        for name in names:  # the next manager takes the same names
            with contextlib.suppress(ValueError):
                while ray.get_actor(name):
                    time.sleep(0.05)


def samples_of(dataset, tokenizer, count):
    """Samples as they come from the data set through verl's collation, and their completions."""
    from verl.utils.dataset.rl_dataset import collate_fn

    columns = collate_fn([dataset[i] for i in range(len(dataset))])
    columns.pop("dummy_tensor")
    texts = answers(count)
    rows = [{name: column[i % len(dataset)] for name, column in columns.items()} for i in range(count)]
    return [sample(tokenizer, text, **row) for text, row in zip(texts, rows, strict=True)], texts, rows


def wanted(texts, rows):
    """What the scorer itself says."""
    scorer = df.ScorerSpec(df.RewardConfig.preset("dpad"), encoder="shapes", threads=1).build()
    return scorer.score(
        texts,
        [df.Target.from_row({k: v for k, v in row.items() if k != "raw_prompt"}) for row in rows],
        [df.images_from(row, "raw_prompt")[0] for row in rows],
        model_sizes=[(140, 140)] * len(texts),
    )


def test_48_samples_in_few_batches_and_one_that_explodes_alone(ray, dataset, tokenizer, configured):
    samples, texts, rows = samples_of(dataset, tokenizer, 48)
    assert rows[0]["raw_prompt"][0]["content"][0]["image"].size == SIZE
    manager = (f"reward.reward_manager.module.path={MANAGERS}", "reward.reward_manager.name=CountingManager")
    config = configured(*manager, kwargs=LOCAL)
    batch = wanted(texts, rows)
    with loop(ray, config) as manager:
        (worker,) = manager.reward_loop_worker_handles
        found = ray.get([worker.compute_score.remote(one) for one in samples], timeout=120)
        exploding = sample(tokenizer, "explode", **rows[0])
        again = ray.get([worker.compute_score.remote(one) for one in [exploding, *samples]], timeout=120)
    assert [one["reward_score"] for one in found] == batch.total.tolist()
    assert len({one["reward_score"] for one in found}) > 3
    assert max(one["reward_extra_info"]["batches"] for one in found) <= 5
    assert [one["reward_score"] for one in again[1:]] == batch.total.tolist()
    assert again[0]["reward_score"] == 0.0
    info = again[0]["reward_extra_info"]
    assert (info["reason"], info["unscored"], info["total"]) == ("scorer-failed", 1.0, None)
    assert info["error"] == "RuntimeError: a scorer's own fault"
    keys = [list(one["reward_extra_info"]) for one in (*found, *again)]
    assert keys == [keys[0]] * 97
    for i, one in enumerate(found):
        assert one["reward_extra_info"]["iou"] == float(batch.terms["iou"][i])
        assert one["reward_extra_info"]["reason"] == (batch.reasons[i] or "")


def test_two_workers_and_a_server_give_the_same(ray, dataset, tokenizer, configured):
    """The way of a whole batch (`compute_rm_score`), which is verl's where a reward model shares the GPUs."""
    from verl import DataProto

    from dpad_fast.testing.serving import Running

    samples, texts, rows = samples_of(dataset, tokenizer, 12)
    last = [int(one.batch["responses"].shape[1]) - 1 for one in samples]  # before they are filled up
    length = max(last) + 1
    batch = wanted(texts, rows)
    server = Running("--preset", "dpad", "--threads", "1")
    try:
        config = configured("reward.num_workers=2", kwargs={"url": server.url, "window_ms": 200})
        with loop(ray, config) as manager:
            found = manager.compute_rm_score(DataProto.concat([padded(one, length) for one in samples]))
    finally:
        server.stop()
    assert found.batch["rm_scores"].sum(dim=1).tolist() == batch.total.tolist()
    assert found.non_tensor_batch["reason"].tolist() == [reason or "" for reason in batch.reasons]
    assert [float(found.batch["rm_scores"][i, place]) for i, place in enumerate(last)] == batch.total.tolist()


def padded(one, length):
    """The same sample with a longer response, and columns of objects as verl's collation makes them."""
    for name in ("responses", "input_ids", "attention_mask", "position_ids"):
        value = one.batch[name]
        whole = length + (0 if name == "responses" else 3)
        one.batch[name] = torch.nn.functional.pad(value, (0, whole - value.shape[1]))
    for name, value in one.non_tensor_batch.items():
        one.non_tensor_batch[name] = np.fromiter([value[0]], dtype=object, count=1)
    return one


def test_a_worker_that_cannot_be_made_says_why(ray, configured):
    config = configured(kwargs={**LOCAL, "encodr": "x"})
    with loop(ray, config) as manager, pytest.raises(Exception, match=r"unknown setting 'encodr'; known settings: "):
        ray.get(manager.reward_loop_workers[0].compute_score.remote(None), timeout=120)
