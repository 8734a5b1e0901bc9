"""Every zero comes with a reason: under every preset and choice, for hostile and for plain answers."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

import dpad_fast as df
from dpad_fast.rewards import MALFORMED
from dpad_fast.rewards.config import TERMS
from dpad_fast.testing import rewards as shared

MASK = np.zeros((72, 96), bool)
MASK[12:52, 20:64] = True
OBJECT = ((20, 12, 64, 52), (30, 24))
TARGET = df.Target(
    box=OBJECT[0], points=((30, 24), (50, 40)), mask=MASK, objects=(OBJECT,), other_boxes=((0, 0, 30, 30),)
)
GOOD = shared.completion(caption="water")  # S1 > S2 under the tiny CLIP
VAGUE = shared.completion(caption="a dog")  # S1 < S2

CHOICES = [
    *(("dpad", {"shape": shape}) for shape in ("binary", "released", "margin", "sigmoid", "roi-threshold")),
    *(("dpad", {"gate": False, "region": region}) for region in ("box", "predicted", "mask")),
    *(("dpad", {"gate": False, "contrast": contrast}) for contrast in ("blanked", "hardest")),
    *(("dpad", {"long_caption": name}) for name in ("truncate", "chunk")),
    *(("dpad", {"geometry": "mask", "mask_threshold": limit}) for limit in (None, 0.5)),
    *(("dpad", {"coordinates": name}) for name in ("norm1000", "norm1")),
    ("dpad", {"shape": "sigmoid", "alpha": 1e9}),
    ("dpad", {"terms": ("discriminative",)}),
    ("dpad", {"terms": ("box_l1", "non_repeat"), "gate": False}),
    ("dpad-released", {}),
    ("dpad-released", {"geometry": "mask"}),
    ("dpad-released", {"region": "predicted", "gate": True}),
    ("seg-zero", {}),
    ("seg-zero", {"terms": ("point_l1", "non_repeat")}),
    ("vision-reasoner", {}),
    ("vision-reasoner", {"gate": True}),
]


def answers():
    rng = random.Random(5)
    texts = [shared.hostile(rng) for _ in range(250)]
    for i in range(60):
        box = [value + rng.randrange(-30, 31) for value in OBJECT[0]]
        texts.append(shared.completion(box, caption=rng.choice(("water", "a dog")), think="One. Two. " * (1 + i % 3)))
        item = {"bbox_2d": box, "point_2d": [30, 24]}
        texts.append(f"<think>Two. {'One. ' * (i % 4)}</think><answer>{json.dumps([item])}</answer>")
        ring = [[[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]]]
        texts.append(shared.completion().replace('{"bbox"', f'{{"polygon": {json.dumps(ring)}, "bbox"'))
    return texts + [text.split(" <caption>")[0] for text in texts]


@pytest.mark.parametrize(("preset", "settings"), CHOICES)
def test_every_zero_comes_with_a_reason(encoder, preset, settings):
    texts = answers()
    scorer = df.RewardScorer(df.RewardConfig.preset(preset, **settings), encoder)
    batch = scorer.score(texts, [TARGET] * len(texts), [shared.picture()] * len(texts))
    assert len(set(batch.reasons)) > 3
    for i, reason in enumerate(batch.reasons):
        zeros = [name for name, column in batch.terms.items() if float(column[i]) == 0]
        assert (reason is not None) or not zeros, (texts[i], zeros)
        # Each of these codes names its zeros, and none of them is a code of malformed text.
        if reason == "wrong-place":
            assert set(zeros) & {"iou", "box_l1", "point_l1", "mask_iou", "accuracy"}
        if reason == "not-discriminative":
            assert set(zeros) - {"non_repeat"} == {"discriminative"}
        if reason == "repeats":
            assert zeros == ["non_repeat"]
    assert {"wrong-place", "not-discriminative", "repeats"}.isdisjoint(MALFORMED)


def reason_of(encoder, text, target=TARGET, preset="dpad", **settings):
    scorer = df.RewardScorer(df.RewardConfig.preset(preset, **settings), encoder)
    return scorer.score([text], [target], [shared.picture()]).reasons[0]


def test_one_zero_is_enough(encoder):
    wide = shared.completion([20, 12, 64, 92], caption="water")  # IoU above a half, mean L1 of 10
    assert reason_of(encoder, wide) == "wrong-place"
    assert reason_of(encoder, wide, terms=("iou", "point_l1", "discriminative")) is None
    assert reason_of(encoder, shared.completion(first=[5, 5], caption="water")) == "wrong-place"  # points alone
    assert reason_of(encoder, GOOD) is None
    assert reason_of(encoder, GOOD, weights={"iou": 0}) is None  # a weight of 0 is the caller's choice


def test_what_is_found_first_stands(encoder):
    assert reason_of(encoder, VAGUE) == "not-discriminative"
    wrong = shared.completion([0, 0, 20, 20], caption="a dog")
    assert reason_of(encoder, wrong) == "wrong-place"
    assert reason_of(encoder, shared.completion([0, 0, 20, 20], caption="")) == "empty-caption"
    assert reason_of(encoder, shared.completion([0, 0, 20, 20], caption="cat " * 99)) == "too-long"
    assert reason_of(encoder, wrong + ".") == "no-tags"
    assert reason_of(encoder, shared.completion([96, 80, 99, 99]), region="predicted") == "empty-region"
    assert reason_of(encoder, VAGUE, shape="sigmoid") is None  # small, not zero
    assert reason_of(encoder, GOOD, shape="roi-threshold", tau=0.99) == "not-discriminative"


def test_a_whole_picture_is_not_discriminative(encoder):
    whole = df.Target(box=(0, 0, 96, 72), points=TARGET.points)
    assert reason_of(encoder, shared.completion([0, 0, 96, 72]), whole) == "not-discriminative"


def test_objects_and_repeats(encoder):
    def text(box, think):
        answer = json.dumps([{"bbox_2d": box, "point_2d": [30, 24]}])
        return f"<think>{think}</think><answer>{answer}</answer>"

    assert reason_of(encoder, text([20, 12, 64, 52], "One."), preset="vision-reasoner") is None
    assert reason_of(encoder, text([0, 0, 9, 9], "One."), preset="vision-reasoner") == "wrong-place"
    assert reason_of(encoder, text([20, 12, 64, 52], "One. Two. Two. Two."), preset="vision-reasoner") == "repeats"


def test_every_term_and_code_has_its_place():
    from dpad_fast.rewards.reasons import _ZEROS
    from dpad_fast.rewards.segmented import NO_MASK
    from dpad_fast.row_errors import _CODES

    explained = {name for names in _ZEROS.values() for name in names}
    assert explained | {"think_format", "answer_format"} == set(TERMS)  # parsing explains the format terms
    page = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text()
    section = page.split("## Reasons")[1].split("\n## ")[0]
    listed = {
        code for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for code in re.findall("`(.*?)`", row)
    }
    unscored = set(_CODES.values()) | {"bad-row"}
    assert listed - unscored == MALFORMED | set(_ZEROS) | {"empty-region", "no-truth", NO_MASK}
    assert unscored - listed <= {"bad-row"}
