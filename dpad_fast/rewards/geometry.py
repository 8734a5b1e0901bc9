"""The geometry terms of one object: inclusive-pixel box IoU, mean box L1, point distance, and mask IoU.

The arithmetic is that of the authors' public code (docs/rewards.md has the rules), on Python numbers: a value on which
it fails (a string, an integer beyond float's range) gives 0, as any exception does in their code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch

from dpad_fast.rewards.config import RewardConfig
from dpad_fast.types import Box, Completion, Point, Ring, Target

# Arithmetic on hostile numbers can raise these: wrong types, too large, union of zero, NaN through int().
_ARITHMETIC = (TypeError, ValueError, OverflowError, ZeroDivisionError, LookupError)

_TRUTH_BOX = re.compile(r"<box>\((\d+),(\d+)\),\((\d+),(\d+)\)</box>")
_TRUTH_POINTS = re.compile(r"<points>\((\d+),(\d+)\),\((\d+),(\d+)\)</points>")

Truth = tuple[Sequence[Any] | None, Sequence[Sequence[Any]] | None]


def read_truths(targets: Sequence[Target], config: RewardConfig) -> list[Truth]:
    """Ground-truth boxes and points, each distinct target's read once: a group's completions share theirs."""
    distinct = {id(target): target for target in targets}
    found = {key: _read_truth(target, config) for key, target in distinct.items()}
    return [found[id(target)] for target in targets]


def _read_truth(target: Target, config: RewardConfig) -> Truth:
    """The target's fields, or under `answer="released"` the digits of its text."""
    if config.answer != "released" or not target.text:
        return target.box, target.points
    box = _digits(_TRUTH_BOX, target.text)
    points = _digits(_TRUTH_POINTS, target.text)
    return box, None if points is None else (points[:2], points[2:])


def scale_box(box: Sequence[Any], scale: Point | None) -> Sequence[Any] | None:
    """Maps a box from the answer's space to the ground truth's; None where an entry is no number."""
    if scale is None:
        return box
    try:
        return [float(value) * scale[i % 2] for i, value in enumerate(box)]
    except (TypeError, ValueError, OverflowError):
        return None


def box_iou(first: Sequence[Any], second: Sequence[Any]) -> float:
    """Inclusive-pixel IoU of two (x1, y1, x2, y2) boxes; the intersection counts where both its sides exceed one pixel.

    Raises whatever the arithmetic raises; swapped corners are not put right.
    """
    x1, y1, x2, y2 = first
    u1, v1, u2, v2 = second
    left, top = (u1 if u1 > x1 else x1), (v1 if v1 > y1 else y1)  # as max and min, whose calls would take half the time
    right, bottom = (u2 if u2 < x2 else x2), (v2 if v2 < y2 else y2)
    inter = (right - left + 1) * (bottom - top + 1) if left < right and top < bottom else 0
    union = (x2 - x1 + 1) * (y2 - y1 + 1) + (u2 - u1 + 1) * (v2 - v1 + 1) - inter
    return float(inter) / union  # type: ignore[no-any-return]


def iou_term(box: Sequence[Any] | None, truth: Sequence[Any] | None, threshold: float) -> float:
    """1 where the IoU of the boxes exceeds `threshold`, else 0."""
    if box is None or truth is None:
        return 0.0
    try:
        return 1.0 if box_iou(box, truth) > threshold else 0.0
    except _ARITHMETIC:
        return 0.0


def box_l1_term(box: Sequence[Any] | None, truth: Sequence[Any] | None, threshold: float) -> float:
    """1 where the mean of the four absolute coordinate differences is below `threshold`, else 0."""
    if box is None or truth is None:
        return 0.0
    try:
        distance = abs(box[0] - truth[0]) + abs(box[1] - truth[1]) + abs(box[2] - truth[2]) + abs(box[3] - truth[3])
        return 1.0 if distance / 4 < threshold else 0.0
    except _ARITHMETIC:
        return 0.0


