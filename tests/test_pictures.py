"""Opening pictures: which side is up, which formats and sizes, and that every failure names its picture."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from dpad_fast import pictures
from dpad_fast.testing import noisy_pixels

ORIENTATION = 0x0112


def turned(kind, orientation, size=(20, 31)):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = io.BytesIO()
    Image.fromarray(noisy_pixels(*size)).save(file, kind, exif=exif)
    return file.getvalue()


def chunk(kind, content=b""):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*behind, size=(31, 20), before=()):
    """A grey PNG with chunks before and behind its pixels."""
    width, height = size
    rows = np.hstack([np.zeros((height, 1), np.uint8), noisy_pixels(height, width)[..., 0]])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    parts = [head, *before, chunk(b"IDAT", zlib.compress(rows.tobytes())), *behind, chunk(b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def huge(width, height):
    """The header of a PNG, which is all that may be read of it."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_pillow_turns_them(kind, orientation):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    content = turned(kind, orientation)
    want = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    with pictures.open_picture(content, "a") as image:
        size = pictures.upright_size(image)
        found = pictures.upright(image)
        found.load()
    assert size == found.size == want.size == ((31, 20) if orientation < 5 else (20, 31))
    assert found.tobytes() == want.tobytes()
    assert pictures.upright(found) is found  # not a second time
    assert pictures.upright(want).tobytes() == want.tobytes()


XMP = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'


@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize(
    "note",
    [
        chunk(
            b"eXIf", b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
        ),
        chunk(b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + XMP),
    ],
    ids=["exif", "xmp"],
)
def test_the_orientation_of_a_png_may_stand_behind_its_pixels(note, place):
    content = png(note) if place == "behind" else png(before=[note])
    want = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    with pictures.open_picture(content, "a") as image:
        assert pictures.upright_size(image) == want.size == (20, 31)
        assert pictures.upright(image).tobytes() == want.tobytes()


@pytest.mark.parametrize("content", [png(), turned("JPEG", 6), turned("PNG", 6)])
def test_the_size_is_read_without_decoding(content, monkeypatch):
    image = Image.open(io.BytesIO(content))
    monkeypatch.setattr(type(image), "load", lambda self: pytest.fail("decoded"))
    assert pictures.upright_size(image) in ((31, 20), (20, 31))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0no TIFF at all", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02ab\0\0"]
)
def test_exif_that_says_nothing_turns_nothing(exif):
    file = io.BytesIO()
    Image.fromarray(noisy_pixels(20, 31)).save(file, "JPEG", exif=exif)
    with pictures.open_picture(file.getvalue(), "a") as image:
        assert pictures.upright_size(image) == (31, 20)
        assert pictures.upright(image) is image


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "MPO"])
def test_formats_that_are_meant_are_opened(kind):
    file = io.BytesIO()
    Image.fromarray(noisy_pixels(20, 31)).save(file, kind)
    with pictures.open_picture(file.getvalue(), "a") as image:
        assert image.size == (31, 20)


@pytest.mark.parametrize("kind", ["ICO", "PCX", "TGA", "SGI", "DDS", "PDF", "EPS"])
def test_other_formats_are_refused_by_name(kind):
    file = io.BytesIO()
    Image.fromarray(noisy_pixels(32, 32)).save(file, kind)
    with pytest.raises(
        ValueError, match=r"images\[3\] cannot be opened as an image: it is none of JPEG, PNG, WEBP, AVIF"
    ):
        pictures.open_picture(file.getvalue(), "images[3]")


def test_the_limit_on_pixels_is_checked_before_decoding(monkeypatch):
    monkeypatch.delenv(pictures.MAX_PIXELS_VARIABLE, raising=False)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"^b has more pixels than the limit of 1000; DPAD_FAST_MAX_PIXELS moves it"):
        pictures.open_picture(huge(13_000, 13_000), "b")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setenv(pictures.MAX_PIXELS_VARIABLE, "600")
    with pytest.raises(ValueError, match=r"^c has 31 x 20 pixels, more than the limit of 600; DPAD_FAST_MAX_PIXELS"):
        pictures.open_picture(png(), "c")
    with pytest.raises(ValueError, match=r"^d has 31 x 20 pixels, more than the limit of 600"):
        pictures.check_pixels(Image.open(io.BytesIO(png())), "d")
    pictures.check_pixels(Image.new("RGB", (31, 20)), "in memory already")
    monkeypatch.setenv(pictures.MAX_PIXELS_VARIABLE, "620")
    pictures.open_picture(png(), "c").close()


def test_the_limit_is_pillows_unless_it_is_set(monkeypatch):
    monkeypatch.delenv(pictures.MAX_PIXELS_VARIABLE, raising=False)
    assert pictures.max_pixels() == Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setenv(pictures.MAX_PIXELS_VARIABLE, "169000000")
    with pictures.open_picture(huge(13_000, 13_000), "b") as image:  # without Pillow's warning, and past its guard
        assert image.size == (13_000, 13_000)


@pytest.mark.parametrize("value", ["0", "-1", "many", "1e6", "9" * 5000, "\u0663"])
def test_a_bad_limit_is_named(monkeypatch, value):
    monkeypatch.setenv(pictures.MAX_PIXELS_VARIABLE, value)
    with pytest.raises(ValueError, match="DPAD_FAST_MAX_PIXELS must be a positive whole number") as caught:
        pictures.open_picture(png(), "a")
    assert len(str(caught.value)) < 200


def test_long_texts_lose_their_middle():
    assert pictures.shortened("a" * 80) == "a" * 80
    assert pictures.shortened("a" * 50 + "b" * 50) == "a" * 40 + "..." + "b" * 37
    said = pictures.what_was_said(FileNotFoundError(2, "No such file or directory", "data:" + "A" * 88_000))
    assert said.startswith("No such file or directory: 'data:AAA")
    assert len(said) < 120
    assert len(pictures.what_was_said(ValueError("x" * 5000))) == 160
