"""Coordinate spaces: from the answer's coordinates to pixels of the image that the ground truth belongs to.

Boxes in the wrong image's pixels are the users' most reported mistake, so nothing is guessed where sizes disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from dpad_fast.clip.images import Picture, source_of
from dpad_fast.model_size import WholePatches, whole_size
from dpad_fast.rewards.config import BOX_TERMS, RewardConfig
from dpad_fast.row_errors import RowErrors, given_error
from dpad_fast.row_images import size_of
from dpad_fast.types import Completion, Point, Size, Target

ModelSizes: TypeAlias = Sequence[Any] | Callable[[Size], Size | None]
"""N sizes of the pictures that the model saw (a size is a pair of whole numbers of any type, or None), or a function
from the (width, height) of a picture to the size at which the model saw it, or None where it saw the picture itself."""

_UNITS = {"norm1000": 1000.0, "norm1": 1.0}


def in_pixels(answer: Completion, scale: Point | None) -> Completion:
    """An answer in pixels of the ground truth's picture.

    Args:
        answer: the parsed completion, in its own space.
        scale: the factors (x, y) of `find_spaces`; None where both spaces are one.

    Returns:
        The completion with box, points, objects and rings multiplied; a value that is no number becomes None.
    """
    if scale is None:
        return answer
    objects = answer.objects
    return replace(
        answer,
        box=_scaled(answer.box, scale),
        points=None if answer.points is None else tuple(_scaled(point, scale) for point in answer.points),
        rings=None if answer.rings is None else tuple(ring * scale for ring in answer.rings),
        objects=None if objects is None else tuple((_scaled(b, scale), _scaled(p, scale)) for b, p in objects),
    )


def _scaled(values: Any, scale: Point) -> tuple[float, ...] | None:
    try:
        return None if values is None else tuple(float(value) * scale[i % 2] for i, value in enumerate(values))
    except (TypeError, ValueError, OverflowError):
        return None


def read_model_sizes(
    config: RewardConfig,
    given: ModelSizes | None,
    pictures: Sequence[Picture | None] | None,
    count: int,
    errors: RowErrors,
) -> list[Size | None]:
    """The size at which the model saw each picture; None where it is not known.

    Args:
        config: `model_size` stands in where no size is given.
        given: the caller's argument.
        pictures: N images, None for those that could not be read; or None where there are none.
        count: N.
        errors: takes the rows whose size cannot be read.

    Raises:
        ValueError: a value that is no size, unless `errors` keeps it; a function without images to call it with.
    """
    if given is None:
        return [config.model_size] * count
    of_picture = _SizeFunction(given) if callable(given) else None
    if of_picture is not None and pictures is None:
        raise ValueError("images is missing: model_sizes is a function of their sizes")
    # By place: a data frame's column is indexed by its labels, and a data frame by its columns.
    rows: list[Any] = [] if callable(given) else given.tolist() if hasattr(given, "tolist") else list(given)
    known: dict[int, Size | None] = {}  # by identity: often all rows hold one pair
    sizes: list[Size | None] = []
    for i in range(count):
        size = None
        try:
            if of_picture is None:
                row = id(rows[i])
                size = known[row] if row in known else known.setdefault(row, _checked(rows[i], i))
            elif pictures is not None and pictures[i] is not None and i not in errors:
                size = of_picture(pictures[i].size, i)  # type: ignore[union-attr]
        except ValueError as error:
            errors.add(i, error)
        sizes.append(config.model_size if size is None else size)
    return sizes


def sizes_of(function: Callable[[Size], Any], images: Sequence[Any] | None) -> list[Any]:
    """What a function says of the sizes of pictures, where rows travel without it.

    Args:
        function: from a picture's (width, height) to the size at which the model saw it, or None for the picture's own.
        images: N pictures, as `RewardScorer.score` takes them.

    Returns:
        N sizes; None where the picture cannot be read, which scoring it will say; the `ValueError` of the function.

    Raises:
        ValueError: there are no images.
    """
    if images is None:
        raise ValueError("images is missing: model_sizes is a function of their sizes")
    ask = _SizeFunction(function)
    sizes: list[Any] = []
    for i, image in enumerate(images):
        try:
            size = size_of(source_of(image, f"images[{i}]"), f"images[{i}]")
        except ValueError:
            sizes.append(None)
            continue
        try:
            sizes.append(ask(size, i))
        except ValueError as error:
            sizes.append(error)
    return sizes


class _SizeFunction:
    """A caller's function, asked once per size."""

    def __init__(self, function: Callable[[Size], Any]) -> None:
        self._function = function
        self._answers: dict[Size, Size] = {}

    def __call__(self, size: Size, i: int) -> Size:
        if size not in self._answers:
            try:
                answer = self._function(size)
            except ValueError as error:
                raise ValueError(f"model_sizes[{i}]: {error}") from None
            self._answers[size] = _checked(answer, i) or size
        return self._answers[size]


