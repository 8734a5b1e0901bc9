"""Overlays: mask, box, points and words land where they should, on any picture."""

import numpy as np
from PIL import Image

from dpad_fast.evaluate.overlays import ANSWER, draw_overlay
from dpad_fast.segmenters import Prompt


def pixels(image):
    return np.asarray(image)


def test_mask_box_and_points():
    mask = np.zeros((500, 600), dtype=bool)
    mask[100:200, 300:400] = True
    prompt = Prompt((50.0, 60.0, 251.0, 161.0), ((150.0, 110.0), (420.0, 400.0)), (1, 0))
    image = pixels(draw_overlay(Image.new("RGB", (600, 500), (100, 100, 100)), mask, [prompt]))
    assert image.shape == (500, 600, 3)
    assert image[150, 350].tolist() == [68, 109, 170]  # 0.55 of the picture, 0.45 of (30, 120, 255)
    assert image[100, 350].tolist() == [255, 255, 255]  # the border
    assert image[99, 350].tolist() == image[450, 20].tolist() == [100, 100, 100]
    assert image[60, 100].tolist() == image[110, 50].tolist() == image[160, 250].tolist() == list(ANSWER)
    assert image[110, 150].tolist() == list(ANSWER)
    assert image[400, 420].tolist() == [100, 100, 100]  # off the object: a ring
    assert (image[400, 405:436] == 255).all(axis=1).sum() == 2


def test_small_pictures_are_enlarged():
    mask = np.zeros((30, 40), dtype=bool)
    mask[10:20, 10:20] = True
    image = draw_overlay(Image.new("RGB", (40, 30)), mask, [])
    assert image.size == (480, 360)
    assert pixels(image)[180, 180].tolist() == [14, 54, 115]


def test_words_go_below_and_are_wrapped():
    picture = Image.new("RGB", (500, 100), (9, 9, 9))
    short, long = (
        draw_overlay(picture, text=text) for text in ("a\nb", "many words " * 40 + "\x1b[31m\u202e" + "x" * 900)
    )
    assert short.width == long.width == 500
    assert 100 < short.height < long.height
    assert np.array_equal(pixels(short)[:100], pixels(picture))
    assert pixels(short)[100:].max() > 200


def test_hostile_boxes_and_turned_pictures():
    picture = Image.new("L", (500, 300))
    picture.getexif()[0x0112] = 6
    far = Prompt((1e30, -1e30, -1e30, 1e30), ((1e300, -1e300),), (1,))
    assert draw_overlay(picture, np.ones((500, 300), dtype=bool), [far]).size == (300, 500)
