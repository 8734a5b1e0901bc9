"""The types that travel through the pipeline: `Target`, `Sample`, `Completion`, `ScoreBatch`.

Boxes are (x1, y1, x2, y2) and points (x, y), in pixels of the image that the ground truth belongs to; image sizes are
(width, height), as in Pillow. Arrays of masks are [height, width].
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from PIL import Image

Box: TypeAlias = tuple[float, float, float, float]
Point: TypeAlias = tuple[float, float]
Size: TypeAlias = tuple[int, int]
BoolMask: TypeAlias = npt.NDArray[np.bool_]
Ring: TypeAlias = npt.NDArray[np.float64]
ImageLike: TypeAlias = (
    "Image.Image | str | os.PathLike[str] | bytes | Mapping[str, Any] | npt.NDArray[np.uint8] | torch.Tensor"
)

_NUMBER = r"\s*([+-]?\d+(?:\.\d+)?)\s*"
_PAIRS = r"\(" + _NUMBER + "," + _NUMBER + r"\)\s*,\s*\(" + _NUMBER + "," + _NUMBER + r"\)"
_BOX = re.compile("<box>" + _PAIRS + "</box>")
_POINTS = re.compile("<points>" + _PAIRS + "</points>")


@dataclass(frozen=True, eq=False)
class Target:
    """Ground truth of one sample. Every field may be absent; a reward term that needs one says so when it is missing.

    Attributes:
        box: (x1, y1, x2, y2) in pixels of the image that the ground truth lives in.
        points: two (x, y) points inside the object.
        image_size: (width, height) of that image.
        mask: bool [H, W], the object's pixels.
        polygons: rings of the object, each float [n, 2] of (x, y).
        ignore: bool [H, W], pixels that count neither for nor against.
        objects: ((box, point), ...), the multi-object form of the `vision-reasoner` preset.
        other_boxes: boxes of the other objects in the image, for `contrast="hardest"`.
        text: the raw solution string; the `dpad-released` preset reads it rather than the fields where it is not empty.
    """

    box: Box | None = None
    points: tuple[Point, Point] | None = None
    image_size: Size | None = None
    mask: BoolMask | None = None
    polygons: tuple[Ring, ...] | None = None
    ignore: BoolMask | None = None
    objects: tuple[tuple[Box, Point], ...] = ()
    other_boxes: tuple[Box, ...] = ()
    text: str = ""

    def __post_init__(self) -> None:
        if self.box is not None:
            object.__setattr__(self, "box", _numbers(self.box, 4, "box"))
        if self.points is not None:
            if len(self.points) != 2:
                raise ValueError(f"points must hold two (x, y) points, got {len(self.points)}")
            object.__setattr__(self, "points", tuple(_numbers(p, 2, f"points[{i}]") for i, p in enumerate(self.points)))
        if self.image_size is not None:
            object.__setattr__(self, "image_size", _size(self.image_size))
        objects = tuple(
            (_numbers(box, 4, f"objects[{i}].box"), _numbers(point, 2, f"objects[{i}].point"))
            for i, (box, point) in enumerate(self.objects)
        )
        object.__setattr__(self, "objects", objects)
        others = tuple(_numbers(box, 4, f"other_boxes[{i}]") for i, box in enumerate(self.other_boxes))
        object.__setattr__(self, "other_boxes", others)
        for name in ("mask", "ignore"):
            value = getattr(self, name)
            if value is not None and np.ndim(value) != 2:
                raise ValueError(f"{name} must be [height, width], got {np.ndim(value)} dimensions")

    @classmethod
    def parse(cls, text: str, image_size: Size | None = None) -> Target:
        """Reads a solution string.

        Args:
            text: `<box>(x1,y1),(x2,y2)</box>` with optional `<points>(x,y),(x,y)</points>` (the authors' format), or a
                JSON list of `{"bbox_2d": [4], "point_2d": [2]}` (the `vision-reasoner` form).
            image_size: (width, height) of the image that these coordinates live in.

        Raises:
            ValueError: `text` holds neither a box, points, nor a JSON list of objects.
        """
        if not isinstance(text, str):
            raise ValueError(f"text must be a string, got {type(text).__name__}")
        box = _BOX.search(text)
        points = _POINTS.search(text)
        if box is None and points is None:
            if not text.lstrip().startswith("["):
                raise ValueError(f"text holds no <box>, no <points> and no JSON list of objects: {_short(text)}")
            return cls(objects=_objects(text), image_size=image_size, text=text)
        pair = None
        if points is not None:
            x1, y1, x2, y2 = (float(value) for value in points.groups())
            pair = ((x1, y1), (x2, y2))
        found = None if box is None else tuple(float(value) for value in box.groups())
        return cls(box=found, points=pair, image_size=image_size, text=text)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture with its question and ground truth.

    Attributes:
        id: unique within its data set.
        image: anything that `RewardScorer.score` takes as an image; loaders yield a PIL image or a path.
        query: the question.
        target: the ground truth, in pixels of `image`.
    """

    id: str
    image: ImageLike
    query: str
    target: Target


@dataclass(frozen=True, eq=False)
class Completion:
    """One model answer and what parsing found in it, in the answer's own coordinates.

    Attributes:
        text: the completion as given.
        tags_ok: the tags stand as the preset asks.
        box: the answer's box, or None.
        points: the answer's two points, or None.
        rings: the answer's polygon rings, each float [n, 2], or None.
        objects: ((box or None, point or None), ...) of the multi-object form, or None where there is no list.
        caption: the description, stripped, or None where there is no caption.
        fields_ok: every required field is there in the required form.
        reasons: reason codes in the order found; empty where all is well.
    """

    text: str
    tags_ok: bool = False
    box: tuple[Any, ...] | None = None
    points: tuple[Any, Any] | None = None
    rings: tuple[Ring, ...] | None = None
    objects: tuple[tuple[tuple[Any, ...] | None, tuple[Any, ...] | None], ...] | None = None
    caption: str | None = None
    fields_ok: bool = False
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ScoreBatch:
    """The scores of N completions.

    Numbers are finite, but for `similarity` (NaN where nothing was compared) and for rows that `on_error="row"` left
    unscored: NaN in every column.

    Attributes:
        total: float32 [N], the weighted sum of the terms.
        terms: one float32 [N] per term, unweighted, in the order of the configuration.
        similarity: "roi" (S1) and "aoi" (S2), float32 [N]; NaN where there was nothing to compare.
        reasons: N short codes, None where all is well.
        timings: seconds per stage of the call that made this batch.
        errors: N messages, None where a row was scored; empty where nobody asked for them.
    """

    total: torch.Tensor
    terms: dict[str, torch.Tensor]
    similarity: dict[str, torch.Tensor]
    reasons: tuple[str | None, ...]
    timings: dict[str, float] = field(default_factory=dict)
    errors: tuple[str | None, ...] = ()

    def __len__(self) -> int:
        return len(self.reasons)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yields one plain dictionary per completion: total, every term and similarity (None for NaN), reason.

        A row that was left unscored has an `error` too.
        """
        columns = {name: column.tolist() for name, column in self.terms.items()}
        similarity = {name: column.tolist() for name, column in self.similarity.items()}
        for i, total in enumerate(self.total.tolist()):
            row = {
                "total": _or_none(total),
                "terms": {name: _or_none(column[i]) for name, column in columns.items()},
                "similarity": {name: _or_none(column[i]) for name, column in similarity.items()},
                "reason": self.reasons[i],
            }
            if self.errors and self.errors[i] is not None:
                row["error"] = self.errors[i]
            yield row


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _numbers(value: Any, count: int, name: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(item) for item in value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must hold {count} numbers, got {_short(value)}") from None
    if len(numbers) != count or not all(math.isfinite(item) for item in numbers):
        raise ValueError(f"{name} must hold {count} finite numbers, got {_short(value)}")
    return numbers


def _size(value: Any) -> Size:
    width, height = _numbers(value, 2, "image_size")
    if width < 1 or height < 1 or width != int(width) or height != int(height):
        raise ValueError(f"image_size must be (width, height) in whole pixels, got {_short(value)}")
    return int(width), int(height)


def _objects(text: str) -> tuple[tuple[Box, Point], ...]:
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"text looks like a JSON list of objects but is not valid JSON: {_short(text)}") from None
    for i, item in enumerate(items):
        if not isinstance(item, dict) or "bbox_2d" not in item or "point_2d" not in item:
            raise ValueError(f"objects[{i}] must have bbox_2d and point_2d, got {_short(item)}")
    return tuple((item["bbox_2d"], item["point_2d"]) for item in items)


def _short(value: object, limit: int = 80) -> str:
    shown = repr(value[:limit] if isinstance(value, str) else value)
    return shown if len(shown) <= limit + 20 else shown[:limit] + "..."
