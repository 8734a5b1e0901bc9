"""`mask_iou` through a segmenter: the mask that it makes of a box and points, against the target's (as in Seg-R1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.geometry import target_mask
from dpad_fast.rewards.spaces import in_pixels
from dpad_fast.row_errors import RowErrors
from dpad_fast.types import BoolMask, Completion, Point, Size, Target

if TYPE_CHECKING:
    from dpad_fast.segmenters.prompts import Segmenter

NO_MASK = "no-mask"
"""The reason code of a well-formed answer without a box or points that the segmenter could use."""

_BLIND = ("box", "polygon")  # they look at no picture
_ROW = re.compile(r"^images\[0\]")


def segmenter_of(config: RewardConfig, given: Segmenter | None) -> Segmenter | None:
    """The segmenter of a configuration: the one given, or made by its name on the CPU; None where it names none.

    Raises:
        ValueError: one is given and the configuration names none, or it cannot be made.
    """
    if config.segmenter is None:
        if given is not None:
            raise ValueError("segmenter is given, but RewardConfig.segmenter names none: set it, to any name")
        return None
    if given is not None:
        return given
    from dpad_fast.segmenters.choose import make_segmenter

    return make_segmenter(config.segmenter)


def segmented_ious(
    segmenter: Segmenter,
    config: RewardConfig,
    rows: Sequence[int],
    parsed: Sequence[Completion],
    targets: Sequence[Target],
    scales: Sequence[Point | None],
    images: Sequence[Any] | None,
    reasons: list[str | None],
    errors: RowErrors,
) -> list[float]:
    """IoU of the segmenter's mask with the target's, raw or 1 above `mask_threshold`, in one call of the segmenter.

    Args:
        segmenter: makes the masks.
        config: `mask_threshold`, and the name of the segmenter.
        rows: the completions that can still earn something; the others get 0.
        parsed: N completions.
        targets: N ground truths.
        scales: N factors (`find_spaces`).
        images: N pictures.
        reasons: N codes; "no-mask" is set where there is no code yet and the segmenter found no box or point.
        errors: takes the rows whose target has no mask, or whose picture cannot be decoded.

    Returns:
        N values.

    Raises:
        ValueError: such a row, unless `errors` keeps it; pictures are missing.
    """
    if images is None and config.segmenter not in _BLIND:
        raise ValueError("images is missing: the segmenter of the term 'mask_iou' looks at them")
    truths = _truths(targets, errors)
    used = [i for i in rows if i not in errors]
    answers = [in_pixels(parsed[i], scales[i]) for i in used]
    shown = [None if images is None else images[i] for i in used]
    sizes = [(int(truths[id(targets[i])].shape[2]), int(truths[id(targets[i])].shape[1])) for i in used]
    column = [0.0] * len(parsed)
    for i, mask in zip(used, _masks(segmenter, used, answers, shown, sizes, errors), strict=True):
        if mask is not None:
            column[i] = _iou(mask, truths[id(targets[i])], targets[i], config)
        elif i not in errors:
            reasons[i] = reasons[i] or NO_MASK
    return column


def _truths(targets: Sequence[Target], errors: RowErrors) -> dict[int, torch.Tensor]:
    """The mask of each distinct target: those of a group are drawn once."""
    found: dict[int, torch.Tensor] = {}
    for i, target in enumerate(targets):
        if i not in errors and id(target) not in found:
            try:
                found[id(target)] = target_mask(target, i)
            except ValueError as error:
                errors.add(i, error)
    return found


def _masks(
    segmenter: Segmenter,
    rows: Sequence[int],
    answers: Sequence[Completion],
    images: Sequence[Any],
    sizes: Sequence[Size],
    errors: RowErrors,
) -> list[BoolMask | None]:
    """The masks of all rows in one call; row by row where one picture is bad and errors are kept by row."""
    if not rows:
        return []
    try:
        return segmenter.segment(answers, images, sizes)
    except ValueError:
        if not errors.kept and list(rows) == list(range(len(rows))):
            raise  # the index in the message is the caller's
    found: list[BoolMask | None] = []
    for row, answer, image, size in zip(rows, answers, images, sizes, strict=True):
        try:
            found += segmenter.segment([answer], [image], [size])
        except ValueError as error:
            errors.add(row, ValueError(_ROW.sub(f"images[{row}]", str(error))))
            found.append(None)
    return found


def _iou(mask: BoolMask, truth: torch.Tensor, target: Target, config: RewardConfig) -> float:
    from dpad_fast.ops.masks import mask_iou

    ignore = None if target.ignore is None else torch.from_numpy(target.ignore)[None]
    iou = float(mask_iou(torch.from_numpy(mask)[None], truth, ignore=ignore, empty=0.0)[0])
    if config.mask_threshold is None:
        return iou
    return 1.0 if iou > config.mask_threshold else 0.0
