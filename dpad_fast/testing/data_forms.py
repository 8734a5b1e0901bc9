"""Samples that the tests of data forms write and read again, and their comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dpad_fast._mask_geometry import box_of, inscribed_points
from dpad_fast.types import Sample, Target


def picture(path: Path, width: int, height: int, seed: int = 0) -> Path:
    """Writes a picture of noise, as its suffix says, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def target_of(mask: np.ndarray[Any, Any], **fields: Any) -> Target:
    """A target whose box and points are the mask's, where `fields` do not say otherwise."""
    found: dict[str, Any] = {"box": box_of(mask), "points": inscribed_points(mask), "mask": mask}
    return Target(**(found | fields))


def told(sample: Sample) -> dict[str, Any]:
    """Everything about a sample as plain data that compares with ==; the picture as its pixels."""
    target = sample.target
    image = sample.image if isinstance(sample.image, Image.Image) else Image.open(str(sample.image))
    return {
        "id": sample.id,
        "query": sample.query,
        "image": np.asarray(image.convert("RGB")).tobytes(),
        "box": target.box,
        "points": target.points,
        "size": target.image_size,
        "mask": None if target.mask is None else target.mask.tolist(),
        "ignore": None if target.ignore is None else target.ignore.tolist(),
        "polygons": None if target.polygons is None else [ring.tolist() for ring in target.polygons],
        "objects": target.objects,
        "other_boxes": target.other_boxes,
    }
