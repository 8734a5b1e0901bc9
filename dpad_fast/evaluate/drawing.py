"""Pictures for the report: answers drawn on their images, and the curves of a training run."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

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
ARM_COLOURS = ("#4c72b0", "#c44e52", "#8172b3", "#55a868", "#937860")


def draw_answer(
    image: Image.Image,
    truth: Sequence[float] | None,
    box: Sequence[float] | None,
    points: Sequence[Sequence[float]] = (),
    scale: int = 2,
) -> Image.Image:
    """The image, enlarged, with the ground-truth box in green, the answer's box in red and its points as dots.

    Args:
        image: the picture; it is turned as its EXIF says.
        truth: (x1, y1, x2, y2) in pixels of the turned `image`, or None.
        box: the answer's, or None.
        points: the answer's (x, y) points.
        scale: how many times larger.

    Returns:
        A new RGB image.
    """
    image = upright(image)
    large = image.convert("RGB").resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(large)
    for corners, colour in ((truth, TRUTH), (box, ANSWER)):
        if corners is not None:
            x1, y1, x2, y2 = (max(-1e4, min(1e4, float(value))) * scale for value in corners)
            pen.rectangle((min(x1, x2), min(y1, y2), max(x1, x2) - 1, max(y1, y2) - 1), outline=colour, width=2)
    for x, y in points:
        centre_x, centre_y = (max(-1e4, min(1e4, float(value))) * scale for value in (x, y))
        pen.ellipse((centre_x - 3, centre_y - 3, centre_x + 3, centre_y + 3), fill=ANSWER, outline=(255, 255, 255))
    return large


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


CURVES = {
    "completions/mean_length": "tokens per completion",
    "dpad/s1_over_s2": "rate of S1 > S2",
    "rewards/iou/mean": "rate of IoU > 0.5",
    "kl": "KL from the warm start",
}


def curves_svg(arms: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], window: int = 5) -> str:
    """The training curves of several arms as one SVG element.

    Args:
        arms: histories by arm, one per seed; each history is a list of log lines with "step".
        window: steps of the running mean that is drawn strong over the faint raw values.

    Returns:
        SVG text without an XML heading, or "" where there is nothing to draw.
    """
    keys = [key for key in CURVES if any(key in line for runs in arms.values() for run in runs for line in run)]
    if not keys:
        return ""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    columns = min(2, len(keys))
    rows = -(-len(keys) // columns)
    with rc_context({"svg.hashsalt": "dpad-fast", "font.size": 9}):
        figure = Figure(figsize=(4.6 * columns, 2.7 * rows), layout="constrained")
        FigureCanvasSVG(figure)
        for place, key in enumerate(keys):
            _panel(figure.add_subplot(rows, columns, place + 1), arms, key, window, legend=place == 0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _panel(
    axes: Any, arms: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], key: str, window: int, legend: bool
) -> None:
    for index, (name, runs) in enumerate(arms.items()):
        colour = ARM_COLOURS[index % len(ARM_COLOURS)]
        for seed, run in enumerate(runs):
            points = [(line["step"], line[key]) for line in run if key in line]
            if not points:
                continue
            steps, values = [p[0] for p in points], [p[1] for p in points]
            means = [sum(values[max(0, i - window + 1) : i + 1]) / min(window, i + 1) for i in range(len(values))]
            axes.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
            axes.plot(steps, means, color=colour, linewidth=1.6, label=name if seed == 0 else None)
    axes.set_title(CURVES[key], fontsize=10)
    axes.set_xlabel("step")
    axes.grid(alpha=0.25)
    if legend:
        axes.legend(frameon=False, fontsize=8)
