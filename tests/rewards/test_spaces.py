"""Sizes at which models saw pictures: of every type, per row, and a word where they are not known."""

import warnings
from collections.abc import Generator
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import dpad_fast as df
from dpad_fast.data import shapes
from dpad_fast.testing import rewards as shared

GEOMETRY = ("iou", "box_l1", "point_l1")
QWEN = {"patch_size": 14, "merge_size": 2, "min_pixels": 3136, "max_pixels": 1003520}
LARGE, SEEN = (3000, 2000), (1204, 812)


def answer(size, truth=LARGE):
    """An exactly right answer in pixels of a picture of another size, and its target."""
    box, points = (600, 400, 1800, 1500), ((700, 500), (1500, 1200))

    def to(point):
        return [point[0] * size[0] / truth[0], point[1] * size[1] / truth[1]]

    text = shared.completion([*to(box[:2]), *to(box[2:])], to(points[0]), to(points[1]))
    return text, df.Target(box=box, points=points, image_size=truth)


def scorer(**settings):
    return df.RewardScorer(df.RewardConfig.preset("dpad", **{"terms": GEOMETRY, "gate": False, **settings}))


def large():
    return Image.new("RGB", LARGE)


@pytest.mark.parametrize(
    "sizes",
    [
        [SEEN, SEEN, LARGE],
        np.array([SEEN, SEEN, LARGE]),
        torch.tensor([SEEN, SEEN, LARGE]),
        [torch.tensor(SEEN), np.array(SEEN, np.int16), list(LARGE)],
        [(np.int32(1204), np.int64(812)), (1204.0, 812.0), None],
        (SEEN, SEEN, None),
    ],
)
def test_sizes_of_any_type(sizes):
    rows = [answer(SEEN), answer(SEEN), answer(LARGE)]
    texts, targets = [text for text, _ in rows], [target for _, target in rows]
    found = scorer().score(texts, targets, [large()] * 3, model_sizes=sizes)
    assert found.total.tolist() == [3, 3, 3]
    later = scorer().score_async(texts, targets, [large()] * 3, model_sizes=sizes).result(60)
    assert torch.equal(later.total, found.total)


def test_no_size_of_the_row_means_that_of_the_configuration():
    text, target = answer(SEEN)
    other, _ = answer((300, 200))
    found = scorer(model_size=SEEN).score([text, other], [target] * 2, model_sizes=[None, (300, 200)])
    assert found.total.tolist() == [3, 3]
    assert scorer(model_size=np.array(SEEN)).config == scorer(model_size=list(SEEN)).config


def test_sizes_by_a_function_of_the_pictures():
    text, target = answer(SEEN)
    small = df.Target(box=(20, 12, 64, 52), points=((30, 24), (50, 40)), image_size=shared.SIZE)
    asked = []

    def seen(size):
        asked.append(size)
        return None if size == shared.SIZE else df.model_size_for(size, QWEN)

    texts, targets = [text, shared.completion(), text], [target, small, target]
    found = scorer().score(texts, targets, [large(), shared.picture(), large()], model_sizes=seen)
    assert found.total.tolist() == [3, 3, 3]
    assert sorted(asked) == [shared.SIZE, LARGE]  # once per size
    with pytest.raises(ValueError, match="images is missing: model_sizes is a function of their sizes"):
        scorer().score([text], [target], model_sizes=seen)


def test_a_target_without_a_size_is_in_pixels_of_its_picture():
    text, target = answer(SEEN)
    bare = df.Target(box=target.box, points=target.points)
    assert scorer().score([text], [bare], [large()], model_sizes=[SEEN]).total.tolist() == [3]


@pytest.mark.parametrize(
    ("size", "complaint"),
    [
        ((0, 144), r"model_sizes\[1\] must be \(width, height\) in whole pixels, got \(0, 144\)"),
        ((10.5, 144), r"model_sizes\[1\] must be"),
        ((True, 144), r"model_sizes\[1\] must be"),
        ((float("nan"), 144), r"model_sizes\[1\] must be"),
        (("640", "480"), r"model_sizes\[1\] must be"),
        ((1, 2, 3), r"model_sizes\[1\] must be"),
        (640, r"model_sizes\[1\] must be .* got 640"),
        (10**400, r"model_sizes\[1\] must be"),
    ],
)
def test_sizes_that_are_none_are_named(size, complaint):
    text, target = answer(SEEN)
    with pytest.raises(ValueError, match=complaint):
        scorer().score([text] * 2, [target] * 2, model_sizes=[SEEN, size])


