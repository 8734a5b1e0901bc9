"""Pictures with what is said about them drawn on: an answer's mask, box and points, or a sample's ground truth."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dpad_fast.data.resize import Sizing, resize_mask, store_picture
from dpad_fast.pictures import upright
from dpad_fast.segmenters.prompts import Prompt
from dpad_fast.terminal import printable
from dpad_fast.types import BoolMask, ImageLike, Target

TRUTH, ANSWER, MASK = (40, 200, 90), (230, 40, 60), (30, 120, 255)
OTHER, IGNORED = (70, 120, 240), (150, 150, 150)
_READABLE = 448  # pixels of the longer side of an overlay, at least
_LONGEST_TEXT = 1000  # characters


def draw_overlay(
    image: Image.Image,
    mask: BoolMask | None = None,
    prompts: Sequence[Prompt] = (),
    text: str = "",
) -> Image.Image:
    """The image with an answer on it: the mask as a tint with its border, boxes, points, and the description below.

    Args:
        image: the picture; it is turned as its EXIF says.
        mask: bool [H, W] of the turned picture's size, or None.
        prompts: boxes and points, in its pixels; a point that is not on the object is a ring instead of a dot.
        text: lines that go into a band below the picture, wrapped.

    Returns:
        A new RGB image; small pictures are enlarged so that their longer side has at least 448 pixels.
    """
    image = upright(image).convert("RGB")
    scale = max(1, -(-_READABLE // max(image.size)))
    large = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    if mask is not None:
        large = _tinted(large, mask.repeat(scale, axis=0).repeat(scale, axis=1))
    pen = ImageDraw.Draw(large)
    width = max(2, max(large.size) // 300)
    for prompt in prompts:
        if prompt.box is not None:
            x1, y1, x2, y2 = (_near(value * scale) for value in prompt.box)
            left, top = min(x1, x2), min(y1, y2)
            corners = (left, top, max(left, max(x1, x2) - 1), max(top, max(y1, y2) - 1))
            for colour, thick in (((255, 255, 255), width + 2), (ANSWER, width)):
                pen.rectangle(corners, None, colour, thick)
        for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
            centre, radius = (_near(x * scale), _near(y * scale)), 2 * width + 1
            pen.circle(
                centre, radius, fill=ANSWER if label else None, outline=(255, 255, 255), width=max(1, width // 2)
            )
    return _with_band(large, text) if text else large


def _near(value: float) -> float:
    return max(-1e5, min(1e5, value))


def _tinted(image: Image.Image, mask: BoolMask) -> Image.Image:
    pixels = np.asarray(image, dtype=np.float32)
    tint = np.array(MASK, dtype=np.float32)
    shown = np.where(mask[..., None], 0.55 * pixels + 0.45 * tint, pixels)
    inner = mask.copy()  # what remains of the mask where each of its four neighbours is in it
    inner[1:] &= mask[:-1]
    inner[:-1] &= mask[1:]
    inner[:, 1:] &= mask[:, :-1]
    inner[:, :-1] &= mask[:, 1:]
    shown[mask & ~inner] = (255, 255, 255)  # seen on any colour, the tint's own too
    return Image.fromarray(shown.round().astype(np.uint8))


def _with_band(image: Image.Image, text: str) -> Image.Image:
    size = max(12, max(image.size) // 32)
    font = ImageFont.load_default(size)
    measure = ImageDraw.Draw(image)
    lines: list[str] = []
    for paragraph in text[:_LONGEST_TEXT].splitlines():
        lines.append("")
        for word in printable(paragraph).split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and measure.textlength(longer, font) > image.width - size:
                lines.append(word)
            else:
                lines[-1] = longer
    step = round(1.35 * size)
    whole = Image.new("RGB", (image.width, image.height + step * len(lines) + size), (24, 24, 28))
    whole.paste(image)
    pen = ImageDraw.Draw(whole)
    for number, line in enumerate(lines):
        pen.text((size // 2, image.height + size // 2 + step * number), line, (240, 240, 240), font)
    return whole


def as_data_uri(image: Image.Image) -> str:
    """The picture as a PNG data URI."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def draw_truth(image: ImageLike, target: Target, longest: int, name: str) -> Image.Image:
    """The picture with its ground truth: mask tinted, ignored pixels hatched, boxes outlined, points as dots.

    Args:
        image: anything that `Sample.image` may be.
        target: in pixels of `image`, or of the picture of its `image_size`.
        longest: a longer side is brought down to this many pixels.
        name: what a message calls the picture.

    Returns:
        A new RGB image.

    Raises:
        ValueError: the picture cannot be read.
    """
    stored = store_picture(image, Sizing(max_side=longest), name)
    with Image.open(io.BytesIO(stored.content)) as opened:
        canvas = np.asarray(opened.convert("RGB")).astype(np.float32)
    size = stored.after
    if target.mask is not None:
        canvas[resize_mask(target.mask, size)] *= 0.5
        canvas[resize_mask(target.mask, size)] += np.array(TRUTH, np.float32) * 0.5
    if target.ignore is not None:
        rows, columns = np.indices(size[::-1])
        canvas[resize_mask(target.ignore, size) & ((rows + columns) % 8 < 3)] = IGNORED
    drawn = Image.fromarray(canvas.round().astype(np.uint8))
    pen, before = ImageDraw.Draw(drawn), target.image_size or stored.before
    scale = np.array(size) / np.array(before)
    own = [box for box in (target.box, *(box for box, _ in target.objects)) if box is not None]
    for boxes, colour in ((target.other_boxes, OTHER), (own, TRUTH)):
        for box in boxes:
            x1, y1, x2, y2 = (np.clip(np.array(box).reshape(2, 2), -1e4, 1e4) * scale).ravel().tolist()
            corners = (min(x1, x2), min(y1, y2), max(x1, x2, min(x1, x2) + 1) - 1, max(y1, y2, min(y1, y2) + 1) - 1)
            pen.rectangle(corners, outline=colour, width=2)
    for point in (*(target.points or ()), *(point for _, point in target.objects)):
        x, y = (np.clip(np.array(point) + 0.5, -1e4, 1e4) * scale - 0.5).tolist()
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=TRUTH, outline=(255, 255, 255), width=2)
    return drawn
