"""Box AP of answers that name several objects, as COCO counts it: one class, 101 recall points, 100 boxes a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IOUS = np.linspace(0.5, 0.95, 10)
_MOST = 100
_RECALLS = np.linspace(0.0, 1.0, 101)


def average_precision(
    predicted: Sequence[Sequence[Sequence[float]]], truths: Sequence[Sequence[Sequence[float]]]
) -> tuple[float, float]:
    """AP at IoU 0.5, and its mean over 0.5, 0.55, ..., 0.95.

    Args:
        predicted: per picture, boxes (x1, y1, x2, y2, confidence).
        truths: per picture, boxes (x1, y1, x2, y2).

    Returns:
        (AP at 0.5, mean AP); NaN where there is no true box.
    """
    total = sum(map(len, truths))
    if not total:
        return float("nan"), float("nan")
    scores: list[float] = []
    hits: list[NDArray[np.bool_]] = []
    for boxes, true in zip(predicted, truths, strict=True):
        ordered = sorted(boxes, key=lambda box: -box[4])[:_MOST]
        scores += [box[4] for box in ordered]
        hits.append(_matched(np.array([b[:4] for b in ordered]).reshape(-1, 4), np.array(true).reshape(-1, 4)))
    order = np.argsort(-np.array(scores), kind="mergesort")
    hit = np.concatenate(hits, axis=1)[:, order] if scores else np.zeros((len(IOUS), 0), np.bool_)
    each = [_area(row, total) for row in hit]
    return each[0], float(np.mean(each))


def _matched(boxes: NDArray[np.float64], truths: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Per threshold and box, whether it takes a true box that no box before it took."""
    hits = np.zeros((len(IOUS), len(boxes)), np.bool_)
    ious = _iou(boxes, truths)
    for t, least in enumerate(IOUS):
        free = np.ones(len(truths), np.bool_)
        for i in range(len(boxes)):
            good = free & (ious[i] >= min(least, 1 - 1e-10))
            if good.any():
                # Among equals COCO keeps the last one that it saw.
                best = len(truths) - 1 - int(np.argmax(np.where(good, ious[i], -1.0)[::-1]))
                free[best], hits[t, i] = False, True
    return hits


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    area_a, area_b = (np.prod(x[:, 2:] - x[:, :2], axis=1) for x in (a, b))
    union = area_a[:, None] + area_b[None, :] - shared
    out: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return out


def _area(hit: NDArray[np.bool_], total: int) -> float:
    right = np.cumsum(hit)
    recall, precision = right / total, right / np.maximum(np.arange(1, len(hit) + 1), 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or beyond
    places = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.mean([precision[i] if i < len(hit) else 0.0 for i in places]))
