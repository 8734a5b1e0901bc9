"""The types that travel through the pipeline: `Target`, `Sample`, `Completion`, `ScoreBatch`.

Boxes are (x1, y1, x2, y2) and points (x, y), in pixels of the image that the ground truth belongs to; image sizes are
(width, height), as in Pillow. Arrays of masks are [height, width].
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dpad_fast import _target as fields

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from dpad_fast._row_columns import Columns

Box: TypeAlias = tuple[float, float, float, float]
Point: TypeAlias = tuple[float, float]
Size: TypeAlias = tuple[int, int]
BoolMask: TypeAlias = npt.NDArray[np.bool_]
Ring: TypeAlias = npt.NDArray[np.float64]
ImageLike: TypeAlias = (
    "Image.Image | str | os.PathLike[str] | bytes | Mapping[str, Any] | npt.NDArray[np.uint8] | torch.Tensor"
)


@dataclass(frozen=True, eq=False)
class Target:
    """Ground truth of one sample. Every field may be absent; a reward term that needs one says so when it is missing.

    Attributes:
        box: (x1, y1, x2, y2) in pixels of the image that the ground truth lives in.
        points: two (x, y) points inside the object.
        image_size: (width, height) of that image; where it is not given, the size of `mask` or `ignore`.
        mask: bool [H, W], the object's pixels. Given as an array, tensor or list of booleans or of 0 and 1, or as a
            picture of mode "1" or "L" whose pixels are 0 and one of 1 and 255; anything else is refused.
        polygons: rings of the object, each float [n, 2] of (x, y).
        ignore: bool [H, W], pixels that count neither for nor against; given as `mask` is.
        objects: ((box, point), ...), the multi-object form of the `vision-reasoner` preset.
        other_boxes: boxes of the other objects in the image, for `contrast="hardest"`.
        text: the raw solution string; the `dpad-released` preset reads it rather than the fields where it is not empty.
        box_format: what the four numbers of `box`, `objects` and `other_boxes` are as given: "xyxy", "xywh" (corner and
            size, as in COCO) or "cxcywh" (centre and size). The fields hold "xyxy" afterwards.

    Raises:
        ValueError: a field that is not as above, or fields that contradict each other; names the field and its value.
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
    box_format: InitVar[str] = "xyxy"

    def __post_init__(self, box_format: str) -> None:
        if box_format not in fields.BOX_FORMATS:
            raise ValueError(f"box_format must be one of {', '.join(fields.BOX_FORMATS)}, got {box_format!r}")
        if not isinstance(self.text, str):
            raise ValueError(f"text must be a string, got {fields.short(self.text)}")
        read: dict[str, Any] = {"objects": fields.objects(self.objects, box_format)}
        if self.box is not None:
            # Corners in the wrong order are refused by the scorer, which can name the row.
            read["box"] = fields.corners(self.box, box_format, "box")
        if self.points is not None:
            points = fields.entries(self.points, "points", "two (x, y) points")
            if len(points) != 2:
                raise ValueError(f"points must hold two (x, y) points, got {len(points)}")
            read["points"] = tuple(fields.numbers(point, 2, f"points[{i}]") for i, point in enumerate(points))
        read["other_boxes"] = tuple(
            fields.ordered(fields.corners(box, box_format, f"other_boxes[{i}]"), f"other_boxes[{i}]")
            for i, box in enumerate(fields.entries(self.other_boxes, "other_boxes", "boxes"))
        )
        masks = {name: getattr(self, name) for name in ("mask", "ignore")}
        masks = {name: None if value is None else fields.mask(value, name) for name, value in masks.items()}
        polygons = None if self.polygons is None else fields.rings(self.polygons)
        size = None if self.image_size is None else fields.size(self.image_size)
        read.update(masks, polygons=polygons, image_size=fields.check_sizes(size, masks, polygons))
        for name, value in read.items():
            object.__setattr__(self, name, value)

    @classmethod
    def parse(cls, text: str, image_size: Size | None = None, box_format: str = "xyxy") -> Target:
        """Reads a solution string.

        Args:
            text: one `<box>(x1,y1),(x2,y2)</box>`, one `<points>(x,y),(x,y)</points>` or both (the authors' format), or
                a JSON list of `{"bbox_2d": [4], "point_2d": [2]}` (the `vision-reasoner` form).
            image_size: (width, height) of the image that these coordinates live in.
            box_format: what the four numbers of a box are, as in `Target`; the authors' are "xyxy". Under another the
                target's `text` stays empty.

        Raises:
            ValueError: `text` holds neither a box, points, nor a JSON list of objects; several `<box>` or `<points>`;
                one that cannot be read; an empty list.
        """
        plain = image_size is None or (type(image_size) is tuple and set(map(type, image_size)) == {int})
        plain = plain and type(text) is str and len(text) <= _SHORT
        if plain and type(box_format) is str:  # what else there is may have no hash
            return _parsed(cls, text, image_size, box_format)  # type: ignore[arg-type]
        return cls(**fields.read_solution(text, box_format), image_size=image_size, box_format=box_format)

    @classmethod
    def from_row(cls, row: Any, columns: Columns | None = None, image_size: Size | None = None) -> Target:
        """Reads the ground truth of any trainer's or data set's row.

        Args:
            row: a mapping, a `datasets` row, a data frame's row or a named tuple. Values may be Python's, NumPy's,
                pandas' or Arrow's, or text of a CSV cell; None, NaN and empty text are missing.
            columns: what its columns are called. None: told from well-known names (`Columns.guess`).
            image_size: (width, height) of the image that the coordinates live in. None: the columns width and height,
                else a PIL image in the row; other pictures are opened where nothing else says it and it is needed.

        Returns:
            The target, in pixels. Where there is a mask, or else polygons (drawn as COCO draws them), and no list of
            objects, a missing box and missing points are derived: the mask's box, x2 and y2 one past the last pixel,
            and the centres of two large inscribed circles; None for an empty mask. `text` is the solution's text where
            its digits are corners in pixels.

        Raises:
            ValueError: no ground truth is found (says what was looked for and what the row has), two columns may be
                meant, columns contradict each other, a size is needed and not known, or a value cannot be read; names
                the field and the value.
        """
        from dpad_fast._row_target import read_row

        return cls(**read_row(row, columns, image_size))


