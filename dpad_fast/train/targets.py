"""Ground truth as a text that travels in a column of the prompts, masks as COCO run lengths: a reward reads all of it.

A solution text alone has no mask, no regions to ignore and no other boxes. As texts they stay in the data set's file,
and only those of a step are drawn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from dpad_fast import coco_mask
from dpad_fast.types import Target

COLUMN = "target"
_PLAIN = ("box", "points", "image_size", "objects", "other_boxes", "text")
_AT_ONCE = 64  # targets of a step, drawn; a group of completions shares one


def target_text(target: Target) -> str:
    """A target as JSON that `read_target` reads back, equal in every field.

    Args:
        target: the ground truth.

    Returns:
        The text; fields that are not there are left out.
    """
    plain: dict[str, Any] = {name: value for name in _PLAIN if (value := getattr(target, name))}
    for name in ("mask", "ignore"):
        mask = getattr(target, name)
        if mask is not None:
            rle = coco_mask.encode(mask)
            plain[name] = {"size": list(rle["size"]), "counts": rle["counts"].decode()}
    if target.polygons is not None:
        plain["polygons"] = [ring.tolist() for ring in target.polygons]
    return json.dumps(plain)


@lru_cache(maxsize=_AT_ONCE)
def read_target(text: str) -> Target:
    """A target from what `target_text` made; equal texts of a step give one object.

    Args:
        text: the JSON.

    Returns:
        The target.
    """
    plain = json.loads(text)
    for name in ("mask", "ignore"):
        if name in plain:
            counts = {"size": plain[name]["size"], "counts": plain[name]["counts"].encode()}
            plain[name] = coco_mask.decode(counts).astype(np.bool_)
    return Target(**plain)


def target_of_row(row: Mapping[str, Any]) -> Target:
    """The target that a row of the prompts carries, for `TrlRewards`.

    Args:
        row: with the column `target`.

    Returns:
        The target.
    """
    return read_target(row[COLUMN])