def test_an_image_size_that_contradicts_the_picture_is_still_refused():
    text, target = answer(SEEN)
    with pytest.raises(ValueError, match=r"model_sizes\[0\] is missing: images\[0\] is 96x72"):
        scorer().score([text], [target], [shared.picture()])


def told(target, image, *, config=None, **given):
    """The warnings of two batches of one scorer."""
    used = scorer(**(config or {}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            used.score([answer(SEEN)[0]], [target], [image], **given)
    return [str(entry.message) for entry in caught]


def test_an_unknown_size_is_said_once():
    target = answer(SEEN)[1]
    bare = df.Target(box=target.box, points=target.points)
    for truth in (target, bare):
        (message,) = told(truth, large())
        assert "images[0] is 3000x2000, which Qwen2.5-VL sees as 1204x812" in message
    (message,) = told(df.Target(box=(1, 1, 9, 9), points=((2, 2), (3, 3))), Image.new("RGB", (640, 480)))
    assert "640x480, which Qwen2.5-VL sees as 644x476" in message


def test_a_known_size_is_silent():
    target = answer(SEEN)[1]
    for given in (
        {"model_sizes": [SEEN]},
        {"model_sizes": partial(df.model_size_for, processor=QWEN)},
        {"model_sizes": lambda size: size},
        {"config": {"model_size": SEEN}},
        {"config": {"coordinates": "norm1000"}},
        {"config": {"terms": ("think_format",)}},
    ):
        assert told(target, large(), **given) == []


def test_pictures_that_models_see_as_they_are_are_silent():
    small = df.Target(box=(1, 1, 9, 9), points=((2, 2), (3, 3)))
    assert told(small, Image.new("RGB", (840, 840))) == []  # the released data
    sample = shapes.sample(0, 1)
    assert told(sample.target, sample.image) == []


def test_the_warning_points_at_the_caller():
    with pytest.warns(UserWarning, match="is not known") as caught:
        scorer().score([answer(SEEN)[0]], [answer(SEEN)[1]], [large()])
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "size",
    [b"ab", bytearray(b"ab"), {1204, 812}, {1204: 0, 812: 0}, (np.True_, np.True_), torch.tensor([True, True]), 5],
)
def test_sizes_that_only_look_like_a_pair_of_numbers(size):
    text, target = answer(SEEN)
    with pytest.raises(ValueError, match=r"^model_sizes\[0\] must be \(width, height\) in whole pixels"):
        scorer().score([text], [target], [large()], model_sizes=[size])
    with pytest.raises(ValueError, match=r"^size must be \(width, height\) in whole pixels"):
        df.model_size_for(size, QWEN)


class Labelled(list):
    """A column that is indexed by labels, as pandas' are: by place it can only be walked through."""

    def __getitem__(self, label):
        return list.__getitem__(self, -1 - label)


def test_columns_are_read_by_place():
    rows = [answer(SEEN), answer(LARGE)]
    texts, targets = Labelled(text for text, _ in rows), Labelled(target for _, target in rows)
    sizes, images = Labelled([SEEN, LARGE]), Labelled([large(), large()])
    found = scorer().score(texts, targets, images, model_sizes=sizes)
    assert found.total.tolist() == [3, 3]
    small, other = Image.new("RGB", (40, 40)), Image.new("RGB", (41, 40))
    target = df.Target(box=(1, 2, 30, 30), points=((3, 4), (5, 6)))
    keyed = scorer().score(
        [rows[0][0]] * 3, [target] * 3, [small, other, other], Labelled(["a", "b", "b"]), lambda size: size
    )
    assert len(keyed) == 3


def test_sizes_of_a_tensor_with_a_gradient_warn_of_nothing():
    text, target = answer(SEEN)
    sizes = torch.tensor([SEEN], dtype=torch.float32, requires_grad=True)
    for given in (sizes, list(sizes), [tuple(sizes[0])]):
        assert scorer().score([text], [target], [large()], model_sizes=given).total.tolist() == [3]


@pytest.mark.parametrize("wrong", [5, (text for text in "a"), df.Target(), Image.new("RGB", (4, 4))])
@pytest.mark.parametrize("name", ["completions", "targets", "images", "model_sizes"])
def test_a_column_that_is_none(name, wrong):
    text, target = answer(SEEN)
    given = {"completions": [text], "targets": [target], "images": [large()], "model_sizes": [SEEN], name: wrong}
    with pytest.raises(ValueError, match=f"^{name} must be a list with an entry per completion, got "):
        scorer().score(**given)
    if not isinstance(wrong, Generator):  # in the background a generator is read at once
        with pytest.raises(ValueError, match=f"^{name} must be a list with an entry per completion, got "):
            scorer().score_async(**given).result(60)
