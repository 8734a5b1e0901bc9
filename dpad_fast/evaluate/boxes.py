"""Box IoU, as referring expression comprehension counts it: one predicted box against one true box.

Boxes are continuous, (x1, y1, x2, y2) with x2 and y2 where the object ends; none is cut to the picture.
"""

from __future__ import annotations

import math
from typing import Any

from dpad_fast.types import Box, Completion, Target

LEAST = 0.5  # Acc@0.5 counts an IoU at or above it


def true_box(target: Target) -> Box | None:
    """The one box that an answer is compared with; None where there is none with an area, or where there are several.

    Args:
        target: the ground truth.
    """
    if len(target.objects) > 1:
        return None
    box = target.objects[0][0] if target.box is None and target.objects else target.box
    return box if box is not None and 0 < _area(box) < math.inf else None


def answered_box(answer: Completion | None, scores: tuple[float | None, ...] = ()) -> Any:
    """The one box of an answer: its own; of several the most confident, or else the first; else that of its polygons.

    Args:
        answer: as it was read; None where it could not be.
        scores: confidence of each of its objects, where it gives them.

    Returns:
        Four numbers, or None.
    """
    if answer is None:
        return None
    if answer.box is not None:
        return answer.box
    boxes = [(box, score) for (box, _), score in _scored(answer, scores) if box is not None]
    if boxes:
        return max(boxes, key=lambda pair: -1.0 if pair[1] is None else pair[1])[0]
    if not answer.rings:
        return None
    low = [min(float(ring[:, axis].min()) for ring in answer.rings) for axis in (0, 1)]
    high = [max(float(ring[:, axis].max()) for ring in answer.rings) for axis in (0, 1)]
    return (*low, *high)


def _scored(answer: Completion, scores: tuple[float | None, ...]) -> Any:
    objects = answer.objects or ()
    return zip(objects, scores if len(scores) == len(objects) else (None,) * len(objects), strict=True)


def _area(box: Any) -> float:
    """In square pixels; 0 where a corner is on the wrong side of the other."""
    return float(max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0))


def overlap(predicted: Any, truth: Box) -> tuple[float, float]:
    """Intersection and union of two boxes, in square pixels.

    Args:
        predicted: four numbers; None or a box without a finite area covers nothing.
        truth: with an area.
    """
    area = _area(truth)
    own = 0.0 if predicted is None else _area(predicted)
    if not 0 < own < math.inf:
        return 0.0, area
    width = min(predicted[2], truth[2]) - max(predicted[0], truth[0])
    height = min(predicted[3], truth[3]) - max(predicted[1], truth[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return float(shared), float(own + area - shared)
