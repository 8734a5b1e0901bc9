"""Ground truth that cannot belong to its picture is refused by name; `dpad-released` crops it as Pillow does."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import dpad_fast as df
from dpad_fast.clip.regions import region_of
from dpad_fast.reference import released
from dpad_fast.testing import rewards as shared

GOOD = shared.completion()  # its box and points are the truth's unless a test says otherwise
POINTS = ((30, 24), (50, 40))
MASK = np.zeros((72, 96), bool)
MASK[15:50, 22:60] = True


def refused(call, field, what, values, said, shown):
    """The message names row, field and value, and both sizes."""
    message = (
        f"targets[1].{field} {what}: {values}; pixels are expected, of the image whose size is targets[1].image_size "
        f"({said}) or, without it, of images[1] ({shown})"
    )
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        call()


OFF, UNIT = "lies off its picture", "lies within one pixel, as coordinates in 0..1 do"
BOXES = [
    ((700, 800, 900, 950), OFF),
    ((-40, -30, -5, -6), OFF),
    ((-3, 12, 64, 52), OFF),
    ((20, -1, 64, 52), OFF),
    ((20, 12, 97, 52), OFF),
    ((20, 12, 64, 73), OFF),
    ((20, 12, 64, 72.6), OFF),
    ((96, 10, 120, 40), OFF),  # touches the edge
    ((0.2, 0.17, 0.66, 0.72), UNIT),
    ((0, 0, 1, 1), UNIT),
]


@pytest.mark.parametrize("settings", [{}, {"region": "predicted"}, {"contrast": "blanked"}, {"answer": "released"}])
@pytest.mark.parametrize(("box", "what"), BOXES)
@pytest.mark.parametrize("size", [shared.SIZE, None])
def test_boxes_off_the_picture(encoder, box, what, size, settings):
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", **settings), encoder)
    right = df.Target(box=(20, 12, 64, 52), points=POINTS)
    wrong = df.Target(box=box, points=POINTS, image_size=size)
    values = tuple(float(value) for value in box)
    for text in (GOOD, ""):  # whether or not a completion gets to it
        refused(
            lambda text=text: scorer.score([text] * 2, [right, wrong], [shared.picture()] * 2),
            "box", what, values, "96x72" if size else "not given", "96x72",
        )  # fmt: skip


@pytest.mark.parametrize("box", [(0, 0, 96, 72), (-0.4, 12, 64, 52), (20, 12, 96.5, 72.4), (0, 0, 2, 1)])
def test_boxes_on_the_picture(encoder, box):
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", gate=False), encoder)
    found = scorer.score([GOOD], [df.Target(box=box, points=POINTS)], [shared.picture()])
    assert not np.isnan(float(found.similarity["roi"][0]))


def test_the_size_that_counts_is_the_truths():
    # The same box is right in its own image, of 960x720, and off one of 96x72.
    config = df.RewardConfig.preset("seg-zero", terms=("iou",), gate=False)
    scorer = df.RewardScorer(config)
    text = shared.completion([200, 120, 640, 520])
    large = df.Target(box=(200, 120, 640, 520), image_size=(960, 720))
    assert scorer.score([text], [large], [shared.picture()], model_sizes=[(960, 720)]).total.tolist() == [1]
    assert scorer.score([text], [df.Target(box=large.box)]).total.tolist() == [1]
    small = df.Target(box=large.box, image_size=shared.SIZE)
    refused(
        lambda: scorer.score([text] * 2, [large, small]),
        "box", OFF, (200.0, 120.0, 640.0, 520.0), "96x72", "not given",
    )  # fmt: skip
    refused(
        lambda: scorer.score([text] * 2, [large, df.Target(box=(-9, 1, 5, 6))]),
        "box", OFF, (-9.0, 1.0, 5.0, 6.0), "not given", "not given",
    )  # fmt: skip
    unit = df.Target(box=(0.25, 0.25, 0.5, 0.5), image_size=(1, 1))  # 0..1 for who says so
    assert scorer.score([shared.completion([0.25, 0.25, 0.5, 0.5])], [unit]).total.tolist() == [1]


@pytest.mark.parametrize(
    ("points", "what"),
    [(((30, 24), (150, 40)), OFF), (((-2, 24), (50, 40)), OFF), (((0.3, 0.3), (0.5, 0.6)), UNIT)],
)
def test_points_off_the_picture(points, what):
    scorer = df.RewardScorer(df.RewardConfig.preset("seg-zero"))
    right, wrong = (df.Target(box=(20, 12, 64, 52), points=p, image_size=shared.SIZE) for p in (POINTS, points))
    values = tuple(float(value) for point in points for value in point)
    refused(lambda: scorer.score([GOOD] * 2, [right, wrong]), "points", what, values, "96x72", "not given")
    unread = df.RewardScorer(df.RewardConfig.preset("seg-zero", terms=("iou",)))
    assert unread.score([GOOD], [wrong]).reasons == ("no-tags",)  # what no term reads is not looked at
    corner = df.Target(box=(0, 0, 3, 3), points=((0, 0), (1, 1)), image_size=shared.SIZE)
    scorer.score([GOOD], [corner])  # pixels, since they are whole


@pytest.mark.parametrize(
    ("entry", "field", "what", "values"),
    [
        (((60, 10, 97, 50), (70, 30)), "objects[1].box", OFF, (60.0, 10.0, 97.0, 50.0)),
        (((0.1, 0.1, 0.5, 0.5), (0.2, 0.2)), "objects[1].box", UNIT, (0.1, 0.1, 0.5, 0.5)),
        (((60, 10, 90, 50), (70, 80)), "objects[1].point", OFF, (70.0, 80.0)),
        (((60, 10, 90, 50), (0.7, 0.5)), "objects[1].point", UNIT, (0.7, 0.5)),
    ],
)
def test_objects_off_the_picture(entry, field, what, values):
    scorer = df.RewardScorer(df.RewardConfig.preset("vision-reasoner"))
    first = ((10, 10, 40, 40), (20, 20))
    targets = [df.Target(objects=(first,)), df.Target(objects=(first, entry))]
    refused(lambda: scorer.score(["", ""], targets, [shared.picture()] * 2), field, what, values, "not given", "96x72")


def test_other_boxes_off_the_picture(encoder):
    target = df.Target(box=(20, 12, 64, 52), points=POINTS, other_boxes=((0, 0, 30, 30), (60, 40, 99, 72)))
    settings = {"contrast": "hardest"}
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", **settings), encoder)
    refused(
        lambda: scorer.score([GOOD] * 2, [df.Target(box=target.box, points=POINTS), target], [shared.picture()] * 2),
        "other_boxes[1]", OFF, (60.0, 40.0, 99.0, 72.0), "not given", "96x72",
    )  # fmt: skip


def test_boxes_of_no_pixel_are_refused_whatever_the_answer(encoder):
    scorer = df.RewardScorer(df.RewardConfig(), encoder)
    target = df.Target(box=(20.1, 12, 20.3, 52), points=POINTS)
    for text in (GOOD, ""):
        with pytest.raises(ValueError, match=r"targets\[0\].box has no area in whole pixels of the 96x72 picture"):
            scorer.score([text], [target], [shared.picture()])


@pytest.mark.parametrize("text", [GOOD, ""])
def test_masks_for_the_region_belong_to_the_picture(encoder, text):
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", region="mask"), encoder)
    box = (2, 2, 7, 6)
    with pytest.raises(ValueError, match=r"targets\[0\].mask has no pixel"):
        scorer.score([text], [df.Target(box=box, points=POINTS, mask=MASK & False)], [shared.picture()])
    other = df.Target(box=box, points=((3, 3), (4, 4)), mask=MASK[:7, :9] | True)
    with pytest.raises(ValueError, match=r"image.* is 96x72 but targets\[0\].* 9x7"):
        scorer.score([text], [other], [shared.picture()])
    with pytest.raises(ValueError, match=r"targets\[0\].mask is 9x7 but images\[0\] is 96x72: region='mask'"):
        scorer.score([text], [other], [shared.picture()], model_sizes=[(9, 7)])


def test_a_mask_of_another_size_than_the_picture(encoder):
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", geometry="mask"), encoder)
    target = df.Target(box=(20, 12, 64, 52), mask=np.ones((7, 9), bool))
    with pytest.raises(ValueError, match=r"images\[0\] is 96x72 but targets\[0\].image_size is 9x7"):
        scorer.score([GOOD], [target], [shared.picture()])


def test_large_pictures_have_large_regions(encoder, monkeypatch):
    # Like a box of 2^14 pixels a side against Pillow's real limit: a region inside a picture that the caller
    # holds is no decompression bomb.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    pixels = np.asarray(shared.picture())
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", gate=False), encoder)
    target = df.Target(box=(1, 1, 90, 70), points=POINTS)
    text = shared.completion([1, 1, 90, 70])
    found = scorer.score([text], [target], [pixels])
    monkeypatch.undo()
    expected = scorer.score([text], [target], [pixels])
    assert float(found.similarity["roi"][0]) == float(expected.similarity["roi"][0])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    predicted = df.RewardScorer(df.RewardConfig.preset("dpad", region="predicted"), encoder)
    assert "empty-region" not in predicted.score([text], [target], [pixels]).reasons
    monkeypatch.undo()
    assert region_of((10, 10, 19_990, 17_000), (20_000, 17_000), None) == (10, 10, 19_990, 17_000)


@pytest.mark.parametrize(
    "solution",
    [
        "<box>(700,800),(900,950)</box>",
        "<box>(96,10),(120,40)</box>",
        "<box>(0,0),(1,1)</box>",
        "<box>(20,12),(64,73)</box><points>(300,240),(50,40)</points>",
        "<box>(0,0),(40000,40000)</box>",
        "<box>(0,0),(" + "9" * 400 + ",9)</box>",
        "<box>(20,12),(64,52)</box><box>(1,2),(3,4)</box>",
    ],
)
@pytest.mark.parametrize("parsed", [False, True])
def test_released_is_left_to_the_letter(tiny, encoder, solution, parsed):
    model, processor = tiny
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad-released"), encoder)
    text = shared.completion([96, 10, 120, 40], caption="water")
    target = df.Target(text=solution, image_size=shared.SIZE) if parsed else solution
    batch = scorer.score([text], [target], [shared.picture()])
    expected = released.score(text, solution, shared.picture(), model, processor.tokenizer, processor.image_processor)
    assert {name: float(column[0]) for name, column in batch.terms.items()} == pytest.approx(expected, abs=1e-5)


def test_released_digits_beyond_a_float_are_scored_at_another_size(encoder):
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad-released", model_size=(192, 144)), encoder)
    target = df.Target(text="<box>(0,0),(" + "9" * 400 + ",9)</box>", image_size=(192, 144))
    batch = scorer.score([GOOD], [target], [shared.picture()])
    assert (float(batch.terms["discriminative"][0]), batch.reasons) == (0, ("no-truth",))


def test_strings_are_read_whole():
    scorer = df.RewardScorer(df.RewardConfig.preset("seg-zero"))
    two = "<box>(1,2),(3,4)</box>" * 2
    with pytest.raises(ValueError, match=r"^targets\[1\]: text holds 2 <box>, expected one"):
        scorer.score([GOOD] * 2, [shared.SOLUTION, two])
    objects = df.RewardScorer(df.RewardConfig.preset("vision-reasoner"))
    with pytest.raises(ValueError, match=r"^targets\[0\]: objects\[0\].box has no area"):
        objects.score([""], [json.dumps([{"bbox_2d": [3, 2, 1, 4], "point_2d": [1, 2]}])])


def test_rows_that_share_a_wrong_truth_are_each_named(encoder):
    """Those of a group share target and picture; what is right once is not looked at again."""
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder)
    picture, good = shared.picture(), df.Target.parse(shared.SOLUTION)
    off = df.Target(box=(500, 500, 600, 600), points=((510, 510), (520, 520)))
    targets = [good, off, good, off]
    batch = scorer.score([shared.completion()] * 4, targets, [picture] * 4, on_error="row")
    assert [error is None for error in batch.errors] == [True, False, True, False]
    assert all(f"targets[{i}].box lies off its picture" in str(batch.errors[i]) for i in (1, 3))
    assert batch.total[0] == batch.total[2]
    # The same target beside another picture is looked at again.
    tiny = shared.picture(size=(20, 10))
    batch = scorer.score([shared.completion()] * 3, [good] * 3, [picture, tiny, picture], on_error="row")
    assert [error is None for error in batch.errors] == [True, False, True]


def test_the_regions_of_a_group_are_its_own_answers_where_they_are_predicted(encoder):
    target, picture = df.Target.parse(shared.SOLUTION), shared.picture()
    texts = [shared.completion(), shared.completion(box=[21, 13, 60, 50])]
    found = {}
    for region in ("box", "predicted"):
        scorer = df.RewardScorer(df.RewardConfig.preset("dpad", region=region), encoder)
        found[region] = scorer.score(texts, [target] * 2, [picture] * 2).similarity["roi"].tolist()
    assert found["box"][0] == found["box"][1]
    assert found["predicted"][0] != found["predicted"][1]