def point_l1_term(
    points: Sequence[Any] | None,
    box: Sequence[Any] | None,
    truth: Sequence[Sequence[Any]] | None,
    threshold: float,
    scale: Point | None = None,
) -> float:
    """1 where both points, cut by `int()`, lie in the predicted box and the better pairing's mean distance is small.

    Args:
        points: the answer's two points, in the answer's space.
        box: the answer's box, in the ground truth's space.
        truth: the two ground-truth points.
        threshold: mean Euclidean distance of the better of the two pairings, in pixels; below it is 1.
        scale: from the answer's space to the ground truth's, or None where they are the same.
    """
    if points is None or box is None or truth is None:
        return 0.0
    try:
        (ax, ay), (bx, by) = _cut_to_int(points[0], scale), _cut_to_int(points[1], scale)
        x1, y1, x2, y2 = box
        if not (x1 <= ax <= x2 and y1 <= ay <= y2 and x1 <= bx <= x2 and y1 <= by <= y2):
            return 0.0
        (cx, cy), (dx, dy) = truth
        straight = _norm(ax - cx, ay - cy) + _norm(bx - dx, by - dy)
        crossed = _norm(ax - dx, ay - dy) + _norm(bx - cx, by - cy)
        return 1.0 if min(straight, crossed) / 2 < threshold else 0.0
    except _ARITHMETIC:
        return 0.0


def mask_term(
    completion: Completion, target: Target, truth: torch.Tensor, config: RewardConfig, scale: Point | None
) -> float:
    """IoU of the answer's polygon with the ground-truth mask (`target_mask`), raw or 1 above `mask_threshold`."""
    if completion.rings is None:
        return 0.0
    from dpad_fast.ops.masks import mask_iou
    from dpad_fast.ops.polygons import rasterize_polygons

    rings = list(completion.rings) if scale is None else [ring * scale for ring in completion.rings]
    height, width = truth.shape[1:]
    try:
        drawn = rasterize_polygons([rings], height, width, rule="coco", out="dense")
    except ValueError:  # the rasteriser refuses what no picture could hold
        return 0.0
    ignore = None if target.ignore is None else _as_mask(target.ignore)
    iou = float(mask_iou(drawn, truth, ignore=ignore, empty=0.0)[0])
    if config.mask_threshold is None:
        return iou
    return 1.0 if iou > config.mask_threshold else 0.0


def target_mask(target: Target, index: int) -> torch.Tensor:
    """The ground-truth mask, bool [1, H, W], drawn from the polygons where the target holds no mask.

    Raises:
        ValueError: the target has neither mask nor polygons, or no size to draw them at; names the index.
    """
    if target.mask is not None:
        return _as_mask(target.mask)
    check_mask(target, index)
    assert target.image_size is not None
    assert target.polygons is not None
    from dpad_fast.ops.polygons import rasterize_polygons

    width, height = target.image_size
    rings: list[Ring] = list(target.polygons)
    try:
        drawn: torch.Tensor = rasterize_polygons([rings], height, width, rule="coco", out="dense")
    except ValueError as error:
        raise ValueError(f"targets[{index}].polygons cannot be drawn: {error}") from None
    return drawn


def _as_mask(mask: Any) -> torch.Tensor:
    return torch.as_tensor(mask, dtype=torch.bool, device="cpu")[None]


def numbers(box: Sequence[Any] | None) -> list[float] | None:
    """The box as floats, or None where an entry is no number: under `answer="released"` entries may be anything."""
    if box is None or any(type(value) not in (int, float) or not abs(value) < 1e9 for value in box):
        return None
    return [float(value) for value in box]


def check_mask(target: Target, index: int) -> None:
    """Raises a `ValueError` naming the index where a target has no mask and cannot be drawn."""
    if target.mask is not None:
        return
    if not target.polygons:
        raise ValueError(f"targets[{index}] has neither mask nor polygons, which this configuration needs")
    if target.image_size is None:
        raise ValueError(f"targets[{index}].image_size is missing: polygons without a mask need it to be drawn")


def check_box(box: Box | Sequence[Any] | None, name: str) -> None:
    """Raises a `ValueError` naming the field where a ground-truth box is missing or has no area."""
    if box is None:
        raise ValueError(f"{name} is missing, which this configuration needs")
    if not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"{name} has no area (x1 < x2 and y1 < y2 expected): {tuple(box)}")


def _digits(pattern: re.Pattern[str], text: str) -> tuple[int, ...] | None:
    match = pattern.search(text)
    if match is None:
        return None
    try:
        return tuple(int(group) for group in match.groups())
    except ValueError:  # beyond Python's digit limit
        return None


def _cut_to_int(point: Any, scale: Point | None) -> tuple[int, int]:
    if scale is None:
        return int(point[0]), int(point[1])
    return int(float(point[0]) * scale[0]), int(float(point[1]) * scale[1])


def _norm(x: Any, y: Any) -> float:
    return math.sqrt(x**2 + y**2)  # not hypot, whose last digit may be another
