"""`Columns`: the names of a row's columns, given by the user or guessed from well-known names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from dpad_fast._row_values import as_mapping, has, look, missing
from dpad_fast._target import BOX_FORMATS

SPACES = ("pixel", "0-1000", "0-1")
TRUTH = ("solution", "objects", "box", "mask", "polygons", "points")
"""Columns of which a row needs one to have a ground truth."""

_CORNERS = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"))
# `bbox` alone is not among the corners: COCO's is a corner and a size, others' two corners.
_FORMATS = {
    "box": "xyxy",
    "bbox_2d": "xyxy",
    "box_xyxy": "xyxy",
    "bbox_xyxy": "xyxy",
    "box_xywh": "xywh",
    "bbox_xywh": "xywh",
    "box_cxcywh": "cxcywh",
    "bbox_cxcywh": "cxcywh",
}
_COCO = ("segmentation", "iscrowd")
KNOWN: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "images", "image_path", "img_path", "picture", "file_name", "multi_modal_data"),
    "query": ("query", "problem", "question", "sentence", "expression"),
    "id": ("id", "sample_id"),
    "box": (*_FORMATS, "bbox"),
    "points": ("points", "points_2d"),
    "mask": ("mask", "mask_path", "rle"),
    "polygons": ("polygons", "polygon", "segmentation"),
    "objects": ("objects",),
    "solution": ("solution", "ground_truth", "reward_model.ground_truth", "extra_info.solution", "label"),
    "width": ("width", "img_width", "image_width"),
    "height": ("height", "img_height", "image_height"),
    "ignore": ("ignore", "ignore_mask"),
    "other_boxes": ("other_boxes",),
}
"""The names that `Columns.guess` knows. A name with a dot is a column, or else a key of a dictionary in one."""


@dataclass(frozen=True)
class Columns:
    """Names of a row's columns; None where there is none. `outer.inner` is a key of a dictionary in a column.

    Attributes:
        image: the picture, as anything that `images_from` reads.
        query: the question.
        id: unique within the data set.
        box: four numbers; or the names of four columns, such as ("x1", "y1", "x2", "y2").
        box_format: what the four numbers of a box are: "xyxy", "xywh" (corner and size) or "cxcywh".
        space: what coordinates are in: "pixel", "0-1000" or "0-1" of the picture's width and height.
        points: two (x, y).
        mask: the object's pixels: path of a PNG, its bytes, a PIL picture, an array, COCO's run lengths or their JSON.
        polygons: rings of (x, y), COCO's flat lists of x, y, x, y, or one ring.
        objects: the multi-object form: {"bbox_2d", "point_2d"} dictionaries, (box, point) pairs, or their JSON. Or
            ms-swift's {"ref", "bbox", "bbox_type", "image_id"}: one box, one with two points, or a point for each box.
        solution: text in the authors' format, or the JSON list of objects.
        width: width in pixels of the picture that coordinates belong to; goes with `height`.
        height: its height.
        ignore: pixels that count neither for nor against, as `mask`.
        other_boxes: boxes of the other objects in the picture.

    Raises:
        ValueError: a name is no text, or `box_format` or `space` is unknown.
    """

    image: str | None = None
    query: str | None = None
    id: str | None = None
    box: str | Sequence[str] | None = None
    box_format: str = "xyxy"
    space: str = "pixel"
    points: str | None = None
    mask: str | None = None
    polygons: str | None = None
    objects: str | None = None
    solution: str | None = None
    width: str | None = None
    height: str | None = None
    ignore: str | None = None
    other_boxes: str | None = None

    def __post_init__(self) -> None:
        if self.box_format not in BOX_FORMATS:
            raise ValueError(f"box_format must be one of {', '.join(BOX_FORMATS)}, got {self.box_format!r:.80}")
        if self.space not in SPACES:
            raise ValueError(f"space must be one of {', '.join(SPACES)}, got {self.space!r:.80}")
        if self.box is not None and not isinstance(self.box, str):
            names = tuple(self.box)
            if len(names) != 4 or not all(isinstance(name, str) for name in names):
                raise ValueError(f"columns.box must be a column's name or four of them, got {self.box!r:.80}")
            object.__setattr__(self, "box", names)
        for field in fields(self):
            name = getattr(self, field.name)
            if name is not None and not isinstance(name, str) and field.name != "box":
                raise ValueError(f"columns.{field.name} must be a column's name, got {name!r:.80}")

    @classmethod
    def guess(cls, row: Any) -> Columns:
        """Tells the columns of a row from well-known names.

        Args:
            row: a mapping, a `datasets` row, a data frame's row or a named tuple.

        Returns:
            The columns; None where there is none, or where this row has no value.

        Raises:
            ValueError: two columns may be meant, or `bbox` that may be corners or COCO's corner and size; says which.
        """
        row = as_mapping(row)
        found: dict[str, Any] = {}
        sure, open_ = _candidates(tuple(row))
        for role, names in open_:
            there = [name for name in names if not missing(look(row, name))]
            if role == "image" or (role == "solution" and len({_said(look(row, name)) for name in there}) == 1):
                there = there[:1]  # the first one counts: `images` beside `image`, a truth that is written twice
            if len(there) > 1:
                raise ValueError(
                    f"row has {' and '.join(map(repr, there))}, which may both be the {role}: say which, as "
                    f"Columns({role}={there[0]!r})"
                )
            found[role] = there[0] if there else None
        return _settled(sure, tuple(found.items()), tuple(row)) if found else _settled(sure, (), tuple(row))

    @staticmethod
    def taken(columns: Any) -> Columns | None:
        """What was given as `columns`, where it is `Columns` or None.

        Raises:
            ValueError: it is anything else, such as a dictionary; shows how to write it.
        """
        if columns is None or isinstance(columns, Columns):
            return columns
        raise ValueError(f"columns must be Columns, such as Columns(box='bbox'), or None, got {columns!r:.80}")

    def check(self, row: Mapping[str, Any]) -> None:
        """Raises a `ValueError` where a row has no column of a name that was given."""
        for field in fields(self):
            if field.name in ("box_format", "space"):
                continue
            value = getattr(self, field.name)
            for name in (value,) if isinstance(value, str) else value or ():
                if not has(row, name):
                    raise ValueError(f"row has no column {name!r:.80} (columns.{field.name}); it has {listed(row)}")


def _said(value: Any) -> str:
    """What two equal truths have in common; NumPy's texts, which verl makes of a column, have another `repr`."""
    return str(value) if isinstance(value, str) else repr(value)


