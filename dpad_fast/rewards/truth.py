"""Ground truth against its picture: boxes and points off the picture belong to another one or have other units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dpad_fast.clip.images import Picture
from dpad_fast.clip.regions import EmptyRegion, region_of
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.row_errors import RowErrors
from dpad_fast.types import Box, Point, Size, Target

# Coordinates that round to whole pixels of the picture are on it, as annotations with fractions often are.
_SLACK = 0.5

_OFF, _UNIT = "lies off its picture", "lies within one pixel, as coordinates in 0..1 do"


def check_places(
    config: RewardConfig, targets: Sequence[Target], pictures: Sequence[Picture | None] | None, errors: RowErrors
) -> None:
    """`check_place` of N ground truths with their pictures; `errors` takes the rows that are wrong."""
    right = set()  # the rows of a group share both
    for i in errors.scored(len(targets)):
        target, picture = targets[i], None if pictures is None else pictures[i]
        pair = id(target), id(picture)
        if pair not in right:
            try:
                check_place(target, i, picture, config)
                right.add(pair)
            except ValueError as error:
                errors.add(i, error)


def check_place(target: Target, index: int, picture: Picture | None, config: RewardConfig) -> None:
    """Checks the boxes, points and mask that `config` reads against the size of their picture.

    Under `answer="released"` a solution's text is not checked: a box off the picture is cropped as `Image.crop` does,
    black outside.

    Args:
        target: the ground truth of one completion.
        index: its place in the batch, for messages.
        picture: the picture, or None where none was given.
        config: says which fields are read.

    Raises:
        ValueError: a box or point lies off the picture or within its first pixel (0..1), a box has no area in whole
            pixels, or a mask for the region has no pixel or another size; names the index, the field and the sizes.
    """
    if config.answer == "released" and target.text:
        return
    shown = _size_of(picture, config)
    size = target.image_size or shown
    for name, box in _boxes(target, config):
        problem = _problem(*box, size)
        if problem:
            raise ValueError(_message(index, name, problem, box, target, shown))
        if shown is not None and config.needs_encoder:
            try:
                region_of(box, shown, target.image_size)
            except EmptyRegion:
                problem = f"has no area in whole pixels of the {_size_text(shown)} picture: {box}"
                raise ValueError(f"targets[{index}].{name} {problem}") from None
    for name, points in _points(target, config):
        (x1, y1), (x2, y2) = points
        problem = _problem(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2), size)
        # Whole numbers may well be the first pixels; a box of one pixel is none.
        if problem == _OFF or (problem and any(value % 1 for value in (x1, y1, x2, y2))):
            given = points[0] if points[0] is points[1] else (x1, y1, x2, y2)
            raise ValueError(_message(index, name, problem, given, target, shown))
    if shown is not None and config.needs_encoder and config.region == "mask":
        _check_region_mask(target, index, shown)


def _size_of(picture: Picture | None, config: RewardConfig) -> Size | None:
    """The picture's size; None where it cannot be read and no term looks at it."""
    if picture is None:
        return None
    try:
        return picture.size
    except ValueError:
        if config.needs_encoder:
            raise
        return None


def _boxes(target: Target, config: RewardConfig) -> Iterator[tuple[str, Box]]:
    if target.box is not None and (config.needs_encoder or "iou" in config.terms or "box_l1" in config.terms):
        yield "box", target.box
    if config.needs_encoder and config.contrast == "hardest":
        for i, box in enumerate(target.other_boxes):
            yield f"other_boxes[{i}]", box
    if config.answer == "objects":
        for i, (box, _) in enumerate(target.objects):
            yield f"objects[{i}].box", box


def _points(target: Target, config: RewardConfig) -> Iterator[tuple[str, tuple[Point, Point]]]:
    if "point_l1" in config.terms and target.points is not None:
        yield "points", target.points
    if config.answer == "objects":
        for i, (_, point) in enumerate(target.objects):
            yield f"objects[{i}].point", (point, point)


def _problem(x1: float, y1: float, x2: float, y2: float, size: Size | None) -> str:
    """The fault of positions from (x1, y1) to (x2, y2) on a picture of `size`; empty where there is none."""
    if x1 < -_SLACK or y1 < -_SLACK or (size is not None and (x2 > size[0] + _SLACK or y2 > size[1] + _SLACK)):
        return _OFF
    return _UNIT if x2 <= 1 and y2 <= 1 and size != (1, 1) else ""


def _message(index: int, name: str, problem: str, given: Sequence[float], target: Target, shown: Size | None) -> str:
    return (
        f"targets[{index}].{name} {problem}: {given}; pixels are expected, of the image whose size is "
        f"targets[{index}].image_size ({_size_text(target.image_size)}) or, without it, of images[{index}] "
        f"({_size_text(shown)})"
    )


def _check_region_mask(target: Target, index: int, shown: Size) -> None:
    if target.mask is not None and not target.mask.any():
        raise ValueError(f"targets[{index}].mask has no pixel")
    if target.image_size is not None and target.image_size != shown:
        name = "mask" if target.mask is not None else "image_size"
        raise ValueError(
            f"targets[{index}].{name} is {_size_text(target.image_size)} but images[{index}] is {_size_text(shown)}: "
            "region='mask' takes pixels of the picture by the mask, so both need one size"
        )


def _size_text(size: Size | None) -> str:
    return "not given" if size is None else f"{size[0]}x{size[1]}"
