"""`RewardScorer.score`: terms, gate and weights, hostile completions, and images of every kind."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

import dpad_fast as df
from dpad_fast.testing import rewards as shared

GOOD = shared.completion()
BOX_TERMS = ("iou", "box_l1", "point_l1")


def target(**overrides):
    fields = {"box": (20, 12, 64, 52), "points": ((30, 24), (50, 40)), "image_size": shared.SIZE}
    return df.Target(**{**fields, **overrides})


def score(encoder, texts, *, config=None, targets=None, images=None, **rest):
    texts = [texts] if isinstance(texts, str) else texts
    scorer = df.RewardScorer(config or df.RewardConfig(), encoder)
    return scorer.score(texts, targets or [target()] * len(texts), images or [shared.picture()] * len(texts), **rest)


def row(batch, i=0):
    return {name: float(column[i]) for name, column in batch.terms.items()}


def test_good_completion(encoder):
    batch = score(encoder, GOOD)
    s1, s2 = float(batch.similarity["roi"][0]), float(batch.similarity["aoi"][0])
    assert row(batch) == {
        **dict.fromkeys(("think_format", "answer_format", *BOX_TERMS), 1.0),
        "discriminative": float(s1 > s2),
    }
    assert batch.reasons == (None if s1 > s2 else "not-discriminative",)
    assert batch.total.dtype == torch.float32
    assert {"parse", "geometry", "preprocess", "text", "image", "combine"} <= set(batch.timings)


@pytest.mark.parametrize(
    ("text", "reason", "think", "answer"),
    [
        ("", "no-tags", 0, 0),
        (GOOD.replace("</think>", ""), "no-tags", 0, 1),
        (shared.completion([20, 12, 64, True]), "bad-field", 1, 0),
        (shared.completion([20, 12, 64, float("inf")]), "non-finite", 1, 0),
    ],
)
def test_gate_zeroes_the_rest(encoder, text, reason, think, answer):
    batch = score(encoder, text)
    assert row(batch) == {
        "think_format": think,
        "answer_format": answer,
        **dict.fromkeys((*BOX_TERMS, "discriminative"), 0),
    }
    assert batch.reasons == (reason,)
    assert np.isnan(float(batch.similarity["roi"][0]))


def test_without_gate_terms_stand_alone(encoder):
    config = df.RewardConfig.preset("dpad", gate=False)
    batch = score(encoder, GOOD.replace("</think>", ""), config=config)
    assert [row(batch)[name] for name in BOX_TERMS] == [1, 1, 1]
    assert not np.isnan(float(batch.similarity["roi"][0]))


@pytest.mark.parametrize(
    ("caption", "reason"),
    [("", "empty-caption"), ("cat " * 76, "too-long"), ("a \ud800", "bad-text"), ("x" * 99_999, "too-long")],
)
def test_captions_that_cannot_be_compared(encoder, caption, reason):
    batch = score(encoder, shared.completion(caption=caption))
    assert row(batch)["discriminative"] == 0
    assert row(batch)["iou"] == 1
    assert batch.reasons == (reason,)


def test_the_longest_caption_that_fits(encoder):
    assert score(encoder, shared.completion(caption="a " * 75)).reasons == (None,)
    assert score(encoder, shared.completion(caption="a " * 76)).reasons == ("too-long",)


def test_weights_and_left_out_terms(encoder):
    config = df.RewardConfig(terms=("iou", "point_l1"), weights={"iou": 2.5, "point_l1": -1}, gate=False)
    batch = df.RewardScorer(config).score([GOOD], [target()])
    assert list(batch.terms) == ["iou", "point_l1"]
    assert float(batch.total[0]) == 1.5
    # The gate looks at the format even where its terms are left out.
    gated = df.RewardScorer(config.replace(gate=True)).score([GOOD + "x"], [target()])
    assert float(gated.total[0]) == 0


def test_seg_zero_needs_no_encoder_and_no_image():
    text = GOOD.split(" <caption>")[0]
    batch = df.RewardScorer(df.RewardConfig.preset("seg-zero")).score([text, text + "."], [target(), target()])
    assert batch.total.tolist() == [5, 4]
    assert batch.reasons == (None, "no-tags")


def test_mistakes_of_the_caller_are_named(encoder):
    with pytest.raises(ValueError, match="encoder is missing"):
        df.RewardScorer(df.RewardConfig())
    for message, arguments in [
        (r"targets has 1 entries for 2 completions", {"texts": [GOOD] * 2, "targets": [target()]}),
        (r"completions\[1\] must be a string, got NoneType", {"texts": [GOOD, None]}),
        (r"targets\[0\].box is missing", {"texts": "", "targets": [target(box=None)]}),
        (r"targets\[0\].points is missing", {"texts": "", "targets": [target(points=None)]}),
        (r"targets\[0\].box has no area.*\(64.0, 12.0", {"texts": "", "targets": [target(box=(64, 12, 20, 52))]}),
        (r"targets\[0\]: text holds no <box>", {"texts": "", "targets": ["nothing"]}),
        (r"targets\[0\] must be a Target", {"texts": "", "targets": [7]}),
        (r"images\[0\] must be a PIL image", {"texts": "", "images": [7]}),
        (r"images\[0\] cannot be opened", {"texts": "", "images": [b"no image"]}),
        (r"images\[0\] must be uint8", {"texts": "", "images": [np.zeros((4, 4, 3))]}),
        (r"image_keys has 2 entries for 1 images", {"texts": "", "image_keys": ["a", "b"]}),
    ]:
        with pytest.raises(ValueError, match=message):
            score(encoder, **arguments)
    with pytest.raises(ValueError, match="images is missing"):
        df.RewardScorer(df.RewardConfig(), encoder).score([GOOD], [target()])


def test_no_completions(encoder):
    batch = df.RewardScorer(df.RewardConfig(), encoder).score([], [], [])
    assert len(batch) == 0
    assert batch.total.shape == (0,)


def hostile_batch(count, seed=3):
    rng = random.Random(seed)
    texts = [shared.hostile(rng) for _ in range(count)]
    pictures = [shared.picture(0), shared.picture(1)]
    return texts, [target() for _ in texts], [rng.choice(pictures) for _ in texts]


@pytest.mark.parametrize("preset", ["dpad", "dpad-released"])
def test_company_order_and_size_do_not_matter(tiny, preset):
    texts, targets, images = hostile_batch(300)
    config = df.RewardConfig.preset(preset, gate=False, shape="margin")

    def fresh(order):
        scorer = df.RewardScorer(config, df.ClipEncoder.from_transformers(*tiny))
        return scorer.score([texts[i] for i in order], [targets[i] for i in order], [images[i] for i in order])

    everyone = fresh(range(300))
    shuffled = list(range(300))
    random.Random(0).shuffle(shuffled)
    parts = [(shuffled, fresh(shuffled))]
    parts += [(range(i, i + 50), fresh(range(i, i + 50))) for i in range(0, 300, 50)]
    parts += [([i], fresh([i])) for i in range(0, 300, 30)]
    for order, batch in parts:
        chosen = list(order)
        for name, column in batch.terms.items():
            tolerance = 1e-6 if name == "discriminative" else 0
            torch.testing.assert_close(column, everyone.terms[name][chosen], atol=tolerance, rtol=0)
        for name, column in batch.similarity.items():
            torch.testing.assert_close(column, everyone.similarity[name][chosen], atol=1e-6, rtol=0, equal_nan=True)
        assert batch.reasons == tuple(everyone.reasons[i] for i in chosen)


@pytest.mark.parametrize("preset", ["dpad", "dpad-released", "seg-zero", "vision-reasoner"])
def test_hostile_completions_are_finite(encoder, preset):
    texts, targets, images = hostile_batch(1000, seed=11)
    if preset == "vision-reasoner":
        targets = [df.Target(objects=(((20, 12, 64, 52), (30, 24)),))] * len(texts)
    batch = score(encoder, texts, config=df.RewardConfig.preset(preset), targets=targets, images=images)
    assert torch.isfinite(batch.total).all()
    assert all(torch.isfinite(column).all() for column in batch.terms.values())
    best = float(batch.total.max())
    assert all(
        reason is not None for total, reason in zip(batch.total.tolist(), batch.reasons, strict=True) if total == 0
    )
    assert best > 0


def test_images_of_every_kind_score_alike(encoder, tmp_path):
    image = shared.picture()
    path = tmp_path / "a.png"
    image.save(path)
    array = np.asarray(image)
    kinds = [
        image,
        path,
        str(path),
        path.read_bytes(),
        {"bytes": path.read_bytes(), "path": None},
        {"bytes": None, "path": str(path)},
        array,
        torch.from_numpy(array.copy()),
        torch.from_numpy(array.copy()).permute(2, 0, 1),
        image.convert("RGBA"),
    ]
    batch = score(encoder, [GOOD] * len(kinds), images=kinds)
    assert batch.similarity["roi"].unique().numel() == 1
    assert batch.similarity["aoi"].unique().numel() == 1


def test_equal_inputs_are_embedded_once(tiny):
    texts = [shared.completion(caption=caption) for caption in ("a cat", "a dog") for _ in range(8)]
    copies = [shared.picture(i % 2) for i in range(16)]  # distinct objects, two contents
    ran = []
    encoder = df.ClipEncoder.from_transformers(*tiny)
    forward = encoder._forwards[True]
    run_texts, run_images = forward.texts, forward.images
    forward.texts = lambda rows, threads: ran.append(("text", len(rows))) or run_texts(rows, threads)
    forward.images = lambda pixels, threads: ran.append(("image", len(pixels))) or run_images(pixels, threads)
    score(encoder, texts, images=copies)
    assert sorted(ran) == [("image", 4), ("text", 2)]
    ran.clear()
    score(encoder, texts, images=copies)
    assert ran == []  # cached
    encoder.cache.clear()
    score(encoder, texts, images=copies[::2] * 2, image_keys=["same"] * 16)
    assert sorted(ran) == [("image", 2), ("text", 2)]


def test_whole_image_as_region_is_a_tie(encoder):
    width, height = shared.SIZE
    config = df.RewardConfig.preset("dpad", gate=False)
    batch = score(encoder, GOOD, config=config, targets=[target(box=(0, 0, width, height))])
    assert float(batch.similarity["roi"][0]) == float(batch.similarity["aoi"][0])
    assert row(batch)["discriminative"] == 0


def test_image_of_another_size_than_the_ground_truth(encoder):
    large = shared.picture().resize((192, 144), Image.Resampling.BICUBIC)
    direct = score(encoder, GOOD)
    with pytest.raises(ValueError, match=r"model_sizes\[0\] is missing: images\[0\] is 192x144 but .* 96x72"):
        score(encoder, GOOD, images=[large])
    batch = score(encoder, GOOD, images=[large], model_sizes=[shared.SIZE])
    assert row(batch)["iou"] == 1
    assert float(batch.similarity["roi"][0]) == pytest.approx(float(direct.similarity["roi"][0]), abs=0.05)


def test_pillows_padding_is_no_alpha(encoder):
    # Pillow keeps 4 bytes for each RGB pixel; after a resize the fourth is 0.
    resized = shared.picture().resize(shared.SIZE, Image.Resampling.BICUBIC, box=(1, 1, 90, 70))
    batch = score(encoder, [GOOD] * 2, images=[resized, np.array(resized)])
    assert batch.similarity["roi"][0] == batch.similarity["roi"][1]
    assert batch.similarity["aoi"][0] == batch.similarity["aoi"][1]
