"""What client and server send each other: JSON that keeps texts, targets, pictures and scores to the bit.

Numbers are written as the shortest decimals that read back as the same number; NaN is null. Pictures travel as bytes,
under the SHA-256 of them; masks as COCO run lengths; text that is no Unicode (lone surrogates) as base64.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from dpad_fast import coco_mask
from dpad_fast._native.images import content_digest, in_own_mode
from dpad_fast.clip.images import KeptBytes, Picture
from dpad_fast.pictures import check_pixels, decoding, upright
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.types import ScoreBatch, Target

REQUEST_ID = "X-Request-Id"
SCORER_ID = "X-Dpad-Scorer"
_COLUMNS = 64  # of a mask: run lengths go down its columns
_PLAIN = {"RGB": b"P6", "L": b"P5"}


@dataclass(frozen=True)
class PictureBytes:
    """A picture on its way.

    Attributes:
        content: an encoded file; or raw pixels, uint8 in the order of `shape`.
        shape: of raw pixels; None for a file.
    """

    content: bytes
    shape: tuple[int, ...] | None = None

    def sha256(self) -> str:
        """The digest of `content`, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()


def text_out(text: Any) -> Any:
    """A string, or what stands for one that JSON cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return {"base64": base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()}
    return text


def text_in(content: bytes) -> str:
    """The string that `text_out` wrote as bytes; a `ValueError` where it is none."""
    return content.decode("utf-8", "surrogatepass")


def failure_out(error: ValueError | str) -> dict[str, str]:
    """An entry that could not be read."""
    return {"error": str(error)[:2000]}


def target_out(target: Target) -> dict[str, Any]:
    """The fields of a target that are there."""
    fields: dict[str, Any] = {
        "box": target.box,
        "points": target.points,
        "image_size": target.image_size,
        "mask": None if target.mask is None else mask_out(target.mask),
        "ignore": None if target.ignore is None else mask_out(target.ignore),
        "polygons": None if target.polygons is None else [ring.tolist() for ring in target.polygons],
        "objects": target.objects or None,
        "other_boxes": target.other_boxes or None,
        "text": text_out(target.text) if target.text else None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def mask_out(mask: Any) -> dict[str, Any]:
    """COCO run lengths of a mask, compressed, as text."""
    rle = coco_mask.encode(mask)
    return {"size": list(map(int, rle["size"])), "counts": rle["counts"].decode("ascii")}


def mask_in(size: Sequence[int], counts: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Bool [H, W]; a `ValueError` where the run lengths do not fill it."""
    decoded = coco_mask.decode({"size": list(size), "counts": counts.encode("ascii", "replace")}).view(np.bool_)
    mask = np.empty(decoded.shape, np.bool_)
    for first in range(0, size[1], _COLUMNS):  # of a large mask all at once would take five times as long
        mask[:, first : first + _COLUMNS] = decoded[:, first : first + _COLUMNS]
    return mask


def picture_out(source: Any, name: str) -> PictureBytes:
    """What `source_of` found, other than a path, as bytes that give the scorer the same pixels.

    A PIL image is sent turned as its EXIF says: as PPM where it is RGB or grey, else as PNG or TIFF, what keeps it; an
    array or tensor as PPM too, or raw where it has alpha.

    Raises:
        ValueError: it is no image that could be scored, or no format keeps its mode; begins with `name`.
    """
    if isinstance(source, bytes):
        return PictureBytes(source)
    if isinstance(source, Image.Image):
        return PictureBytes(_image_out(source, name))
    pixels = in_own_mode(source, name)  # refuses what the scorer would refuse, in its words
    if isinstance(pixels, torch.Tensor):
        return PictureBytes(_ppm(pixels))
    array = source.detach().cpu().numpy() if isinstance(source, torch.Tensor) else source
    return PictureBytes(np.ascontiguousarray(array).tobytes(), tuple(array.shape))


def plain_content(source: Any, name: str) -> Hashable | None:
    """What tells a picture that travels as PPM from others, quickly; None for what is none of these."""
    if isinstance(source, bytes) or (isinstance(source, Image.Image) and source.mode not in _PLAIN):
        return None
    pixels = in_own_mode(source, name)
    if not isinstance(pixels, torch.Tensor):
        return None
    return getattr(source, "mode", None), tuple(pixels.shape), content_digest(pixels[..., :3])


