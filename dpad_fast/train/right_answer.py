"""The completion that a ground truth asks for, as a model would have to write it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dpad_fast.rewards.config import RewardConfig
from dpad_fast.types import Size, Target

_UNITS = {"norm1000": 1000.0, "norm1": 1.0}


def right_answer(target: Target, config: RewardConfig, size: Size, seen: Size | None = None) -> str:
    """Write a completion whose box, points, polygon or objects are the target's, in the model's coordinates.

    Args:
        target: the ground truth, in pixels of its picture.
        config: the reward: form of the answer, tags, and space of coordinates.
        size: (width, height) of the picture that the truth is about.
        seen: (width, height) of the picture that the model sees; None where it is the same.

    Returns:
        The text. With `RewardScorer.score` it gets full marks from every term but "discriminative", which a model
        judges; whole numbers, as models write them (of 0..1: four decimals).

    Raises:
        ValueError: the target lacks what the reward's terms compare with.
    """
    unit = _UNITS.get(config.coordinates)
    shown = (unit, unit) if unit is not None else (seen or size)
    scale = (shown[0] / size[0], shown[1] / size[1])
    digits = 4 if config.coordinates == "norm1" else None

    def written(values: Sequence[float]) -> list[float]:
        return [round(value * scale[i % 2], digits) for i, value in enumerate(values)]

    answer: Any = _objects(target, written) if config.answer == "objects" else _single_object(target, config, written)
    caption = "<caption>the one that was asked for</caption>" if "caption" in config.tags else ""
    return f"<think>It is this one</think><answer>{json.dumps(answer)}</answer>{caption}"


def full_marks(config: RewardConfig) -> dict[str, float]:
    """The least values that a right answer gets, whatever its words.

    Args:
        config: the reward.

    Returns:
        A value for every term but "discriminative", which a model judges. An answer in whole numbers draws a polygon a
        little beside the truth: of a raw IoU of masks 0.8 is asked.
    """
    marks = {term: 1.0 for term in config.terms if term != "discriminative"}
    several = {"accuracy": 3.0, "answer_format": 2.0} if config.answer == "objects" else {}
    if config.mask_threshold is None:
        several["mask_iou"] = 0.8
    return {term: several.get(term, mark) for term, mark in marks.items()}


def _single_object(target: Target, config: RewardConfig, written: Any) -> dict[str, Any]:
    if config.geometry == "mask":
        if not target.polygons:
            raise ValueError("the target has no polygon that an answer could draw")
        return {"polygon": [[written(point) for point in ring.tolist()] for ring in target.polygons]}
    if target.box is None:
        raise ValueError("the target has no box")
    x1, y1, x2, y2 = target.box
    middle = ((x1 + x2) / 2, (y1 + y2) / 2)
    first, second = target.points or (middle, middle)
    return {"bbox": written(target.box), "points_1": written(first), "points_2": written(second)}


def _objects(target: Target, written: Any) -> list[dict[str, Any]]:
    if not target.objects:
        raise ValueError("the target has no list of objects")
    return [{"bbox_2d": written(box), "point_2d": written(point)} for box, point in target.objects]
