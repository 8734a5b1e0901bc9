"""TRL's columns in every form that data sets bring: read, or refused by name and row; nothing stale, nothing shared."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import dpad_fast as df
from dpad_fast.integrations.trl import TrlRewards
from dpad_fast.testing import rewards as shared

GEOMETRY = ("iou", "box_l1", "point_l1")
GOOD, OTHER = shared.completion(), "<box>(0,0),(9,9)</box><points>(2,2),(5,5)</points>"
LARGE, SEEN = (3000, 2000), (1204, 812)
FULL = {name: [1.0] for name in GEOMETRY}


def qwen():
    from transformers.models.qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(max_pixels=1003520)


def rewards(**given):
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", terms=GEOMETRY, gate=False, point_threshold=9))
    return TrlRewards(scorer, **{"on_error": "raise", **given})


def scored(used, **columns):
    """What each function returns, by its name."""
    return {function.__name__: function(**columns) for function in used.functions()}


def large_step():
    """An exactly right answer in pixels of what Qwen2.5-VL sees of a picture of 3000 x 2000."""
    box, points = (600, 400, 1800, 1500), ((700, 500), (1500, 1200))
    factors = SEEN[0] / LARGE[0], SEEN[1] / LARGE[1]

    def to(numbers):
        return [value * factors[i % 2] for i, value in enumerate(numbers)]

    text = shared.completion(to(box), to(points[0]), to(points[1]))
    solution = "<box>(600,400),(1800,1500)</box><points>(700,500),(1500,1200)</points>"
    return {"completions": [text], "image": [Image.new("RGB", LARGE)], "solution": [solution]}


def test_the_processor_says_what_size_the_model_saw(tmp_path):
    step = large_step()
    for given in ({"processor": qwen()}, {"model_size_of": lambda size: SEEN}):
        assert scored(rewards(**given), **step) == FULL
    # The scorer reads the size of a picture that is not decoded yet.
    step["image"][0].save(tmp_path / "large.png")
    for image in (str(tmp_path / "large.png"), {"path": str(tmp_path / "large.png")}):
        assert scored(rewards(processor=qwen()), **{**step, "image": [image]}) == FULL


def test_without_it_there_is_a_word():
    used = rewards()
    with pytest.warns(
        UserWarning, match=r"3000x2000, which Qwen2.5-VL sees as 1204x812.*processor=\.\.\. of TrlRewards"
    ):
        assert scored(used, **large_step()) == {name: [0.0] for name in GEOMETRY}


def test_a_family_that_keeps_the_original():
    from transformers.models.idefics3 import Idefics3ImageProcessorPil

    columns = {"image": [shared.picture()], "solution": [shared.SOLUTION]}
    assert scored(rewards(processor=Idefics3ImageProcessorPil()), completions=[GOOD], **columns) == FULL


def test_mistakes_about_sizes():
    with pytest.raises(ValueError, match="processor is a int, whose rule"):
        rewards(processor=7)
    with pytest.raises(ValueError, match="give processor or model_size_of, not both"):
        rewards(processor=qwen(), model_size_of=lambda size: None)
    thin = {"completions": [GOOD], "image": [Image.new("RGB", (3000, 14))], "solution": [OTHER]}
    with pytest.raises(ValueError, match=r"model_sizes\[0\]: size is 3000x14: .* 200 times"):
        rewards(processor=qwen()).total()(**thin)
    # Answers in 0..1000 need no size, so the processor may be any.
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", terms=GEOMETRY, gate=False, coordinates="norm1000"))
    TrlRewards(scorer, processor=7)


def encoded():
    file = io.BytesIO()
    shared.picture().save(file, "PNG")
    return file.getvalue()


def forms(tmp_path):
    path = tmp_path / "ok.png"
    shared.picture().save(path)
    image = shared.picture()
    single = [image, str(path), path, encoded(), {"bytes": encoded()}, {"path": str(path)}, np.asarray(image)]
    single += [torch.from_numpy(np.array(image)), {"bytes": None, "path": str(path)}]
    boxed = np.empty(1, object)
    boxed[0] = image
    return [*single, *([form] for form in single), (image,), boxed]


@pytest.mark.parametrize("column", ["image", "images"])
def test_one_picture_a_row_in_every_form(tiny, tmp_path, column):
    found = forms(tmp_path)
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), df.ClipEncoder.from_transformers(*tiny))
    columns = {column: found, "solution": [shared.SOLUTION] * len(found)}
    batch = TrlRewards(scorer).score([GOOD] * len(found), columns)
    assert batch.similarity["roi"].unique().numel() == 1
    assert not batch.similarity["roi"].isnan().any()


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ([], r"images\[1\] holds 0 images, expected exactly one"),
        ((), r"images\[1\] holds 0 images"),
        ([shared.picture()] * 2, r"images\[1\] holds 2 images"),
        (None, r"images\[1\] is None"),
        ([None], r"images\[1\] is None"),
        ({}, r"images\[1\] is a dictionary with neither bytes nor path"),
        ([{}], r"images\[1\] is a dictionary with neither bytes nor path"),
        (7, r"images\[1\] must be a PIL image"),
        (["missing.jpg"], r"images\[1\] cannot be opened"),
    ],
)
def test_rows_without_a_picture_are_named(entry, complaint):
    columns = {"images": [shared.picture(), entry], "solution": [shared.SOLUTION] * 2}
    with pytest.raises(ValueError, match=complaint):
        rewards(model_size_of=lambda size: size).total()(completions=[GOOD] * 2, **columns)
    lenient = rewards(model_size_of=lambda size: size, on_error="row")
    assert scored(lenient, completions=[GOOD] * 2, **columns) == {name: [1.0, None] for name in GEOMETRY}
    batch = lenient.score([GOOD] * 2, columns)
    assert batch.reasons == (None, "bad-image")


def kinds_of_columns():
    import datasets

    solutions, ids = [shared.SOLUTION, OTHER], [3, 4]
    pictures = [shared.picture(0), shared.picture(1)]
    rows = datasets.Dataset.from_dict(
        {"image": pictures, "solution": solutions, "id": ids},
        features=datasets.Features(
            {"image": datasets.Image(), "solution": datasets.Value("string"), "id": datasets.Value("int64")}
        ),
    )
    yield {"image": rows["image"], "solution": rows["solution"], "id": rows["id"]}
    yield {"image": pictures, "solution": tuple(solutions), "id": np.array(ids)}
    yield {"image": tuple(pictures), "solution": np.array(solutions), "id": torch.tensor(ids)}
    yield {"image": np.stack([np.asarray(picture) for picture in pictures]), "solution": solutions, "id": tuple(ids)}


def test_columns_of_every_kind():
    for columns in kinds_of_columns():
        assert scored(rewards(), completions=[GOOD] * 2, **columns) == {name: [1.0, 0.0] for name in GEOMETRY}


@pytest.mark.parametrize("name", ["image", "images", "solution", "id"])
def test_a_column_of_another_length_is_named(name):
    columns = {"image": [shared.picture()] * 2, "solution": [shared.SOLUTION] * 2, name: ["a"] * 3}
    with pytest.raises(ValueError, match=f"{name} has 3 entries for 2 completions"):
        rewards().total()(completions=[GOOD] * 2, **columns)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (["a", 1], ["a", 2]),
        ({"file": "a"}, {"file": "b"}),
        (np.array([1]), np.array([2])),
        (torch.tensor(1), torch.tensor(2)),
    ],
)
def test_ids_of_every_type_tell_pictures_apart(tiny, one, two):
    """Equal ids are one picture; pictures under one id that differ are named."""
    import copy

    scorer = df.RewardScorer(df.RewardConfig.preset("dpad"), df.ClipEncoder.from_transformers(*tiny))
    columns = {"image": [shared.picture(0), shared.picture(0), shared.picture(1)], "solution": [shared.SOLUTION] * 3}
    batch = TrlRewards(scorer).score([GOOD] * 3, {**columns, "id": [one, copy.deepcopy(one), two]})
    assert batch.similarity["aoi"][0] == batch.similarity["aoi"][1] != batch.similarity["aoi"][2]
    with pytest.raises(ValueError, match=r"images\[2\] is another picture than images\[0\]"):
        TrlRewards(scorer, on_error="raise").score([GOOD] * 3, {**columns, "id": [one, one, copy.deepcopy(one)]})


def test_nothing_stale():
    """One list object with other columns, or changed in place, is another step."""
    used, completions = rewards(), [GOOD, GOOD]
    columns = {"image": [shared.picture(0), shared.picture(1)], "solution": [shared.SOLUTION] * 2}
    total = used.total()
    assert total(completions=completions, **columns) == [3, 3]
    assert total(completions=completions, **{**columns, "solution": [shared.SOLUTION, OTHER]}) == [3, 0]
    columns["solution"][0] = OTHER
    assert total(completions=completions, **columns) == [0, 3]
    completions[1] = "no idea"
    assert total(completions=completions, **columns) == [0, 0]
    messages = [[{"role": "assistant", "content": GOOD}] for _ in range(2)]
    assert total(completions=messages, **columns) == [0, 3]
    messages[1][0]["content"] = "no idea"
    assert total(completions=messages, **columns) == [0, 0]
    rows = {"images": [[shared.picture()], [shared.picture()]], "solution": [shared.SOLUTION] * 2}
    assert total(completions=[GOOD] * 2, **rows) == [3, 3]


def test_other_pictures_in_the_same_lists_are_other_pictures(tiny):
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad"), df.ClipEncoder.from_transformers(*tiny))
    used, completions, images = TrlRewards(scorer), [GOOD], [[shared.picture(0)]]
    first = used.score(completions, {"images": images, "solution": [shared.SOLUTION]})
    images[0][0] = shared.picture(1)
    second = used.score(completions, {"images": images, "solution": [shared.SOLUTION]})
    assert first.similarity["aoi"] != second.similarity["aoi"]


def test_a_bad_row_does_not_stop_a_training():
    logged = {}
    columns = {
        "image": [shared.picture()] * 4,
        "solution": [shared.SOLUTION, "nothing", shared.SOLUTION, shared.SOLUTION],
        "log_metric": logged.__setitem__,
    }
    used = rewards(on_error="row")
    assert used.total()(completions=[GOOD, GOOD, "no idea", GOOD], **columns) == [3, None, 0, 3]
    assert logged["dpad/unscored"] == 0.25
    assert logged["dpad/malformed"] == pytest.approx(1 / 3)
    # A missing column is an error of the whole batch, not of a row.
    with pytest.raises(ValueError, match="no column 'solution'"):
        used.total()(completions=[GOOD], image=[shared.picture()])
    with pytest.raises(ValueError, match="on_error must be one of raise, row"):
        rewards(on_error="skip")


def test_pictures_in_the_prompts():
    """A data set whose prompts hold the pictures has no column of them."""
    prompts = [
        [
            {"role": "system", "content": "Answer."},
            {"role": "user", "content": [{"type": "image", "image": shared.picture()}, {"type": "text", "text": "q"}]},
        ]
    ] * 2
    columns = {"prompts": prompts, "solution": [shared.SOLUTION, OTHER]}
    assert scored(rewards(), completions=[GOOD] * 2, **columns) == {name: [1.0, 0.0] for name in GEOMETRY}
    plain = [[{"role": "user", "content": "q"}]] * 2
    with pytest.raises(ValueError, match="needs an image or images column"):
        rewards().total()(completions=[GOOD] * 2, **{**columns, "prompts": plain})
    # Once some of a data set's prompts had pictures, a group without one is a bad row, not another data set.
    asked = rewards(on_error="row")
    assert None not in asked.total()(completions=[GOOD] * 2, **columns)
    assert asked.total()(completions=[GOOD] * 2, **{**columns, "prompts": plain}) == [None, None]
    assert asked.counts["bad-image"] == 2
    asked = rewards()
    asked.total()(completions=[GOOD] * 2, **columns)
    with pytest.raises(ValueError, match="needs an image or images column"):
        asked.total()(completions=[GOOD] * 2, **{**columns, "prompts": plain})


def test_the_pictures_of_the_ground_truths_may_be_another_column():
    columns = {"image": [shared.picture(0, (48, 36))] * 2, "solution": [shared.SOLUTION] * 2}
    pictures = [shared.picture(), "missing.png"]
    used = rewards(image_column="original", on_error="row", model_size_of=lambda size: size)
    assert scored(used, completions=[GOOD] * 2, original=pictures, **columns)["iou"] == [1.0, None]
    with pytest.raises(ValueError, match="needs the column 'original'"):
        used.total()(completions=[GOOD] * 2, **columns)
    with pytest.raises(ValueError, match="original has 1 entries for 2 completions"):
        used.total()(completions=[GOOD] * 2, original=pictures[:1], **columns)
