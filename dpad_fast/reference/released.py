"""A plain restatement of the `dpad-released` table (docs/rewards.md): one completion at a time, nothing shared.

Regular expressions as the table gives them, so hostile text costs quadratic time here; tests keep such texts short.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import torch
from PIL import Image

TAGS = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>\s*<caption>.*?</caption>", re.DOTALL)
BRACES = re.compile(r"{[^}]+}")
CAPTION = re.compile(r"<caption>(.*?)</caption>", re.DOTALL)
BOX = re.compile(r"<box>\((\d+),(\d+)\),\((\d+),(\d+)\)</box>")
POINTS = re.compile(r"<points>\((\d+),(\d+)\),\((\d+),(\d+)\)</points>")


def thinking_format_reward(text: str) -> float:
    """1 where the whole string is the three tags in order."""
    return 1.0 if TAGS.fullmatch(text) else 0.0


def segmentation_format_reward(text: str) -> float:
    """1 where the first braces hold bbox (list of 4), points_1 and points_2 (lists of 2)."""
    try:
        data = _data(text)
        lists = [(data["bbox"], 4), (data["points_1"], 2), (data["points_2"], 2)]
        return float(all(isinstance(value, list) and len(value) == count for value, count in lists))
    except Exception:
        return 0.0


def iou_reward(text: str, solution: str) -> float:
    """1 where the inclusive-pixel IoU exceeds 0.5."""
    try:
        truth, box = _ints(BOX, solution), _box(text)
        x1, y1 = max(box[0], truth[0]), max(box[1], truth[1])
        x2, y2 = min(box[2], truth[2]), min(box[3], truth[3])
        inter = 0
        if x1 < x2 and y1 < y2:
            inter = (x2 - x1 + 1) * (y2 - y1 + 1)
        first = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
        second = (truth[2] - truth[0] + 1) * (truth[3] - truth[1] + 1)
        return 1.0 if float(inter) / (first + second - inter) > 0.5 else 0.0
    except Exception:
        return 0.0


def box_l1_reward(text: str, solution: str) -> float:
    """1 where the mean of the four absolute coordinate differences is below 10."""
    try:
        truth, box = _ints(BOX, solution), _box(text)
        return 1.0 if sum(abs(box[i] - truth[i]) for i in range(4)) / 4 < 10 else 0.0
    except Exception:
        return 0.0


def point_l1_reward(text: str, solution: str) -> float:
    """1 where both points lie in the predicted box and the better pairing's mean distance is below 100."""
    try:
        truth = _ints(POINTS, solution)
        data, box = _data(text), _box(text)
        points = [[int(data[name][0]), int(data[name][1])] for name in ("points_1", "points_2")]
        for x, y in points:
            if not (box[0] <= x <= box[2] and box[1] <= y <= box[3]):
                return 0.0
        first, second = truth[:2], truth[2:]
        straight = _distance(points[0], first) + _distance(points[1], second)
        crossed = _distance(points[0], second) + _distance(points[1], first)
        return 1.0 if min(straight, crossed) / 2 < 100 else 0.0
    except Exception:
        return 0.0


def clip_reward(
    text: str, solution: str, image: Image.Image, model: Any, tokenizer: Any, image_processor: Any
) -> float:
    """S1 * max(0, S1 - S2), by one forward of each tower per item."""
    try:
        match = CAPTION.search(text)
        if match is None:
            return 0.0
        ids = tokenizer(match.group(1).strip())["input_ids"]
        if len(ids) > 77:
            return 0.0
        x1, y1, x2, y2 = _ints(BOX, solution)
        region = image.crop((x1, y1, x2, y2))
        with torch.no_grad():
            caption = _unit(model.get_text_features(input_ids=torch.tensor([ids])))
            looks = [image_processor(images=picture, return_tensors="pt") for picture in (region, image)]
            views = [_unit(model.get_image_features(pixel_values=look["pixel_values"])) for look in looks]
        inside, whole = (float((caption * view).sum()) for view in views)
        return inside * max(0.0, inside - whole)
    except Exception:
        return 0.0


def score(
    text: str, solution: str, image: Image.Image, model: Any, tokenizer: Any, image_processor: Any
) -> dict[str, float]:
    """Every component of one completion, under the names of `ScoreBatch.terms`.

    Args:
        text: the completion.
        solution: `<box>..</box><points>..</points>`.
        image: the picture, RGB.
        model: a CLIPModel in float32.
        tokenizer: its tokenizer.
        image_processor: its image processor (the Pillow one).
    """
    return {
        "think_format": thinking_format_reward(text),
        "answer_format": segmentation_format_reward(text),
        "iou": iou_reward(text, solution),
        "box_l1": box_l1_reward(text, solution),
        "point_l1": point_l1_reward(text, solution),
        "discriminative": clip_reward(text, solution, image, model, tokenizer, image_processor),
    }


def _data(text: str) -> Any:
    match = BRACES.search(text)
    if match is None:
        raise ValueError("no braces")
    return json.loads(match.group(0))


def _box(text: str) -> Any:
    box = _data(text)["bbox"]
    if len(box) != 4:
        raise ValueError("bbox is not of length 4")
    return box


def _ints(pattern: re.Pattern[str], solution: str) -> list[int]:
    match = pattern.search(solution)
    if match is None:
        raise ValueError("no ground truth")
    return [int(group) for group in match.groups()]


def _distance(first: list[int], second: list[int]) -> float:
    return math.sqrt((first[0] - second[0]) ** 2 + (first[1] - second[1]) ** 2)


def _unit(output: Any) -> torch.Tensor:
    value: torch.Tensor = getattr(output, "pooler_output", output)
    return torch.nn.functional.normalize(value.float(), dim=-1)
