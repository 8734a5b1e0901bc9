"""The multi-object accuracy term of the `vision-reasoner` preset, by exact maximum-weight assignment."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpad_fast.rewards.config import RewardConfig
from dpad_fast.types import Completion, Point, Target

Matrix = NDArray[np.float64]

_BLOCK = 128  # predicted objects scored at a time, which bounds the [M, N, 4] of differences


def accuracy_term(completion: Completion, target: Target, config: RewardConfig, scale: Point | None) -> float:
    """Matched sum of pair scores over max(#predicted, #truth); 0 where any object of the answer is malformed.

    The pair score is (inclusive-pixel IoU > 0.5) + (mean box L1 < 10) + (point distance < 30 and the point in its own
    predicted box), with the thresholds of the configuration; both sides are cut at `max_objects`.
    """
    if not completion.objects or not completion.fields_ok:
        return 0.0
    predicted = completion.objects[: config.max_objects]
    truth = target.objects[: config.max_objects]
    boxes, points = _columns(predicted)
    if scale is not None:
        boxes, points = boxes * [*scale, *scale], points * scale
    true_boxes, true_points = _columns(truth)
    scores = pair_scores(boxes, points, true_boxes, true_points, config)
    columns = assign(scores)
    matched = sum(scores[row, column] for row, column in enumerate(columns) if column >= 0)
    return float(matched) / max(len(predicted), len(truth))


def pair_scores(boxes: Matrix, points: Matrix, true_boxes: Matrix, true_points: Matrix, config: RewardConfig) -> Matrix:
    """Scores 0..3 of every predicted object with every true one.

    Args:
        boxes: [M, 4] predicted boxes.
        points: [M, 2] predicted points.
        true_boxes: [N, 4].
        true_points: [N, 2].
        config: gives the three thresholds.

    Returns:
        [M, N].
    """
    blocks = [slice(start, start + _BLOCK) for start in range(0, max(len(boxes), 1), _BLOCK)]
    parts = [_block_scores(boxes[rows], points[rows], true_boxes, true_points, config) for rows in blocks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _block_scores(
    boxes: Matrix, points: Matrix, true_boxes: Matrix, true_points: Matrix, config: RewardConfig
) -> Matrix:
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        left_top = np.maximum(boxes[:, None, :2], true_boxes[None, :, :2])  # [M, N, 2]
        right_bottom = np.minimum(boxes[:, None, 2:], true_boxes[None, :, 2:])
        inter = np.maximum(0, right_bottom - left_top + 1).prod(axis=2)
        areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1)
        true_areas = (true_boxes[:, 2:] - true_boxes[:, :2] + 1).prod(axis=1)
        iou = inter / (areas[:, None] + true_areas[None, :] - inter)
        l1 = np.abs(boxes[:, None] - true_boxes[None]).mean(axis=2)
        distance = np.sqrt(((points[:, None] - true_points[None]) ** 2).sum(axis=2))
    inside = np.asarray(((points >= boxes[:, :2]) & (points <= boxes[:, 2:])).all(axis=1))
    close = (distance < config.point_threshold) & inside[:, None]
    scores: Matrix = (iou > config.iou_threshold).astype(np.float64) + (l1 < config.box_l1_threshold) + close
    return scores


def assign(weights: Matrix) -> list[int]:
    """Maximum-weight assignment: the column of each row, -1 where a row stays unmatched; exact.

    Shortest augmenting paths with dual prices (Jonker and Volgenant's form of the Hungarian method), after a start that
    gives rows their best column where it is free.

    Args:
        weights: [M, N], finite.

    Returns:
        M column indices; min(M, N) of them are matched.
    """
    rows, columns = weights.shape
    if rows > columns:
        back = assign(weights.T)
        found = [-1] * rows
        for column, row in enumerate(back):
            found[row] = column
        return found
    cost = -weights
    row_price = cost.min(axis=1) if rows else np.zeros(0)
    column_price = np.zeros(columns)
    owner = np.full(columns, -1)
    column_of = np.full(rows, -1)
    for row in range(rows):
        free = np.flatnonzero((cost[row] == row_price[row]) & (owner < 0))
        if free.size:
            owner[free[0]], column_of[row] = row, free[0]
    for row in range(rows):
        if column_of[row] < 0:
            _augment(cost, row, row_price, column_price, owner, column_of)
    return [int(column) for column in column_of]


def _augment(
    cost: Matrix, start: int, row_price: Matrix, column_price: Matrix, owner: NDArray[Any], column_of: NDArray[Any]
) -> None:
    columns = cost.shape[1]
    distance = np.full(columns, np.inf)
    before = np.full(columns, -1)
    done = np.zeros(columns, bool)
    seen_rows = [start]
    row, length = start, 0.0
    while True:
        through = length + cost[row] - row_price[row] - column_price
        better = ~done & (through < distance)
        distance[better] = through[better]
        before[better] = row
        column = int(np.where(done, np.inf, distance).argmin())
        length = float(distance[column])
        done[column] = True
        if owner[column] < 0:
            break
        row = int(owner[column])
        seen_rows.append(row)
    row_price[start] += length
    for other in seen_rows[1:]:
        row_price[other] += length - distance[column_of[other]]
    column_price[done] += distance[done] - length
    while True:
        row = int(before[column])
        owner[column] = row
        column, column_of[row] = int(column_of[row]), column
        if row == start:
            return


def _columns(objects: Any) -> tuple[Matrix, Matrix]:
    boxes = np.array([box for box, _ in objects], dtype=np.float64).reshape(-1, 4)
    points = np.array([point for _, point in objects], dtype=np.float64).reshape(-1, 2)
    return boxes, points
