"""Boxes become whole pixels as `Image.crop` rounds them; the whole picture is None, and nothing else is."""

import pytest
from PIL import Image

from dpad_fast.clip.regions import EmptyRegion, region_of

SIZE = (96, 72)


@pytest.mark.parametrize("box", [(0.5, 1.5, 20.5, 33.4), (-3.2, 0, 50, 80.6), (10, 10, 11, 11)])
def test_rounded_as_pillow_crops(box):
    region = region_of(box, SIZE)
    assert Image.new("L", SIZE).crop(box).size == (region[2] - region[0], region[3] - region[1])


def test_the_whole_picture_is_none_however_it_is_given():
    for box, settings in [
        ((0, 0, 96, 72), {}),
        ((0.4, -0.4, 95.6, 72.3), {}),
        ((0, 0, 48, 36), {"space": (48, 36)}),
        ((-9, -9, 200, 200), {"clip": True}),
    ]:
        assert region_of(box, SIZE, **settings) is None
    assert region_of((-9, -9, 200, 200), SIZE) == (-9, -9, 200, 200)
    assert region_of((5, 6, 24, 18), SIZE, (48, 36)) == (10, 12, 48, 36)


def test_a_box_without_a_pixel_is_no_region():
    for box, settings in [
        ((10, 10, 10.4, 20), {}),
        ((20, 10, 10, 20), {}),
        ((96, 0, 120, 20), {"clip": True}),
        ((0, 0, 10**400, 5), {"space": (9, 9)}),
    ]:
        with pytest.raises(EmptyRegion):
            region_of(box, SIZE, **settings)
