"""Coordinate spaces: from what the answer is written in to pixels of the image that the ground truth belongs to.

Boxes in the wrong image's pixels are the users' most reported mistake, so nothing is guessed where sizes disagree.
"""

from __future__ import annotations

from collections.abc import Sequence

from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.images import Picture
from dpad_fast.types import Point, Size, Target

_UNITS = {"norm1000": 1000.0, "norm1": 1.0}


def find_spaces(
    config: RewardConfig,
    targets: Sequence[Target],
    pictures: Sequence[Picture] | None,
    model_sizes: Sequence[Size] | None,
) -> list[Point | None]:
    """Factors (x, y) from the answer's coordinates to the ground truth's pixels; None where they are the same.

    Args:
        config: `coordinates` and `model_size`.
        targets: N ground truths; `image_size` is the size of the image that they live in.
        pictures: N images, or None where there are none.
        model_sizes: N sizes of the images that the model saw; None: `config.model_size` for all, or the images' own.

    Raises:
        ValueError: a size is missing or contradicts another; names which and the index.
    """
    scales: list[Point | None] = []
    for i, target in enumerate(targets):
        picture = None if pictures is None else pictures[i]
        model = _checked(model_sizes[i], i) if model_sizes is not None else config.model_size
        if config.coordinates == "pixel":
            scales.append(_from_pixels(i, model, target, picture))
            continue
        truth = target.image_size or (None if picture is None else picture.size)
        if truth is None:
            raise ValueError(
                f"targets[{i}].image_size is missing: coordinates={config.coordinates!r} is mapped to the pixels of "
                "the ground truth's image, so its (width, height) must be known (or give images)"
            )
        unit = _UNITS[config.coordinates]
        scales.append((truth[0] / unit, truth[1] / unit))
    return scales


def _from_pixels(i: int, model: Size | None, target: Target, picture: Picture | None) -> Point | None:
    truth = target.image_size
    if model is None:
        if truth is not None and picture is not None and picture.size != truth:
            raise ValueError(
                f"model_sizes[{i}] is missing: images[{i}] is {_by(picture.size)} but targets[{i}].image_size is "
                f"{_by(truth)}, so it must be said which image the model saw (model_sizes, or model_size of the config)"
            )
        return None
    if truth is None:
        if picture is None or picture.size != model:
            raise ValueError(
                f"targets[{i}].image_size is missing: the model saw {_by(model)}, and the ground truth's pixels can "
                "only be found with the (width, height) of the image that it lives in"
            )
        return None
    return None if model == truth else (truth[0] / model[0], truth[1] / model[1])


def _checked(size: Size, i: int) -> Size:
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(f"model_sizes[{i}] must be (width, height) in whole pixels, got {size!r:.80}")
    return int(size[0]), int(size[1])


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