_SHORT = 2048  # characters of a solution that is kept; thousands of longer ones would add up


@lru_cache(maxsize=4096)
def _parsed(cls: type[Target], text: str, image_size: Size | None, box_format: str) -> Target:
    """A group's completions share a solution, and a target of text alone cannot be changed."""
    return cls(**fields.read_solution(text, box_format), image_size=image_size, box_format=box_format)


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture with its question and ground truth.

    Attributes:
        id: unique within its data set.
        image: anything that `RewardScorer.score` takes as an image; loaders yield a PIL image, a path, or the
            {"bytes", "path"} of `datasets`, undecoded.
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
        points: the answer's points, two where the form asks for them, or None.
        rings: the answer's polygon rings, each float [n, 2], or None.
        objects: ((box or None, point or None), ...) of the multi-object form, or None where there is no list.
        caption: the description, stripped, or None where there is no caption.
        fields_ok: every required field is there in the required form.
        reasons: reason codes in the order found; empty where all is well.
        labels: one per point, 1 on the object and 0 off it, where the form has such; None: all are on it.
    """

    text: str
    tags_ok: bool = False
    box: tuple[Any, ...] | None = None
    points: tuple[Any, ...] | None = None
    rings: tuple[Ring, ...] | None = None
    objects: tuple[tuple[tuple[Any, ...] | None, tuple[Any, ...] | None], ...] | None = None
    caption: str | None = None
    fields_ok: bool = False
    reasons: tuple[str, ...] = ()
    labels: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class ScoreBatch:
    """The scores of N completions.

    Numbers are finite, but for `similarity` (NaN where nothing was compared) and for rows that `on_error="row"` left
    unscored: NaN in every column.

    Attributes:
        total: float32 [N], the weighted sum of the terms.
        terms: one float32 [N] per term, unweighted, in the order of the configuration.
        similarity: "roi" (S1) and "aoi" (S2), float32 [N]; NaN where there was nothing to compare.
        reasons: N short codes, None where nothing is wrong with the completion and no term is zero.
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
