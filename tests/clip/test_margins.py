"""Under precision="guarded" every decision is float32's: the margins measured on the model are wide enough."""

import random
from dataclasses import replace

import torch

import dpad_fast as df
from dpad_fast.testing import rewards as shared


def captions(count, seed=0):
    rng = random.Random(seed)
    return [" ".join(rng.choice(shared.WORDS) for _ in range(rng.choice((1, 3, 8, 15)))) for _ in range(count)]


class Rough:
    """A forward whose embeddings err as bfloat16's do, whatever the processor offers."""

    precision = name = "rough"

    def __init__(self, exact):
        self.exact = exact

    def texts(self, rows, threads):
        return self.exact.texts(rows, threads).bfloat16().float()

    def images(self, pixels, threads):
        return self.exact.images(pixels, threads).bfloat16().float()


def rough_encoder(tiny, monkeypatch):
    from dpad_fast.clip import encoder as module

    make = module.make_forwards

    def made(*args):
        forwards = make(*args)
        return replace(forwards, reduced=Rough(forwards.exact))

    monkeypatch.setattr(module, "make_forwards", made)
    return df.ClipEncoder.from_transformers(*tiny, precision="guarded")


def test_guard_decides_as_float32(tiny, monkeypatch):
    # A wide context of near ties: many captions against many pictures.
    texts = [shared.completion(caption=caption) for caption in captions(400, seed=5)]
    pictures = [shared.picture(i % 8) for i in range(400)]
    targets = [df.Target.parse(shared.SOLUTION)] * 400
    rough = rough_encoder(tiny, monkeypatch)
    monkeypatch.undo()
    guarded, exact = (df.ClipEncoder.from_transformers(*tiny, precision=name) for name in ("guarded", "float32"))
    for shape in ("binary", "roi-threshold"):
        config = df.RewardConfig.preset("dpad", shape=shape, tau=0.2)
        wanted = df.RewardScorer(config, exact).score(texts, targets, pictures).terms["discriminative"]
        for encoder in (rough, guarded):
            scorer = df.RewardScorer(config, encoder)
            assert (scorer.compared, scorer.recomputed) == (0, 0)
            assert torch.equal(scorer.score(texts, targets, pictures).terms["discriminative"], wanted)
            assert scorer.compared == 400
            if encoder is rough:
                assert 0 < scorer.recomputed < 240
            scorer.score(texts[:9], targets[:9], pictures[:9])
            assert scorer.compared == 409
        assert 0 < rough.image_margin < rough.margin < 0.05
    assert guarded.margin <= rough.margin  # int16 products err less than bfloat16, and float32 not at all


def test_without_the_guard_the_rough_encoder_decides_otherwise(tiny, monkeypatch):
    # What the guard is for: else the test above would prove nothing.
    texts = [shared.completion(caption=caption) for caption in captions(400, seed=5)]
    pictures = [shared.picture(i % 8) for i in range(400)]
    targets = [df.Target.parse(shared.SOLUTION)] * 400
    rough = rough_encoder(tiny, monkeypatch)
    rough.margin = rough.image_margin = 0.0
    monkeypatch.undo()
    exact = df.ClipEncoder.from_transformers(*tiny)
    config = df.RewardConfig.preset("dpad", shape="roi-threshold", tau=0.2)
    first, second = (df.RewardScorer(config, encoder).score(texts, targets, pictures) for encoder in (rough, exact))
    assert not torch.equal(first.similarity["roi"], second.similarity["roi"])
