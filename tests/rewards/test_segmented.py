"""`mask_iou` through a segmenter: the IoU of its mask with the target's, once per batch, with reasons."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

import dpad_fast as df
from dpad_fast.segmenters import SamSegmenter
from dpad_fast.testing.segmenters import small_sam2, write_small_sam2
from dpad_fast.types import Completion

TERMS = ("think_format", "answer_format", "mask_iou")
CONFIG = df.RewardConfig.preset("seg-zero", terms=TERMS, segmenter="box")
BOXES = ([4, 4, 30, 28], [10, 2, 38, 35])


def text(box, first=(8, 8), second=(20, 20)):
    answer = {"bbox": list(box), "points_1": list(first), "points_2": list(second)}
    return f"<think>a b c</think><answer>{json.dumps(answer)}</answer>"


def target(box=(4, 4, 30, 28), size=(40, 36)):
    mask = np.zeros(size[::-1], dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return df.Target(mask=mask)


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (36, 40, 3), dtype=np.uint8))


def test_iou_of_boxes_by_hand(image):
    batch = df.RewardScorer(CONFIG).score(
        [text(BOXES[0]), text((4, 4, 17, 28)), text((31, 29, 39, 35)), "no answer"], [target()] * 4, [image] * 4
    )
    assert batch.terms["mask_iou"].tolist() == [1.0, 0.5, 0.0, 0.0]
    assert batch.reasons == (None, None, "wrong-place", "no-tags")
    assert batch.total.tolist() == [3.0, 2.5, 2.0, 0.0]


def test_threshold_gate_and_ignored_pixels():
    config = CONFIG.replace(mask_threshold=0.5, gate=True)
    texts = [text((4, 4, 17, 28)), text((4, 4, 18, 28)), text(BOXES[0]).replace("<think>", "")]
    assert df.RewardScorer(config).score(texts, [target()] * 3).terms["mask_iou"].tolist() == [0.0, 1.0, 0.0]
    ignore = np.zeros((36, 40), dtype=bool)
    ignore[:, 17:] = True
    half = df.Target(mask=target().mask, ignore=ignore)
    assert df.RewardScorer(CONFIG).score(texts[:1], [half]).terms["mask_iou"].tolist() == [1.0]


def test_answers_in_another_space(image):
    config = CONFIG.replace(coordinates="norm1000")
    box = [100 * 10 // 4, 0, 750, 500]  # of 40 x 36: 10, 0, 30, 18
    batch = df.RewardScorer(config).score([text(box)], [target((10, 0, 30, 18))], [image])
    assert batch.terms["mask_iou"].tolist() == [1.0]
    twice = df.RewardScorer(CONFIG).score([text([8, 8, 60, 56])], [target()], [image], model_sizes=[(80, 72)])
    assert twice.terms["mask_iou"].tolist() == [1.0]


def test_sam_in_one_call_for_a_group(image, monkeypatch):
    segmenter = SamSegmenter(*small_sam2())
    calls = []
    segment = segmenter.segment
    monkeypatch.setattr(segmenter, "segment", lambda *given: calls.append(len(given[0])) or segment(*given))
    scorer = df.RewardScorer(CONFIG, segmenter=segmenter)
    truth = target()
    batch = scorer.score([text(box) for box in BOXES] * 2, [truth] * 4, [image] * 4)
    assert calls == [4]
    answers = [Completion("", box=tuple(map(float, box)), points=((8.0, 8.0), (20.0, 20.0))) for box in BOXES]
    masks = segment(answers, [image] * 2, [image.size] * 2)
    ious = [(mask & truth.mask).sum() / (mask | truth.mask).sum() for mask in masks]
    assert batch.terms["mask_iou"].numpy() == pytest.approx([*ious, *ious], abs=1e-7)
    assert 0 < ious[0] != ious[1] > 0


def test_background_thread_gives_the_same(image):
    scorer = df.RewardScorer(CONFIG)
    given = ([text(box) for box in BOXES], [target()] * 2, [image] * 2)
    assert torch.equal(scorer.score_async(*given).result().total, scorer.score(*given).total)


def test_nothing_to_go_by_has_a_reason(tmp_path, monkeypatch, image):
    (tmp_path / "my_blind.py").write_text("def none(answers, images, sizes):\n    return [None] * len(answers)\n")
    monkeypatch.syspath_prepend(tmp_path)
    scorer = df.RewardScorer(CONFIG.replace(segmenter="my_blind:none"))
    batch = scorer.score([text(BOXES[0]), "no answer"], [target()] * 2, [image] * 2)
    assert batch.reasons == ("no-mask", "no-tags")
    assert batch.terms["mask_iou"].tolist() == [0.0, 0.0]


def test_bad_rows_are_named_or_left_out(image, tmp_path):
    cut = tmp_path / "cut.png"
    image.save(tmp_path / "whole.png")
    cut.write_bytes((tmp_path / "whole.png").read_bytes()[:1500])
    scorer = df.RewardScorer(CONFIG, segmenter=SamSegmenter(*small_sam2()))
    texts, truths = [text(BOXES[0])] * 4, [target(), target(), df.Target(box=(1, 2, 3, 4)), target()]
    images = [image, cut, image, image]
    batch = scorer.score(texts, truths, images, on_error="row")
    assert batch.reasons == (None, "bad-image", "bad-target", None)
    assert batch.errors[1].startswith("images[1] cannot be decoded")
    assert "targets[2] has neither mask nor polygons" in batch.errors[2]
    alone = scorer.score(texts[:1], truths[:1], images[:1])
    assert batch.total[0] == batch.total[3] == alone.total[0]
    assert batch.total[1:3].isnan().all()
    with pytest.raises(ValueError, match=r"images\[1\] cannot be decoded"):
        scorer.score(texts[:2], truths[:2], images[:2])
    with pytest.raises(ValueError, match=r"images is missing: the segmenter"):
        df.RewardScorer(CONFIG.replace(segmenter="background")).score(texts[:1], truths[:1])


def test_several_objects(image):
    config = df.RewardConfig.preset("vision-reasoner", terms=(*TERMS[:2], "accuracy", "mask_iou"), segmenter="box")
    objects = [{"bbox_2d": [4, 4, 17, 28], "point_2d": [8, 8]}, {"bbox_2d": [17, 4, 30, 28], "point_2d": [20, 20]}]
    truth = df.Target(mask=target().mask, objects=tuple((tuple(o["bbox_2d"]), tuple(o["point_2d"])) for o in objects))
    batch = df.RewardScorer(config).score([f"<think>a</think><answer>{json.dumps(objects)}</answer>"], [truth], [image])
    assert batch.terms["mask_iou"].tolist() == [1.0]


def test_specs_travel(tmp_path, image, monkeypatch):
    write_small_sam2(tmp_path / "sam")
    monkeypatch.chdir(tmp_path)
    spec = df.ScorerSpec(CONFIG.replace(segmenter="sam2:sam"))
    assert spec.config.segmenter == f"sam2:{tmp_path / 'sam'}"
    scorer = pickle.loads(pickle.dumps(spec)).build()
    monkeypatch.chdir("/")
    again = pickle.loads(pickle.dumps(scorer))
    given = ([text(BOXES[0])], [target()], [image])
    assert torch.equal(again.score(*given).total, scorer.score(*given).total)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"segmenter": None}, "which needs geometry='mask' .polygons. or a segmenter"),
        ({"segmenter": 3}, "segmenter must be the name of one, or None, got 3"),
        ({"segmenter": "box", "geometry": "mask"}, "needs the term 'mask_iou' and geometry='box'"),
        ({"segmenter": "box", "terms": ("iou",)}, "needs the term 'mask_iou'"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(ValueError, match=message):
        CONFIG.replace(**settings)


def test_a_segmenter_that_cannot_be_made_is_told_when_the_scorer_is():
    with pytest.raises(ValueError, match="segmenter is 'boxes'"):
        df.RewardScorer(CONFIG.replace(segmenter="boxes"))
    with pytest.raises(ValueError, match="names none: set it"):
        df.RewardScorer(df.RewardConfig.preset("seg-zero"), segmenter=SamSegmenter(*small_sam2()))
