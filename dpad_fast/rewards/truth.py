"""Ground truth against its picture: what lies off it is another picture's, or in other units, and is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.discriminative import region_of
from dpad_fast.rewards.images import Picture
from dpad_fast.types import Box, Point, Size, Target

# Coordinates that round to whole pixels of the picture are on it, as annotations with fractions often are.
_SLACK = 0.5


def check_place(target: Target, index: int, picture: Picture | None, config: RewardConfig) -> None:
    """Checks the boxes, points and mask that `config` reads against the size of their picture.

    `dpad-released` is left alone where it reads the solution's text: there a box off the picture is cropped as
    `Image.crop` does, black outside.

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
    shown = None if picture is None else picture.size
    for name, box in _boxes(target, config):
        _check((index, name), (box[:2], box[2:]), target.image_size, shown, whole=False)
        if shown is not None and config.needs_encoder and region_of(box, shown, target.image_size) is None:
            raise ValueError(f"targets[{index}].{name} has no area in whole pixels of the {_by(shown)} picture: {box}")
    for name, points in _points(target, config):
        _check((index, name), points, target.image_size, shown, whole=True)
    if shown is not None and config.needs_encoder and config.region == "mask":
        _check_region_mask(target, index, shown)


def _boxes(target: Target, config: RewardConfig) -> Iterator[tuple[str, Box]]:
    if target.box is not None and (config.needs_encoder or "iou" in config.terms or "box_l1" in config.terms):
        yield "box", target.box
    if config.needs_encoder and config.contrast == "hardest":
        for i, box in enumerate(target.other_boxes):
            yield f"other_boxes[{i}]", box
    if config.answer == "objects":
        for i, (box, _) in enumerate(target.objects):
            yield f"objects[{i}].box", box


def _points(target: Target, config: RewardConfig) -> Iterator[tuple[str, Sequence[Point]]]:
    if "point_l1" in config.terms and target.points is not None:
        yield "points", target.points
    if config.answer == "objects":
        for i, (_, point) in enumerate(target.objects):
            yield f"objects[{i}].point", (point,)


def _check(
    field: tuple[int, str], corners: Sequence[Point], said: Size | None, shown: Size | None, *, whole: bool
) -> None:
    """Refuses (x, y) positions that lie off the picture or all in 0..1; `whole`: whole numbers there may be pixels."""
    size = said or shown
    right, bottom = (float("inf"), float("inf")) if size is None else (size[0] + _SLACK, size[1] + _SLACK)
    unit = size != (1, 1) and all(x <= 1 and y <= 1 for x, y in corners)
    what = ""
    if any(not (-_SLACK <= x <= right and -_SLACK <= y <= bottom) for x, y in corners):
        what = "lies off its picture"
    elif unit and not (whole and all(x % 1 == y % 1 == 0 for x, y in corners)):
        what = "lies within one pixel, as coordinates in 0..1 do"
    if what:
        index, name = field
        given = tuple(value for corner in corners for value in corner)
        raise ValueError(
            f"targets[{index}].{name} {what}: {given}; pixels are expected, of the image whose size is "
            f"targets[{index}].image_size ({_by(said)}) or, without it, of images[{index}] ({_by(shown)})"
        )


def _check_region_mask(target: Target, index: int, shown: Size) -> None:
    if target.mask is not None and not target.mask.any():
        raise ValueError(f"targets[{index}].mask has no pixel")
    if target.image_size is not None and target.image_size != shown:
        name = "mask" if target.mask is not None else "image_size"
        raise ValueError(
            f"targets[{index}].{name} is {_by(target.image_size)} but images[{index}] is {_by(shown)}: region='mask' "
            "takes pixels of the picture by the mask, so both need one size"
        )


def _by(size: Size | None) -> str:
    return "not given" if size is None else f"{size[0]}x{size[1]}"
