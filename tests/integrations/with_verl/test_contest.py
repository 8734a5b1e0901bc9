"""The ways of the benchmark of trainers through verl's reward worker: they give the same rewards."""

import pytest

pytest.importorskip("verl")
pytest.importorskip("open_clip")

from dpad_fast.testing.verl import scored


def test_every_way_of_the_contest_gives_the_same_rewards(tokenizer, tmp_path, monkeypatch):
    from bench.trainers import verl
    from bench.trainers.work import Work

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    work = Work.make(1, 2, 2)
    policy, clip, paths = verl.saved(work, tmp_path)
    found = {}
    for way in verl.WAYS:
        samples = verl.samples_of(work, 0, tokenizer, paths)
        found[way] = [one["reward_score"] for one in scored(verl.configured(way, policy, clip), samples)]
    plain = found[verl.PLAIN]
    assert found[verl.OURS] == pytest.approx(plain, abs=1e-5)
    assert found[verl.FUNCTION] == pytest.approx(plain, abs=1e-5)
    assert len(plain) == 4
    assert min(plain) > 0