@lru_cache(maxsize=256)
def _candidates(
    keys: tuple[str, ...],
) -> tuple[tuple[tuple[str, Any], ...], tuple[tuple[str, tuple[str, ...]], ...]]:
    """Of a row's names: the columns of which there is one, and those of which the row's values must decide."""
    there = dict.fromkeys(keys)
    sure: list[tuple[str, Any]] = []
    open_: list[tuple[str, tuple[str, ...]]] = []
    for role, names in KNOWN.items():
        present = tuple(name for name in names if has(there, name))
        if len(present) > 1 or (present and "." in present[0]):
            open_.append((role, present))
        elif present:
            sure.append((role, present[0]))
    corners = next((names for names in _CORNERS if all(name in there for name in names)), None)
    if corners and not any(role == "box" for role, _ in (*sure, *open_)):
        sure.append(("box", corners))
    return tuple(sure), tuple(open_)


@lru_cache(maxsize=256)
def _settled(sure: tuple[tuple[str, Any], ...], found: tuple[tuple[str, Any], ...], keys: tuple[str, ...]) -> Columns:
    roles = dict(sure) | dict(found)
    box = roles.get("box")
    if box == "bbox" and not any(name in keys for name in _COCO):
        raise ValueError(
            "row has 'bbox', which may be two corners or COCO's corner and size: say which, as "
            "Columns(box='bbox', box_format='xywh')"
        )
    roles["box_format"] = "xywh" if box == "bbox" else _FORMATS.get(box, "xyxy") if isinstance(box, str) else "xyxy"
    return Columns(**roles)


def nothing_found(row: Mapping[str, Any]) -> ValueError:
    """The error for a row without a ground truth under any known name."""
    looked = "; ".join(f"{role}: {', '.join(KNOWN[role])}" for role in TRUTH)
    return ValueError(
        f"row has no ground truth under a known name ({looked}); it has {listed(row)}. Name its columns, as "
        "Columns(box='my_box')"
    )


def listed(row: Mapping[str, Any]) -> str:
    """The names that a row has, for messages."""
    names = ", ".join(f"{name!r:.60}" for name in list(row)[:40])
    return (names + ", ..." if len(row) > 40 else names) or "no column"
