"""How this package opens a picture: its formats, limit of pixels, orientation, and errors for broken files."""

from __future__ import annotations

import base64
import io
import os
import re
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.parse import unquote

from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
"""Formats that are opened, by Pillow's names; a JPEG may be a camera's MPO. Pillow's other readers are not tried."""

_READERS = tuple(kind for kind in FORMATS if kind != "AVIF" or find_spec("PIL.AvifImagePlugin"))  # Pillow 11.3

MAX_PIXELS_VARIABLE = "DPAD_FAST_MAX_PIXELS"

_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = 5  # from this one on, width and height change places
# A PPM or PGM as most programs write it, of one byte for each colour; the others are Pillow's to read.
_PLAIN = re.compile(rb"P([56])[ \n]([1-9]\d{0,8})[ \n]([1-9]\d{0,8})[ \n]255\n")
_NOTES = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # the chunks of a PNG that can hold an orientation


def open_picture(source: str | bytes, name: str) -> Image.Image:
    """Opens a file or its bytes; the header is read, the pixels are not decoded.

    Args:
        source: a path, or the encoded bytes.
        name: what to call it in an error, such as `images[3]`.

    Returns:
        The image as Pillow opens it: not turned (`upright` does that), and to be closed by the caller.

    Raises:
        ValueError: it cannot be read, is none of `FORMATS`, its header is broken, or it has too many pixels.
    """
    limit = max_pixels()
    if os.environ.get(MAX_PIXELS_VARIABLE) and Image.MAX_IMAGE_PIXELS is not None:
        # Asked for by the user: Pillow's own guard would otherwise refuse at twice its limit.
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, limit)
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_READERS)
    except UnidentifiedImageError:
        kinds = ", ".join(FORMATS)
        raise ValueError(
            f"{name} cannot be opened as an image: it is none of {kinds}, or its header is broken"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"{name} has more pixels than the limit of {limit}; {MAX_PIXELS_VARIABLE} moves it") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise whatever they trip over
        raise ValueError(f"{name} cannot be opened as an image: {what_was_said(error)}") from None
    try:
        check_pixels(image, name)
    except ValueError:
        image.close()
        raise
    return image


def plain_layout(content: bytes) -> tuple[int, int, int, int] | None:
    """Where the pixels of a binary PPM or PGM lie, which need no decoding.

    Returns:
        (height, width, colours, place of the first byte); None: the bytes are another file, a broken one, or one of too
        many pixels.
    """
    head = _PLAIN.match(content[:40])
    if head is None:
        return None
    colours, width, height = 3 if head[1] == b"6" else 1, int(head[2]), int(head[3])
    if width * height > max_pixels() or len(content) != head.end() + width * height * colours:
        return None
    return height, width, colours, head.end()


def file_size(source: str | bytes, name: str) -> tuple[int, int]:
    """(width, height) of a file or its bytes, turned as its EXIF says; raises as `open_picture`."""
    plain = plain_layout(source) if isinstance(source, bytes) else None
    if plain is not None:
        return plain[1], plain[0]
    with open_picture(source, name) as image, decoding(name):
        return upright_size(image)


def data_uri_bytes(text: str, name: str) -> bytes:
    """The encoded picture that a `data:image/...;base64,...` holds, as content blocks of chat messages do.

    Raises:
        ValueError: it is no data URI in base64; begins with `name`.
    """
    head, comma, body = text.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ValueError(f"{name} is a data URI but not data:image/...;base64,...: {shortened(text)!r}")
    try:
        return base64.b64decode("".join(unquote(body).split()), validate=True)
    except ValueError as error:
        raise ValueError(f"{name} is a data URI whose base64 cannot be read: {error}") from None


def max_pixels() -> int:
    """The most pixels of a picture that is decoded: `DPAD_FAST_MAX_PIXELS`, else `PIL.Image.MAX_IMAGE_PIXELS`."""
    text = os.environ.get(MAX_PIXELS_VARIABLE)
    if not text:
        return sys.maxsize if Image.MAX_IMAGE_PIXELS is None else Image.MAX_IMAGE_PIXELS
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < 1:
        raise ValueError(f"{MAX_PIXELS_VARIABLE} must be a positive whole number of pixels, got {text!r:.80}")
    return int(text)


def check_pixels(image: Image.Image, name: str) -> None:
    """Raises a `ValueError` where an image that Pillow opened has too many pixels to be decoded."""
    width, height = image.size
    if isinstance(image, ImageFile.ImageFile) and width * height > max_pixels():
        limit = f"the limit of {max_pixels()}; {MAX_PIXELS_VARIABLE} moves it"
        raise ValueError(f"{name} has {width} x {height} pixels, more than {limit}")


def is_decoded(image: Image.Image) -> bool:
    """Whether the pixels of an image are in memory. Those of a file that Pillow has only opened are not."""
    if not isinstance(image, ImageFile.ImageFile):
        return True
    return getattr(image, "_im", None) is not None or vars(image).get("im") is not None  # before Pillow 11


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says, without the tag, so that it cannot be turned twice.

    As `datasets` and transformers' `load_image` do. An image without orientation is returned as it is.
    """
    turn = _TURNS.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = {key: value for key, value in image.info.items() if key == "transparency"}
    return turned


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) after `upright`; the pixels are decoded only where Pillow needs them to find the orientation."""
    sideways = _orientation(image) >= _SIDEWAYS  # first: a TIFF's size may change with it
    width, height = image.size
    return (height, width) if sideways else (width, height)


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Whatever Pillow raises inside becomes a `ValueError` that names the picture."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # a reader fails by OSError, SyntaxError, struct.error, IndexError, AssertionError ...
        raise ValueError(f"{name} cannot be decoded: {what_was_said(error)}") from None


def what_was_said(error: Exception) -> str:
    """An error's own words, short: paths and payloads in it may be of any length."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + ("" if error.filename is None else f": {shortened(repr(error.filename))}")
    if isinstance(error, AssertionError) and not str(error):
        return "AssertionError; is it a closed image?"
    return shortened(str(error) or type(error).__name__, 160)


def shortened(text: str, length: int = 80) -> str:
    """The text, its middle left out where it is longer than that."""
    if len(text) <= length:
        return text
    head = length // 2
    return f"{text[:head]}...{text[head + 3 - length :]}"


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 where there is none, or EXIF that cannot be read."""
    if _may_turn_later(image):
        image.load()
    tag = _tag(image)
    if tag != 1 and isinstance(image, TiffImagePlugin.TiffImageFile):
        image.load()  # Pillow turns a TIFF itself, and drops the tag
        tag = _tag(image)
    return tag


def _tag(image: Image.Image) -> int:
    try:
        # The base class's: a PNG's own would decode it, in search of EXIF behind the pixels.
        tag = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception:  # as above; broken EXIF turns nothing, and the pixels may be sound
        return 1
    return tag if isinstance(tag, int) and tag in _TURNS else 1


def _may_turn_later(image: Image.Image) -> bool:
    """Whether a PNG has notes behind its pixels, where Pillow looks only when it decodes."""
    if not isinstance(image, PngImagePlugin.PngImageFile) or not image.tile or "exif" in image.info:
        return False
    stream = image.fp
    if stream is None or stream.closed:
        return False
    place, behind = stream.tell(), False
    try:
        stream.seek(8)  # the signature
        while len(head := stream.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if behind and kind in _NOTES:
                return True
            behind = behind or kind == b"IDAT"
            stream.seek(length + 4, os.SEEK_CUR)
        return False
    finally:
        stream.seek(place)