def looks(config: RewardConfig) -> bool:
    """Whether a scorer looks at pictures' pixels; else only their sizes travel."""
    return config.needs_encoder or config.segmenter is not None


def size_out(source: Any, name: str) -> dict[str, Any]:
    """An entry for what `source_of` found, where nobody looks at pixels: its size, or why it has none."""
    try:
        return {"size": list(Picture(source, name).size)}
    except ValueError as error:
        return {"unreadable": str(error)[:2000]}


def size_in(size: tuple[int, int] | None, unreadable: str | None) -> KeptBytes:
    """The image for `RewardScorer.score` of what `size_out` wrote."""
    image = KeptBytes()
    image.size, image.fault, image.key = size, unreadable, ("size", size, unreadable)
    return image


def picture_in(picture: PictureBytes, name: str) -> Any:
    """The image for `RewardScorer.score`."""
    if picture.shape is None:
        return picture.content
    if math.prod(picture.shape) != len(picture.content):
        raise ValueError(f"{name} has {len(picture.content)} bytes for the shape {list(picture.shape)}")
    return np.frombuffer(picture.content, np.uint8).reshape(picture.shape)


def _image_out(image: Image.Image, name: str) -> bytes:
    if image.width == 0 or image.height == 0:
        raise ValueError(f"{name} has no pixel: its size is {image.size}")
    check_pixels(image, name)
    with decoding(name):
        shown = upright(image)
        shown.load()
        if shown.mode in _PLAIN and shown.info.get("transparency") is None:
            return b"%b %d %d 255\n" % (_PLAIN[shown.mode], *shown.size) + shown.tobytes()
        for kind in ("PNG", "TIFF"):
            content = _kept(shown, kind)
            if content is not None:
                return content
    raise ValueError(f"{name} has mode {image.mode!r:.20}, which no file keeps as it is; convert it to RGB")


def _ppm(pixels: torch.Tensor) -> bytes:
    """uint8 [H, W, 3] as a file."""
    height, width, _ = pixels.shape
    return b"P6 %d %d 255\n" % (width, height) + pixels[..., :3].cpu().contiguous().numpy().tobytes()


def _kept(image: Image.Image, kind: str) -> bytes | None:
    """The image as a file, where the file holds all that an encoder could look at."""
    out = io.BytesIO()
    plain = image.copy()
    plain.info = {key: value for key, value in image.info.items() if key == "transparency"}
    try:
        plain.save(out, kind, **({"compress_level": 1} if kind == "PNG" else {}))
        with Image.open(io.BytesIO(out.getvalue()), formats=[kind]) as again:
            again.load()
            same = (
                again.mode == plain.mode
                and again.tobytes() == plain.tobytes()
                and (again.getpalette() or []) == (plain.getpalette() or [])
                and again.info.get("transparency") == plain.info.get("transparency")
            )
    except (OSError, ValueError, KeyError, TypeError):  # a mode that the format has no place for
        return None
    return out.getvalue() if same else None


def scores_out(batch: ScoreBatch) -> dict[str, Any]:
    """A batch as plain data."""

    def column(values: torch.Tensor) -> list[float | None]:
        return [None if math.isnan(value) else value for value in values.tolist()]

    return {
        "total": column(batch.total),
        "terms": {name: column(values) for name, values in batch.terms.items()},
        "similarity": {name: column(values) for name, values in batch.similarity.items()},
        "reasons": list(batch.reasons),
        "errors": list(batch.errors),
        "timings": batch.timings,
    }


def scores_in(values: Mapping[str, Any], count: int) -> ScoreBatch:
    """The batch of `count` rows that `scores_out` wrote.

    Raises:
        ValueError: it is none.
    """

    def column(numbers: Sequence[float | None]) -> torch.Tensor:
        if len(numbers) != count:
            raise ValueError(f"the server answered {len(numbers)} numbers for {count} rows")
        return torch.tensor([math.nan if n is None else n for n in numbers], dtype=torch.float32, device="cpu")

    try:
        return ScoreBatch(
            total=column(values["total"]),
            terms={name: column(numbers) for name, numbers in values["terms"].items()},
            similarity={name: column(numbers) for name, numbers in values["similarity"].items()},
            reasons=tuple(values["reasons"]),
            timings=dict(values["timings"]),
            errors=tuple(values["errors"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the server's answer is no scores: {type(error).__name__}: {error}") from None
