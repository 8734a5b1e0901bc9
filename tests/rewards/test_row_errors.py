"""Rows that cannot be scored: left out by name under on_error="row", the others as they are without them."""

import gc
import io
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

import dpad_fast as df
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.serving import bomb

GOOD = shared.completion()
TARGET = df.Target(box=(20, 12, 64, 52), points=((30, 24), (50, 40)), image_size=shared.SIZE)
CUT = df.Target(box=(20.1, 12, 20.4, 52), points=TARGET.points, image_size=shared.SIZE)  # no whole pixel


def truncated(tmp_path):
    """A file with a good header whose pixels end too early: reading fails while the encoder works."""
    shared.picture(4).save(tmp_path / "cut.jpg", quality=95)
    content = (tmp_path / "cut.jpg").read_bytes()
    return content[: len(content) // 2]


def bad_rows(tmp_path):
    """(target, image, key, size, reason, part of the message) of rows that are wrong in one way each."""
    image = shared.picture(2)
    return [
        ("nothing", image, None, None, "bad-target", "text holds no <box>"),
        (7, image, None, None, "bad-target", "must be a Target or a string"),
        (df.Target(), image, None, None, "bad-target", "box is missing"),
        (ValueError("solution is lost"), image, None, None, "bad-target", ": solution is lost"),
        (CUT, image, None, None, "bad-target", "no area in whole pixels"),
        (TARGET, 7, None, None, "bad-image", "must be a PIL image"),
        (TARGET, b"no image", None, None, "bad-image", "cannot be opened"),
        (TARGET, str(tmp_path / "missing.png"), None, None, "bad-image", "cannot be opened"),
        (TARGET, truncated(tmp_path), None, None, "bad-image", "cannot be decoded"),
        (TARGET, {"bytes": None}, None, None, "bad-image", "neither bytes nor path"),
        (TARGET, ValueError("images[?] holds 2 images"), None, None, "bad-image", "holds 2 images"),
        (TARGET, image, [1], None, "bad-image", "cannot be hashed"),
        (TARGET, shared.picture(3), "first", None, "bad-image", "another picture than images[0]"),
        (TARGET, image, None, (0, 5), "bad-size", "must be (width, height)"),
        (TARGET, image, None, "large", "bad-size", "must be (width, height)"),
        (TARGET, image, None, ValueError("the side is 201 times the other"), "bad-size", "201 times"),
        (TARGET, image.resize((40, 30)), None, None, "bad-size", "is missing: images["),
    ]


def score(encoder, rows, on_error="row", **settings):
    targets, images, keys, sizes = (list(column) for column in zip(*(row[:4] for row in rows), strict=True))
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin", **settings), encoder)
    texts = [shared.completion(caption=f"{shared.WORDS[i % 9]} near the table") for i in range(len(rows))]
    arguments = {"image_keys": keys, "model_sizes": sizes, "on_error": on_error}
    return scorer, (texts, targets, images), arguments


def well(batch, i):
    """The reason of a row that was scored and has its box and points right."""
    return None if batch.terms["discriminative"][i] else "not-discriminative"


@pytest.mark.parametrize("precision", ["float32", "guarded"])
def test_bad_rows_are_left_out_and_the_others_are_what_they_are(tiny, tmp_path, precision):
    good = [(TARGET, shared.picture(i), "first" if i == 0 else None, None) for i in range(3)]
    bad = bad_rows(tmp_path)
    rows = [good[0], *bad[:8], good[1], *bad[8:], good[2]]
    encoder = df.ClipEncoder.from_transformers(*tiny, precision=precision)
    scorer, given, arguments = score(encoder, rows)
    found = scorer.score(*given, **arguments)
    places = [0, 9, len(rows) - 1]
    alone = scorer.score(
        *([column[i] for i in places] for column in given),
        **{name: [arguments[name][i] for i in places] for name in ("image_keys", "model_sizes")},
    )
    later = scorer.score_async(*given, **arguments).result(60)
    for batch in (found, later):
        for name, column in batch.terms.items():
            assert torch.equal(column[places], alone.terms[name])
        assert torch.equal(batch.total[places], alone.total)
        for name, column in batch.similarity.items():
            assert torch.equal(column[places], alone.similarity[name])
        assert [batch.reasons[i] for i in places] == list(alone.reasons)
        assert [batch.errors[i] for i in places] == [None] * 3
    assert not alone.total.isnan().any()
    assert set(alone.reasons) <= {None, "not-discriminative"}
    for i, row in enumerate(rows):
        if i in places:
            continue
        assert (found.reasons[i], row[5] in found.errors[i]) == (row[4], True), found.errors[i]
        assert f"[{i}]" in found.errors[i] or "images[?]" in found.errors[i]
        for column in (found.total, *found.terms.values(), *found.similarity.values()):
            assert math.isnan(column[i])
    shown = list(found.rows())
    assert shown[1]["total"] is None
    assert "no <box>" in shown[1]["error"]
    assert "error" not in shown[0]


def test_each_raises_by_default(encoder, tmp_path):
    for row in bad_rows(tmp_path):
        scorer, given, arguments = score(encoder, [(TARGET, shared.picture(), "first", None), row], "raise")
        with pytest.raises(ValueError, match=re.escape(row[5])):
            scorer.score(*given, **arguments)


def test_rows_that_share_a_broken_picture(tiny, tmp_path):
    broken = truncated(tmp_path)
    rows = [(TARGET, broken, "a", None), (TARGET, shared.picture(), None, None), (TARGET, broken, "a", None)]
    scorer, given, arguments = score(df.ClipEncoder.from_transformers(*tiny), rows)
    found = scorer.score(*given, **arguments)
    assert found.reasons == ("bad-image", well(found, 1), "bad-image")
    assert found.errors[0].startswith("images[0] cannot be decoded")
    assert found.errors[2] == found.errors[0].replace("images[0]", "images[2]")


@pytest.mark.parametrize("name", ["missing.png", "empty.png"])
def test_rows_that_share_a_picture_that_does_not_open(tiny, tmp_path, name):
    path = str(tmp_path / name)
    if name == "empty.png":
        (tmp_path / name).write_bytes(b"")
    rows = [(TARGET, path, key, None) for key in ("a", "a", None)]
    scorer, given, arguments = score(df.ClipEncoder.from_transformers(*tiny), rows)
    found = scorer.score(*given, **arguments)
    assert [error.partition(" ")[0] for error in found.errors] == ["images[0]", "images[1]", "images[2]"]
    no_encoder = df.RewardScorer(df.RewardConfig(terms=("iou",))).score(*given, **arguments)
    assert [error.partition(" ")[0] for error in no_encoder.errors] == ["images[0]", "images[1]", "images[2]"]


def test_masks_and_other_boxes(encoder):
    mask = np.zeros((72, 96), bool)
    mask[12:52, 20:64] = True
    fields = {"box": TARGET.box, "points": TARGET.points, "image_size": shared.SIZE}
    targets = [df.Target(**fields, mask=mask), df.Target(**fields), df.Target(**fields, mask=np.zeros((72, 96), bool))]
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", region="mask"), encoder)
    found = scorer.score([GOOD] * 3, targets, [shared.picture()] * 3, on_error="row")
    assert found.reasons[1:] == ("bad-target", "bad-target")
    assert found.reasons[0] == well(found, 0)
    targets = [df.Target(**fields, other_boxes=(box,)) for box in ((0, 0, 30, 30), (60.1, 40, 60.2, 72))]
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", contrast="hardest"), encoder)
    found = scorer.score([GOOD] * 2, targets, [shared.picture()] * 2, on_error="row")
    assert found.reasons == (well(found, 0), "bad-target")


def test_a_completion_that_is_no_text(encoder):
    scorer = df.RewardScorer(df.RewardConfig(), encoder)
    found = scorer.score([GOOD, None], [TARGET] * 2, [shared.picture()] * 2, on_error="row")
    assert found.reasons == (well(found, 0), "bad-completion")
    assert found.errors == (None, "completions[1] must be a string, got NoneType")


def test_without_an_encoder_sizes_of_pictures_are_read_all_the_same():
    scorer = df.RewardScorer(df.RewardConfig.preset("seg-zero"))
    text = GOOD.split(" <caption>")[0]
    found = scorer.score([text] * 2, [TARGET] * 2, [shared.picture(), b"no image"], on_error="row")
    assert found.reasons == (None, "bad-image")
    assert found.total[0] == 5
    bare = df.Target(box=TARGET.box, points=TARGET.points)  # nothing asks for the picture
    assert scorer.score([text], [bare], [b"no image"]).total[0] == 5


def test_unscored_rows_stay_out_of_their_group():
    scorer = df.RewardScorer(df.RewardConfig.preset("seg-zero"))
    text = GOOD.split(" <caption>")[0]
    batch = scorer.score([text, "", text, text], [TARGET, TARGET, "nothing", TARGET], on_error="row")
    advantages = df.ops.group_advantage(batch.total, 4)
    rest = df.ops.group_advantage(batch.total[[0, 1, 3]], 3)
    assert torch.equal(advantages[[0, 1, 3]], rest)


def test_mistakes_of_the_call_are_raised_all_the_same(encoder):
    scorer = df.RewardScorer(df.RewardConfig(), encoder)
    with pytest.raises(ValueError, match="on_error must be one of raise, row, got 'skip'"):
        scorer.score([GOOD], [TARGET], [shared.picture()], on_error="skip")
    for arguments, complaint in [
        (([GOOD], [TARGET] * 2, [shared.picture()]), "targets has 2 entries"),
        (([GOOD], [TARGET]), "images is missing"),
        ((GOOD, [TARGET], [shared.picture()]), "completions must be a list"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            scorer.score(*arguments, on_error="row")


def test_equal_keys_need_equal_pictures(encoder, tmp_path):
    """One picture in several forms is one; another one, even by a pixel, is named."""
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder)
    image = shared.picture()
    image.save(tmp_path / "a.png")
    forms = [image, image.copy(), np.asarray(image), tmp_path / "a.png", (tmp_path / "a.png").read_bytes()]
    found = scorer.score([GOOD] * 5, [TARGET] * 5, forms, image_keys=["x"] * 5)
    assert found.similarity["roi"].unique().numel() == 1
    other = image.copy()
    other.putpixel((3, 4), (1, 2, 3))
    for another in (other, Image.new("RGB", (9, 9)), np.asarray(other)):
        with pytest.raises(ValueError, match=r"images\[2\] is another picture than images\[0\].*key 'x'"):
            scorer.score([GOOD] * 3, [TARGET] * 3, [image, shared.picture(1), another], image_keys=["x", None, "x"])


def test_contents_are_compared_once_per_object(encoder, monkeypatch):
    from dpad_fast.clip import images as module

    compared = []
    check = module._check_equal
    monkeypatch.setattr(
        module, "_check_equal", lambda first, other, *rest: compared.append(1) or check(first, other, *rest)
    )
    image, copy = shared.picture(), shared.picture()
    module.find_pictures([image, copy] * 8, ["x"] * 16)
    assert len(compared) == 1


def test_a_completion_that_nobody_could_read(encoder):
    scorer = df.RewardScorer(df.RewardConfig(), encoder)
    rows = [GOOD, ValueError("no conversation")]
    found = scorer.score(rows, [TARGET] * 2, [shared.picture()] * 2, on_error="row")
    assert found.reasons == (well(found, 0), "bad-completion")
    assert found.errors == (None, "completions[1]: no conversation")


def large(kind, tmp_path):
    """A picture of a megapixel that ends too early, or whose pixels are none: found only when it is decoded."""
    if kind == "png":
        return bomb(1200, 1000)[:-60]
    shared.picture(4).resize((1200, 1000)).save(tmp_path / "large.jpg", quality=95)
    content = (tmp_path / "large.jpg").read_bytes()[:-50_000]
    return Image.open(io.BytesIO(content)) if kind == "opened" else content


def test_errors_that_were_found_elsewhere_name_this_batch_s_row():
    """Rows that were read one by one, each as its own first, and are scored together."""
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", terms=("iou",), gate=False))
    targets = [shared.SOLUTION, ValueError("targets[0]: no box"), ValueError("no label"), shared.SOLUTION]
    images = [*[shared.picture()] * 3, ValueError("images[0]: the row has no pictures, targets[0] neither")]
    batch = scorer.score([shared.completion()] * 4, targets, images, on_error="row")
    assert batch.errors == (
        None,
        "targets[1]: no box",
        "targets[2]: no label",
        "images[3]: the row has no pictures, targets[0] neither",
    )


def pixels():
    """Pictures and tensors that are alive; by type, for some objects warn when they are asked for their class."""
    return [o for o in gc.get_objects() if issubclass(type(o), Image.Image | torch.Tensor)]


@pytest.mark.parametrize("kind", ["png", "jpg", "opened"])
@pytest.mark.parametrize("good", [0, 3])
def test_pixels_of_a_broken_picture_are_let_go_with_its_row(encoder, tmp_path, kind, good):
    # Python looks for things that keep each other only now and then: hundreds of MiB in few objects could wait for it.
    images = [large(kind, tmp_path), *(shared.picture(20 + i) for i in range(good))]
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), encoder)
    texts = [shared.completion()] * len(images)
    gc.collect()
    gc.disable()
    try:
        known = {id(one) for one in pixels()}
        batch = scorer.score(texts, [shared.SOLUTION] * len(images), images, on_error="row")
        assert [reason == "bad-image" for reason in batch.reasons] == [True] + [False] * good
        del batch, images
        left = [one for one in pixels() if id(one) not in known]
    finally:
        gc.enable()
    assert [one for one in left if isinstance(one, Image.Image) or one.numel() > 10_000] == []