def find_spaces(
    config: RewardConfig,
    targets: Sequence[Target],
    pictures: Sequence[Picture | None] | None,
    sizes: Sequence[Size | None],
    errors: RowErrors,
) -> list[Point | None]:
    """Factors (x, y) from the answer's coordinates to the ground truth's pixels; None where they are the same.

    Args:
        config: `coordinates`.
        targets: N ground truths; `image_size` is the size of the image that they live in.
        pictures: N images, None for those that could not be read; or None where there are none.
        sizes: N sizes at which the model saw them (`read_model_sizes`).
        errors: takes the rows whose sizes do not go together.

    Raises:
        ValueError: a size is missing or contradicts another, unless `errors` keeps it; names which and the index.
    """
    scales: list[Point | None] = [None] * len(targets)
    for i in errors.scored(len(targets)):
        try:
            scales[i] = _scale(config, i, sizes[i], targets[i], None if pictures is None else pictures[i])
        except ValueError as error:
            errors.add(i, error)
    return scales


def unknown_size(
    config: RewardConfig, pictures: Sequence[Picture | None] | None, sizes: Sequence[Size | None], errors: RowErrors
) -> str | None:
    """A warning where answers in pixels are scored and the picture that the model saw may have been another one.

    The rule: a row has a picture, nothing says at which size the model saw it, and Qwen2.5-VL's processor with its own
    limits would have changed its size. Sides that are multiples of 28 and 3,136 to 1,003,520 pixels are silent.

    Returns:
        The message for the first such row, or None.
    """
    if pictures is None or not reads_pixels(config):
        return None
    fine: set[Size] = set()
    for i, (picture, size) in enumerate(zip(pictures, sizes, strict=True)):
        if picture is None or size is not None or i in errors:
            continue
        try:
            given = picture.size
        except ValueError:  # no term looks at this picture, or it would have been refused
            continue
        if given in fine:
            continue
        seen = _as_qwen(given)
        if seen != given:
            return (
                f"the size of the picture that the model saw is not known: images[{i}] is {_size_text(given)}, which "
                f"Qwen2.5-VL sees as {'another' if seen is None else _size_text(seen)}, and answers are read in "
                "pixels. "
                "Say it: processor=... of TrlRewards, model_sizes of score (dpad_fast.model_size_for computes one), "
                "model_size of the configuration, or model_sizes=lambda size: size where it saw the given pictures"
            )
        fine.add(given)
    return None


def reads_pixels(config: RewardConfig) -> bool:
    """Whether a term reads coordinates that are in pixels of the picture that the model saw."""
    if config.coordinates != "pixel":
        return False
    terms = (*BOX_TERMS, "mask_iou", "accuracy")
    return any(term in config.terms for term in terms) or (config.needs_encoder and config.region == "predicted")


def _as_qwen(size: Size) -> Size | None:
    try:
        return WholePatches().resized(size)
    except ValueError:
        return None


def _scale(config: RewardConfig, i: int, size: Size | None, target: Target, picture: Picture | None) -> Point | None:
    if config.coordinates == "pixel":
        return _from_pixels(i, size, target, picture)
    truth = target.image_size or (None if picture is None else picture.size)
    if truth is None:
        raise ValueError(
            f"targets[{i}].image_size is missing: coordinates={config.coordinates!r} is mapped to the pixels of "
            "the ground truth's image, so its (width, height) must be known (or give images)"
        )
    unit = _UNITS[config.coordinates]
    return truth[0] / unit, truth[1] / unit


def _from_pixels(i: int, model: Size | None, target: Target, picture: Picture | None) -> Point | None:
    truth = target.image_size
    if model is None:
        if truth is not None and picture is not None and picture.size != truth:
            raise ValueError(
                f"model_sizes[{i}] is missing: images[{i}] is {_size_text(picture.size)} but targets[{i}].image_size "
                f"is {_size_text(truth)}, so it must be said which image the model saw (model_sizes, or model_size of "
                "the config)"
            )
        return None
    if truth is None and picture is not None:
        truth = picture.size  # as for normalised coordinates, and for the regions that are cut out of it
    if truth is None:
        raise ValueError(
            f"targets[{i}].image_size is missing: the model saw {_size_text(model)}, and the ground truth's pixels can "
            "only be found with the (width, height) of the image that it lives in (or give images)"
        )
    return None if model == truth else (truth[0] / model[0], truth[1] / model[1])


def _checked(size: Any, i: int) -> Size | None:
    if size is None:
        return None
    given_error(size, f"model_sizes[{i}]")
    return whole_size(size, f"model_sizes[{i}]")


def _size_text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
