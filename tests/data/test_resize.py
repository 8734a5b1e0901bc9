"""Resized samples: masks pixel by pixel, boxes and points with their object, pictures that keep their bytes."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpad_fast._mask_geometry import box_of, inscribed_points
from dpad_fast.data.resize import Sizing, resize_mask, resize_target, store_picture
from dpad_fast.types import Target


def blob(rng, width, height):
    """A filled ellipse of a mask, away from nothing: it may touch the border."""
    y, x = np.mgrid[:height, :width]
    cx, cy = rng.uniform(0, width), rng.uniform(0, height)
    rx, ry = rng.uniform(3, width / 2 + 3), rng.uniform(3, height / 2 + 3)
    return ((x + 0.5 - cx) / rx) ** 2 + ((y + 0.5 - cy) / ry) ** 2 <= 1


def test_sizes_are_read_and_refused():
    assert str(Sizing.parse("840x840")) == "840x840"
    assert str(Sizing.parse("max-side 1024")) == str(Sizing.parse("max-side=1024")) == "max-side=1024"
    assert str(Sizing.parse(None)) == str(Sizing.parse("none")) == "none"
    assert Sizing.parse("640X480").of((10, 20)) == (640, 480)
    assert Sizing.parse("max-side=100").of((400, 300)) == (100, 75)
    assert Sizing.parse("max-side=100").of((90, 30)) == (90, 30)  # nothing is enlarged
    assert Sizing.parse("max-side=10").of((4000, 3)) == (10, 1)
    for text in ("0x840", "840", "x", "840x99999", "max-side=0", "840x840x3", "-3x4"):
        with pytest.raises(ValueError, match=r"size must be WIDTHxHEIGHT"):
            Sizing.parse(text)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 60), st.integers(1, 60), st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_a_masks_pixel_is_the_one_in_which_its_centre_lies_as_in_pillow(width, height, new_width, new_height, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    found = resize_mask(mask, (new_width, new_height))
    for row in range(new_height):
        for column in (0, new_width // 2, new_width - 1):
            y, x = (2 * row + 1) * height // (2 * new_height), (2 * column + 1) * width // (2 * new_width)
            assert found[row, column] == mask[y, x]
    peer = Image.fromarray(mask.astype(np.uint8) * 255).resize((new_width, new_height), Image.Resampling.NEAREST)
    # Where a centre is on the edge of two pixels, Pillow's floating-point numbers fall on either side.
    rows = (2 * np.arange(new_height) + 1) * height % (2 * new_height) != 0
    columns = (2 * np.arange(new_width) + 1) * width % (2 * new_width) != 0
    assert np.array_equal(found[rows][:, columns], (np.asarray(peer) > 0)[rows][:, columns])


def test_box_stays_the_masks_own_and_points_stay_in_it():
    rng = np.random.default_rng(0)
    for _ in range(200):
        width, height = (int(side) for side in rng.integers(20, 90, 2))
        mask = blob(rng, width, height)
        if not mask.any():
            continue
        target = Target(box=box_of(mask), points=inscribed_points(mask), mask=mask)
        after = (int(width * rng.uniform(1, 3)), int(height * rng.uniform(1, 3)))  # smaller, tips may vanish
        moved = resize_target(target, (width, height), after)
        assert moved.image_size == after
        assert moved.box == box_of(moved.mask)
        scale = np.tile(np.array(after) / (width, height), 2)
        assert np.abs(np.array(moved.box) - target.box * scale).max() <= 0.5 + scale.max() / 2
        for x, y in moved.points:
            assert moved.mask[int(y + 0.5), int(x + 0.5)]


def test_what_is_given_is_scaled_and_nothing_is_left_behind():
    ignore = np.zeros((50, 100), bool)
    ignore[:25] = True
    target = Target(
        box=(10, 5, 30, 25),
        points=((10, 10), (20, 20)),
        image_size=(100, 50),
        ignore=ignore,
        other_boxes=((0, 0, 50, 50),),
        objects=(((10, 5, 30, 25), (12, 7)),),
        text="<box>(10,5),(30,25)</box>",
    )
    moved = resize_target(target, (100, 50), (200, 200))
    assert moved.box == (20, 20, 60, 100)
    assert moved.points == ((20.5, 41.5), (40.5, 81.5))  # centres of pixels: (10 + 0.5) * 2 - 0.5
    assert moved.ignore.shape == (200, 200)
    assert moved.ignore[:100].all()
    assert not moved.ignore[100:].any()
    assert moved.other_boxes == ((0, 0, 100, 200),)
    assert moved.objects == (((20, 20, 60, 100), (24.5, 29.5)),)
    assert moved.text == ""


def test_polygons_without_a_mask_are_drawn_at_the_new_size():
    ring = np.array([[10, 10], [30, 10], [30, 40], [10, 40]], float)
    moved = resize_target(Target(polygons=(ring,), image_size=(50, 50)), (50, 50), (100, 200))
    assert np.array_equal(moved.polygons[0], ring * [2, 4])
    assert moved.box == (20, 40, 60, 160)
    assert moved.mask.sum() == 40 * 120
    assert all(moved.mask[int(y), int(x)] for x, y in moved.points)


def test_what_cannot_be_is_refused():
    thin = np.zeros((100, 100), bool)
    thin[:, 1] = True
    with pytest.raises(ValueError, match=r"the mask of 100 pixels has none left at 10x10"):
        resize_target(Target(mask=thin), (100, 100), (10, 10))
    with pytest.raises(ValueError, match=r"belongs to a picture of 100x100, but the picture is 50x100"):
        resize_target(Target(mask=thin), (50, 100), (10, 10))


def encoded(image, kind, **settings):
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def test_pictures_keep_their_bytes_or_lose_nothing(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    for kind, ending in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")):
        raw = encoded(image, kind)
        stored = store_picture({"bytes": raw, "path": "a/b.dat"}, Sizing(), "row")
        assert (stored.content, stored.path, stored.after) == (raw, f"b.{ending}", (60, 40))
    stored = store_picture(encoded(image, "BMP"), Sizing(), "row")  # of which not every reader knows
    assert stored.path == "row.png"
    assert np.array_equal(Image.open(io.BytesIO(stored.content)), image)
    (tmp_path / "x.png").write_bytes(encoded(image, "PNG"))
    stored = store_picture(str(tmp_path / "x.png"), Sizing.parse("84x30"), "row")
    expected = image.resize((84, 30), Image.Resampling.BILINEAR)
    assert np.array_equal(Image.open(io.BytesIO(stored.content)), expected)
    assert (stored.before, stored.after, stored.path) == ((60, 40), (84, 30), "x.png")


def test_turned_and_transparent_pictures_are_stored_as_they_are_scored():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = store_picture(encoded(image, "PNG", exif=exif), Sizing(), "row")
    assert stored.before == stored.after == (40, 60)
    assert np.array_equal(Image.open(io.BytesIO(stored.content)), image.transpose(Image.Transpose.ROTATE_270))
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    stored = store_picture(clear, Sizing.parse("4x4"), "row")
    assert (np.asarray(Image.open(io.BytesIO(stored.content))) == 255).all()


def test_broken_pictures_are_named():
    for source, said in (("gone.jpg", "picture gone.jpg cannot be read"), (b"no picture", "row cannot be opened")):
        with pytest.raises(ValueError, match=said):
            store_picture(source, Sizing(), "row")
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    cut = encoded(Image.fromarray(noise), "JPEG")[:-200]
    with pytest.raises(ValueError, match="row cannot be decoded"):
        store_picture(cut, Sizing(), "row")
    with pytest.raises(ValueError, match="row holds neither bytes nor a path"):
        store_picture({}, Sizing(), "row")
