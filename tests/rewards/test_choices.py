"""Every choice beyond the presets, against its formula computed by hand."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import dpad_fast as df
from dpad_fast.testing import rewards as shared

BOX = (20, 12, 64, 52)
GOOD = shared.completion()
MASK = np.zeros((72, 96), bool)
MASK[15:50, 22:60] = True
TARGET = df.Target(
    box=BOX, points=((30, 24), (50, 40)), image_size=(96, 72), mask=MASK, other_boxes=((0, 0, 30, 30), (60, 40, 96, 72))
)
CAPTION = "a small red cat near the table"


@pytest.fixture(scope="module")
def cosine(tiny):
    """Caption and pictures to cosines, one at a time, straight through the model."""
    model, processor = tiny

    def unit(output):
        return torch.nn.functional.normalize(getattr(output, "pooler_output", output), dim=-1)[0]

    def compare(caption, picture):
        ids = processor.tokenizer(caption, return_tensors="pt")["input_ids"]
        pixels = processor.image_processor(images=picture, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            return float(unit(model.get_text_features(ids)) @ unit(model.get_image_features(pixels)))

    return compare


def score(encoder, text=GOOD, target=TARGET, image=None, **settings):
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", **settings), encoder)
    batch = scorer.score([text], [target], [image or shared.picture()])
    terms = {name: float(column[0]) for name, column in batch.terms.items()}
    return terms, float(batch.similarity["roi"][0]), float(batch.similarity["aoi"][0]), batch.reasons[0]


@pytest.mark.parametrize("caption", ["a cat", "the red kettle on the table", CAPTION, "water"])
@pytest.mark.parametrize("shape", ["binary", "released", "margin", "sigmoid", "roi-threshold"])
def test_shapes(encoder, cosine, shape, caption):
    image = shared.picture()
    s1, s2 = cosine(caption, image.crop(BOX)), cosine(caption, image)
    expected = {
        "binary": float(s1 > s2),
        "released": s1 * max(0, s1 - s2),
        "margin": max(0, s1 - s2),
        "sigmoid": 1 / (1 + math.exp(-7 * (s1 - s2))),
        "roi-threshold": float(s1 > 0.1),
    }[shape]
    terms, roi, aoi, _ = score(encoder, shared.completion(caption=caption), shape=shape, alpha=7, tau=0.1)
    assert (roi, aoi) == (pytest.approx(s1, abs=1e-6), pytest.approx(s2, abs=1e-6))
    assert terms["discriminative"] == pytest.approx(expected, abs=1e-5)


def test_predicted_region(encoder, cosine):
    text = shared.completion([22, 10, 70, 50])
    _, roi, aoi, _ = score(encoder, text, region="predicted")
    assert roi == pytest.approx(cosine(CAPTION, shared.picture().crop((22, 10, 70, 50))), abs=1e-6)
    assert aoi == pytest.approx(cosine(CAPTION, shared.picture()), abs=1e-6)


@pytest.mark.parametrize(
    ("box", "reason"), [([100, 100, 120, 120], "empty-region"), ([22.1, 10, 22.2, 50], "empty-region")]
)
def test_predicted_region_may_be_empty(encoder, box, reason):
    terms, roi, _, found = score(encoder, shared.completion(box), region="predicted")
    assert terms["discriminative"] == 0
    assert math.isnan(roi)
    assert found == reason


def test_predicted_region_is_cut_to_the_image(encoder, cosine):
    _, roi, _, _ = score(encoder, shared.completion([22, 10, 1e7, 1e7]), region="predicted")
    assert roi == pytest.approx(cosine(CAPTION, shared.picture().crop((22, 10, 96, 72))), abs=1e-6)


def test_masked_region(encoder, cosine):
    pixels = np.asarray(shared.picture()) * MASK[..., None]
    _, roi, _, _ = score(encoder, region="mask")
    assert roi == pytest.approx(cosine(CAPTION, Image.fromarray(pixels.astype(np.uint8)).crop(BOX)), abs=1e-6)


def test_blanked_contrast(encoder, cosine):
    pixels = np.asarray(shared.picture()).copy()
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 0
    _, _, aoi, _ = score(encoder, contrast="blanked")
    assert aoi == pytest.approx(cosine(CAPTION, Image.fromarray(pixels)), abs=1e-6)


def test_hardest_contrast(encoder, cosine):
    hardest = max(cosine(CAPTION, shared.picture().crop(box)) for box in TARGET.other_boxes)
    _, _, aoi, _ = score(encoder, contrast="hardest")
    assert aoi == pytest.approx(hardest, abs=1e-6)
    alone = df.Target(box=BOX, points=TARGET.points, image_size=(96, 72))
    _, _, aoi, _ = score(encoder, target=alone, contrast="hardest")
    assert aoi == pytest.approx(cosine(CAPTION, shared.picture()), abs=1e-6)


def test_long_captions(encoder, cosine):
    words = ["abcdefghijk"[i * i % 11] for i in range(160)]  # one token each
    text = shared.completion(caption=" ".join(words))
    assert score(encoder, text)[3] == "too-long"
    parts = [" ".join(words[i : i + 75]) for i in range(0, 160, 75)]
    roi = shared.picture().crop(BOX)
    _, found, _, reason = score(encoder, text, long_caption="truncate")
    assert found == pytest.approx(cosine(parts[0], roi), abs=1e-6)
    assert reason is None
    _, found, aoi, _ = score(encoder, text, long_caption="chunk")
    assert found == pytest.approx(sum(cosine(part, roi) for part in parts) / 3, abs=1e-6)
    assert aoi == pytest.approx(sum(cosine(part, shared.picture()) for part in parts) / 3, abs=1e-6)


def test_chunks_and_hardest_together(encoder, cosine):
    words = ["abcdefghijk"[i * i % 11] for i in range(100)]
    parts = [" ".join(words[:75]), " ".join(words[75:])]
    crops = [shared.picture().crop(box) for box in TARGET.other_boxes]
    hardest = max(sum(cosine(part, crop) for part in parts) / 2 for crop in crops)
    text = shared.completion(caption=" ".join(words))
    assert score(encoder, text, long_caption="chunk", contrast="hardest")[2] == pytest.approx(hardest, abs=1e-6)


SQUARE = [[22, 15], [60, 15], [60, 50], [22, 50]]


def polygon(value, **fields):
    return f"<think>t</think><answer>{json.dumps({'polygon': value, **fields})}</answer><caption>{CAPTION}</caption>"


def test_mask_geometry(encoder):
    terms, s1, s2, reason = score(encoder, polygon(SQUARE), geometry="mask")
    assert list(terms) == ["think_format", "answer_format", "mask_iou", "discriminative"]
    assert terms["mask_iou"] > 0.9
    assert reason == (None if s1 > s2 else "not-discriminative")
    half = score(encoder, polygon([[22, 15], [41, 15], [41, 50], [22, 50]]), geometry="mask")[0]["mask_iou"]
    assert 0.45 < half < 0.55
    two = [[[22, 15], [41, 15], [41, 50], [22, 50]], [[41, 15], [60, 15], [60, 50], [41, 50]]]
    assert score(encoder, polygon(two), geometry="mask")[0]["mask_iou"] > 0.9
    assert score(encoder, polygon(SQUARE), geometry="mask", mask_threshold=0.5)[0]["mask_iou"] == 1
    assert score(encoder, polygon(two[0]), geometry="mask", mask_threshold=0.7)[0]["mask_iou"] == 0


def test_mask_geometry_takes_ignored_pixels_out(encoder):
    ignore = np.zeros_like(MASK)
    ignore[:, 41:] = True
    target = df.Target(box=BOX, image_size=(96, 72), mask=MASK, ignore=ignore, points=TARGET.points)
    half = polygon([[22, 15], [41, 15], [41, 50], [22, 50]])
    assert score(encoder, half, target=target, geometry="mask")[0]["mask_iou"] > 0.9


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "bad-polygon"),
        ([[1, 2], [3, 4]], "bad-polygon"),
        ([[1, 2], [3, 4], [5]], "bad-polygon"),
        ([[1, 2], [3, 4], [5, "6"]], "bad-polygon"),
        ([[1, 2], [3, 4], [5, True]], "bad-polygon"),
        ([[1, 2], [3, 4], [5, 1e9]], "bad-polygon"),
        ([[1, 2], [3, 4], [5, float("nan")]], "non-finite"),
        ([[[1, 2], [3, 4], [5, 6]], 7], "bad-polygon"),
        ("all of it", "bad-polygon"),
        (None, "bad-polygon"),
    ],
)
def test_degenerate_polygons(encoder, value, reason):
    terms, *_, found = score(encoder, polygon(value), geometry="mask", gate=False)
    assert (terms["mask_iou"], terms["answer_format"], found) == (0, 0, reason)
    assert score(encoder, GOOD, geometry="mask")[3] == "missing-field"


def test_mask_geometry_needs_a_mask(encoder):
    bare = df.Target(box=BOX, points=TARGET.points)
    with pytest.raises(ValueError, match=r"targets\[0\] has neither mask nor polygons"):
        score(encoder, polygon(SQUARE), target=bare, geometry="mask")
    with pytest.raises(ValueError, match=r"targets\[0\] has neither mask nor polygons"):
        score(encoder, "", target=bare, region="mask")
    drawn = df.Target(box=BOX, points=TARGET.points, polygons=(np.array(SQUARE, float),), image_size=(96, 72))
    assert score(encoder, polygon(SQUARE), target=drawn, geometry="mask")[0]["mask_iou"] == 1


def scaled(unit):
    box = [20 / 96 * unit, 12 / 72 * unit, 64 / 96 * unit, 52 / 72 * unit]
    return shared.completion(box, [30 / 96 * unit, 24 / 72 * unit], [50 / 96 * unit, 40 / 72 * unit])


def geometry(text, target, images=None, sizes=None, **settings):
    settings = {"terms": ("iou", "box_l1", "point_l1"), "gate": False, **settings}
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", **settings))
    return scorer.score([text], [target], images, model_sizes=sizes).total.tolist()[0]


@pytest.mark.parametrize(("coordinates", "unit"), [("norm1000", 1000), ("norm1", 1)])
def test_normalised_coordinates(coordinates, unit):
    assert geometry(scaled(unit), TARGET, coordinates=coordinates, box_l1_threshold=0.01) == 3
    assert geometry(GOOD, TARGET, coordinates=coordinates, point_threshold=10) == 0
    bare = df.Target(box=BOX, points=TARGET.points)
    assert geometry(scaled(unit), bare, [shared.picture()], coordinates=coordinates) == 3
    with pytest.raises(ValueError, match=rf"targets\[0\].image_size is missing: coordinates='{coordinates}'"):
        geometry(scaled(unit), bare, coordinates=coordinates)


def test_pixels_of_the_image_that_the_model_saw():
    text = shared.completion([40, 24, 128, 104], [60, 48], [100, 80])  # at twice the size
    assert geometry(text, TARGET, sizes=[(192, 144)]) == 3
    assert geometry(text, TARGET, model_size=(192, 144)) == 3
    assert geometry(text, TARGET, point_threshold=10) == 0
    bare = df.Target(box=BOX, points=TARGET.points)
    with pytest.raises(ValueError, match=r"targets\[0\].image_size is missing: the model saw 192x144"):
        geometry(text, bare, sizes=[(192, 144)])
    with pytest.raises(ValueError, match=r"model_sizes\[0\] must be \(width, height\)"):
        geometry(text, TARGET, sizes=[(0, 144)])


def test_coordinates_reach_polygons_and_objects():
    norm = [[x / 96, y / 72] for x, y in SQUARE]
    settings = {"terms": ("mask_iou",), "geometry": "mask", "coordinates": "norm1"}
    assert geometry(polygon(norm), TARGET, **settings) > 0.9
    config = df.RewardConfig.preset("vision-reasoner", coordinates="norm1000")
    answer = [{"bbox_2d": [250, 250, 500, 500], "point_2d": [400, 400]}]
    target = df.Target(objects=(((25, 25, 50, 50), (40, 40)),), image_size=(100, 100))
    text = f"<think>t</think><answer>{json.dumps(answer)}</answer>"
    assert float(df.RewardScorer(config).score([text], [target]).terms["accuracy"][0]) == 3
