"""COCO annotation files: their pictures and annotations by id, and the targets that annotations make.

Masks are drawn by COCO's rule (`dpad_fast.coco_mask`) when a sample is made, never for the whole file. The file is
parsed at once; outlines are packed into float64 arrays while that happens, so that it takes 3.0 to 3.3 times the file's
size in memory at the peak (`python -m bench.data`), and less afterwards.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

from dpad_fast._mask_geometry import box_of, inscribed_points
from dpad_fast._target import short
from dpad_fast.data.deferred import Deferred
from dpad_fast.data.picture_files import PictureFolder
from dpad_fast.data.segmentations import mask_of, read_json, rings_of, union_of
from dpad_fast.types import BoolMask, Box, Point, Ring, Sample, Size, Target

Id: TypeAlias = "int | str"
OnError: TypeAlias = "Callable[[str], None] | None"
T = TypeVar("T")
POINTS_KEY = "dpad_points"
"""Our own, optional key of an annotation: two (x, y) points inside; without it they are derived from the mask."""


@dataclass(slots=True, eq=False)
class Annotation:
    """One entry of `annotations`, checked but for its segmentation.

    Attributes:
        id: unique in the file.
        picture: the picture's id.
        where: what messages call it.
        segmentation: as in the file; outlines as arrays.
        box: (x1, y1, x2, y2), None where the file has none.
        crowd: `iscrowd`.
        ignored: `ignore`.
        entry: the whole entry.
    """

    id: Id
    picture: Id
    where: str
    segmentation: Any
    box: Box | None
    crowd: bool
    ignored: bool
    entry: dict[str, Any]

    @property
    def is_other(self) -> bool:
        """Whether its box is one that a description may be confused with: one object, of some area."""
        return not (self.crowd or self.ignored) and self.box is not None and _has_area(self.box)


@dataclass(slots=True, eq=False)
class ImageEntry:
    """One entry of `images`; `path` once it was found."""

    id: Id
    name: str
    size: Size | None
    where: str
    split: Any = None
    caption: Any = None
    path: str | None = None
    annotations: list[Annotation] = field(default_factory=list)


class CocoFile:
    """The pictures and annotations of a COCO file.

    An annotation with `ignore` is no object: its pixels count neither for nor against (`Target.ignore`) in every sample
    of its picture. One with `iscrowd` covers a group: it is a target where an expression names it, and else nothing.

    Args:
        file: the JSON.
        images: folder of the pictures; None: looked for near the file.
        on_error: gets a message for every entry that is not as it should be, which is then left out; None: raise.

    Raises:
        ValueError: the file is no COCO JSON; without `on_error` also a picture or an annotation that is malformed.
    """

    def __init__(self, file: Path, images: Any, on_error: OnError) -> None:
        self.file = file
        self._folder = PictureFolder(file.parent, images)
        content = read_json(file)
        if not isinstance(content, dict):
            raise ValueError(f"{file}: expected an object with images and annotations, got {type(content).__name__}")
        pictures, annotations = (_list_of(content, name, file) for name in ("images", "annotations"))
        self.pictures: dict[Id, ImageEntry] = {}
        self.annotations: dict[Id, Annotation] = {}
        for i, entry in enumerate(pictures):
            attempt(on_error, self._add_picture, entry, f"{file}: images[{i}]")
        for i, entry in enumerate(annotations):
            attempt(on_error, self._add, entry, f"{file}: annotations[{i}]")

    def _add_picture(self, entry: Any, where: str) -> None:
        number = _id(entry, "id", where)
        where = f"{where} (id {number})"
        name = entry.get("file_name")
        if not isinstance(name, str) or not name or "\0" in name:
            raise ValueError(f"{where}: file_name must be the name of a file, got {short(name)}")
        if number in self.pictures:
            raise ValueError(f"{where}: its id is that of another picture")
        self.pictures[number] = ImageEntry(
            number, name, _size(entry, where), where, entry.get("split"), entry.get("caption")
        )

    def _add(self, entry: Any, where: str) -> None:
        number = _id(entry, "id", where)
        where = f"{where} (id {number})"
        picture = _id(entry, "image_id", where)
        if number in self.annotations:
            raise ValueError(f"{where}: its id is that of another annotation")
        if picture not in self.pictures:
            raise ValueError(f"{where}: image_id {picture!r} is none of the file's images")
        box = None if entry.get("bbox") is None else corners_of(entry["bbox"], f"{where}: bbox")
        flags = (_flag(entry, "iscrowd", where), _flag(entry, "ignore", where))
        found = Annotation(number, picture, where, entry.get("segmentation"), box, *flags, entry)
        self.annotations[number] = found
        self.pictures[picture].annotations.append(found)

    def picture(self, number: Id) -> tuple[str, Size]:
        """The path and (width, height) of a picture; found, and its size compared with the file's, on first use.

        Raises:
            ValueError: it is not there, cannot be opened, or has another size.
        """
        picture = self.pictures[number]
        if picture.path is None:
            path = self._folder.find(picture.name, picture.where)
            size = self._folder.size(path)
            if picture.size is not None and picture.size != size:
                said, is_ = (f"{width} x {height}" for width, height in (picture.size, size))
                raise ValueError(f"{picture.where}: width x height is {said}, but the picture {path} is {is_}")
            picture.path, picture.size = path, size
        assert picture.size is not None
        return picture.path, picture.size

    def target(self, wanted: Sequence[Annotation], number: Id, *, listed: bool = False) -> Target:
        """The ground truth of some annotations of a picture together; of none, an empty mask without a box.

        Args:
            wanted: the annotations.
            number: the picture's id.
            listed: whether the target's `objects` list them one by one, each with its box and a point.

        Raises:
            ValueError: a segmentation is malformed, or a box has no area; names the annotation.
        """
        return self.recipe(wanted, number, listed=listed).target()

    def recipe(self, wanted: Sequence[Annotation], number: Id, *, listed: bool = False) -> TargetRecipe:
        """What `target` makes of these, to be made later; the masks are not drawn yet.

        Raises:
            ValueError: the picture is not there, cannot be opened, or has another size.
        """
        size = self.picture(number)[1]
        picked = {id(item) for item in wanted}
        picture = self.pictures[number]
        rest = [item for item in picture.annotations if id(item) not in picked]
        return TargetRecipe(
            wanted=tuple(wanted),
            size=size,
            where=wanted[0].where if wanted else picture.where,
            listed=listed,
            ignored=tuple(item for item in rest if item.ignored and item.segmentation),
            others=tuple(item.box for item in rest if item.box is not None and item.is_other),
        )


@dataclass(frozen=True, eq=False)
class TargetRecipe:
    """The annotations that make a target, and what else of their picture it says. It can be pickled.

    Attributes:
        wanted: those that are the target together.
        size: (width, height) of the picture.
        where: what messages call it.
        listed: whether `objects` list them one by one.
        ignored: those whose pixels count neither for nor against.
        others: boxes of the picture's other objects.
    """

    wanted: tuple[Annotation, ...]
    size: Size
    where: str
    listed: bool
    ignored: tuple[Annotation, ...]
    others: tuple[Box, ...]

    def target(self, *, points: bool = True) -> Target:
        """Draw the masks.

        Args:
            points: False leaves out points that would have to be derived from a mask.

        Raises:
            ValueError: a segmentation is malformed, or a box has no area; names the annotation.
        """
        wanted, size = self.wanted, self.size
        masks = [mask_of(item.segmentation, size, f"{item.where}: segmentation") for item in wanted]
        boxes = [_box(item, mask) for item, mask in zip(wanted, masks, strict=True)]
        mask = union_of(masks, size)
        derive = points or self.listed  # an object of several is its box and a point
        pairs = [_points(item, mask if derive else None) for item, mask in zip(wanted, masks, strict=True)]
        ignore = [mask_of(item.segmentation, size, f"{item.where}: segmentation") for item in self.ignored]
        try:
            return Target(
                box=around(boxes),
                points=pairs[0] if len(wanted) == 1 else _inside(mask if points else None),
                image_size=size,
                mask=mask,
                polygons=_all_rings(wanted),
                ignore=union_of(ignore, size) if self.ignored else None,
                objects=_objects(wanted, boxes, pairs) if self.listed else (),
                other_boxes=self.others,
            )
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}") from None


class Described(NamedTuple):
    """A sample whose target is not drawn yet."""

    id: str
    path: str
    query: str
    recipe: TargetRecipe

    def sample(self, *, points: bool = True) -> Sample:
        """Draw it; see `TargetRecipe.target`."""
        return Sample(self.id, self.path, self.query, self.recipe.target(points=points))


def draw_all(groups: Iterable[Sequence[Described]], on_error: OnError) -> Iterator[Sample]:
    """The samples; those of a group have one recipe, and share its target."""
    for group in groups:
        target = attempt(on_error, group[0].recipe.target) if group else None
        if target is not None:
            yield from (Sample(one.id, one.path, one.query, target) for one in group)


def defer_all(groups: Iterable[Sequence[Described]], points: bool) -> Iterator[Deferred]:
    """The same, to be drawn later."""
    for one in itertools.chain.from_iterable(groups):
        yield Deferred(one.id, partial(one.sample, points=points))


def refuse(message: str, on_error: OnError) -> None:
    """Raises a ValueError, or hands its message to `on_error` where there is one."""
    if on_error is None:
        raise ValueError(message) from None
    on_error(message)


def attempt(on_error: OnError, step: Callable[..., T], *arguments: Any) -> T | None:
    """What a step returns; None where it raised a ValueError, whose message `on_error` got."""
    try:
        return step(*arguments)
    except ValueError as error:
        refuse(str(error), on_error)
        return None


def corners_of(box: Any, where: str) -> Box:
    """COCO's [x, y, width, height] as (x1, y1, x2, y2); sides may be 0, but not below.

    Raises:
        ValueError: it is not four finite numbers; begins with `where`.
    """
    good = isinstance(box, list) and len(box) == 4 and all(type(v) is float or type(v) is int for v in box)
    if not good or not all(abs(v) < 1e15 for v in box) or box[2] < 0 or box[3] < 0:
        raise ValueError(f"{where} must be [x, y, width, height] in pixels, got {short(box)}")
    x, y, width, height = box
    return float(x), float(y), float(x + width), float(y + height)


def _list_of(content: dict[str, Any], name: str, file: Path) -> list[Any]:
    found = content.get(name)
    if not isinstance(found, list):
        raise ValueError(f"{file}: {name} must be a list, got {short(found)}")
    return found


def _id(entry: Any, name: str, where: str) -> Id:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be an object, got {short(entry)}")
    found = entry.get(name)
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise ValueError(f"{where}: {name} must be a whole number or a string, got {short(found)}")
    return found


def _size(entry: dict[str, Any], where: str) -> Size | None:
    width, height = entry.get("width"), entry.get("height")
    if width is None and height is None:
        return None
    for name, side in (("width", width), ("height", height)):
        if not (type(side) is int or (type(side) is float and math.isfinite(side) and side == int(side))) or side < 1:
            raise ValueError(f"{where}: {name} must be a number of pixels, got {short(side)}")
    return int(width or 0), int(height or 0)


def _flag(entry: dict[str, Any], name: str, where: str) -> bool:
    value = entry.get(name, 0)
    if value not in (0, 1, None):
        raise ValueError(f"{where}: {name} must be 0 or 1, got {short(value)}")
    return bool(value)


def _has_area(box: Box) -> bool:
    return box[0] < box[2] and box[1] < box[3]


def _box(item: Annotation, mask: BoolMask | None) -> Box | None:
    if item.box is None:
        return None if mask is None else box_of(mask)
    if not _has_area(item.box):
        raise ValueError(f"{item.where}: bbox has no area: {short(item.entry.get('bbox'))}")
    return item.box


def around(boxes: Sequence[Box | None]) -> Box | None:
    """The smallest box around all that are not None."""
    found = [box for box in boxes if box is not None]
    if len(found) < 2:
        return found[0] if found else None
    x1, y1, x2, y2 = zip(*found, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def _inside(mask: BoolMask | None) -> tuple[Point, Point] | None:
    return None if mask is None else inscribed_points(mask)


def _points(item: Annotation, mask: BoolMask | None) -> tuple[Point, Point] | None:
    return points_of(item.entry, item.where) or _inside(mask)


def points_of(entry: dict[str, Any], where: str) -> tuple[Point, Point] | None:
    """The two points that an entry brings along, None where it has none.

    Raises:
        ValueError: it has something else under `POINTS_KEY`.
    """
    given = entry.get(POINTS_KEY)
    if given is None:
        return None
    flat = [v for pair in given if isinstance(pair, list) for v in pair] if isinstance(given, list) else []
    if (
        not isinstance(given, list)
        or len(given) != 2
        or len(flat) != 4
        or not all(type(v) in (int, float) and math.isfinite(v) for v in flat)
    ):
        raise ValueError(f"{where}: {POINTS_KEY} must be two [x, y], got {short(given)}")
    return (float(flat[0]), float(flat[1])), (float(flat[2]), float(flat[3]))


def _all_rings(wanted: Sequence[Annotation]) -> tuple[Ring, ...] | None:
    """The outlines of all, None where one of them has none."""
    if not wanted or not all(isinstance(item.segmentation, list) and item.segmentation for item in wanted):
        return None
    return tuple(ring for item in wanted for ring in rings_of(item.segmentation))


def _objects(
    wanted: Sequence[Annotation], boxes: Sequence[Box | None], points: Sequence[tuple[Point, Point] | None]
) -> tuple[tuple[Box, Point], ...]:
    found = []
    for item, box, pair in zip(wanted, boxes, points, strict=True):
        if box is None or pair is None:
            raise ValueError(f"{item.where}: one of several objects needs a segmentation, for its box and its point")
        found.append((box, pair[0]))
    return tuple(found)
