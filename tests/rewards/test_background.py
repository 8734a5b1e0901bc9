"""Scoring in the background: the same values as `score`, parsing meanwhile, and errors raised at the result."""

import asyncio
import threading

import pytest
import torch

import dpad_fast as df
from dpad_fast.testing import rewards as shared

TARGET = df.Target.parse(shared.SOLUTION)


def batch(count, first=0):
    captions = [f"{shared.WORDS[(first + i) % len(shared.WORDS)]} near the table" for i in range(count)]
    texts = [shared.completion(caption=caption) for caption in captions]
    return texts, [TARGET] * count, [shared.picture((first + i) % 5) for i in range(count)]


def test_scores_as_score_does(encoder):
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), encoder)
    pending = [scorer.score_async(*batch(9, first)) for first in range(6)]
    for first, handle in enumerate(pending):
        assert torch.equal(handle.result(timeout=60).total, scorer.score(*batch(9, first)).total)
        assert handle.done()


def test_await(encoder):
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), encoder)

    async def both():
        return await asyncio.gather(_wait(scorer.score_async(*batch(3))), _wait(scorer.score_async(*batch(4, 1))))

    async def _wait(handle):
        return await handle

    first, second = asyncio.run(both())
    assert torch.equal(first.total, scorer.score(*batch(3)).total)
    assert torch.equal(second.total, scorer.score(*batch(4, 1)).total)


def test_parses_while_the_encoder_works(tiny):
    encoder = df.ClipEncoder.from_transformers(*tiny)
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder)
    forward, parsed, go = encoder._forwards[True], threading.Event(), threading.Event()
    run, begin = forward.images, scorer._begin

    def held(pixels, threads):
        assert go.wait(60)
        return run(pixels, threads)

    def noted(texts, *rest):
        ready = begin(texts, *rest)
        if len(texts) == 2:
            parsed.set()
        return ready

    forward.images, scorer._begin = held, noted
    first, second = scorer.score_async(*batch(5)), scorer.score_async(*batch(2, 3))
    assert parsed.wait(60)  # the second batch, while the first is held in the encoder
    assert not first.done()
    go.set()
    assert len(first.result(60)) == 5
    assert len(second.result(60)) == 2


def test_a_mistake_is_raised_where_the_scores_are_asked_for(encoder):
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder)
    bad, good = scorer.score_async(["x"], ["<box>"], [shared.picture()]), scorer.score_async(*batch(2))
    with pytest.raises(ValueError, match=r"targets\[0\]"):
        bad.result(60)
    assert len(good.result(60)) == 2
    with pytest.raises(ValueError, match="completions must be a list of strings, got one string"):
        scorer.score_async("x", [TARGET], [shared.picture()]).result(60)


def test_without_an_encoder():
    scorer = df.RewardScorer(df.RewardConfig.preset("seg-zero"))
    assert len(scorer.score_async(*batch(3)).result(60)) == 3
