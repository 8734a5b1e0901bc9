"""ReasonSeg folders: a JSON beside each picture, with queries and the polygons of the target and of ignored regions.

The ground truth is drawn as the data set's own code draws it (LISA, `utils/data_processing.py`): vertices cut to int32,
`cv2.fillPoly` and `cv2.polylines` of thickness 1, larger shapes first so that smaller ones stay visible on top, shapes
whose label holds "ignore" as 255, shapes labelled "flag" left out.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpad_fast.data.geometry import box_of, inscribed_points
from dpad_fast.ops.polygons import rasterize_polygons
from dpad_fast.pictures import decoding, open_picture, upright_size
from dpad_fast.types import Ring, Sample, Target

TARGET, IGNORE = 1, 255
_PICTURES = (".jpg", ".jpeg", ".png")


def load(folder: str | os.PathLike[str]) -> Iterator[Sample]:
    """Reads a ReasonSeg folder, one sample per query, in the order of the file names.

    Args:
        folder: holds NAME.json beside NAME.jpg (or .jpeg, .png).

    Returns:
        An iterator of samples. `image` is the picture's path; sizes and polygons are those of the picture turned as
        its EXIF says, which is how labelling tools show it and how it is scored. `target` has the mask
        (pixels of value 1), `ignore` (pixels of value 255, None where no shape asks for it), the target's polygons,
        its box (x2 and y2 one past the last pixel) and two points, the centres of large inscribed circles; box and
        points are None where no target pixel is left. The id is NAME, or NAME-0, NAME-1, ... for several queries.

    Raises:
        ValueError: `folder` is no folder or holds no JSON, or (while iterating) a file is not as it should be; the
            message names the file and the field.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"folder is not a directory: {path}")
    files = sorted(path.glob("*.json"))
    if not files:
        raise ValueError(f"folder holds no .json file: {path}")
    return (sample for file in files for sample in _samples(file))


def draw(shapes: list[tuple[str, Ring]], height: int, width: int) -> NDArray[np.uint8]:
    """Draws labelled rings as ReasonSeg does.

    Args:
        shapes: (label, ring [n, 2] of (x, y)).
        height: rows of the picture.
        width: columns of the picture.

    Returns:
        uint8 [height, width]: 1 target, 255 ignored, 0 neither.
    """
    kept = [(label.lower(), ring) for label, ring in shapes if label.lower() != "flag"]
    out = np.zeros((height, width), np.uint8)
    if not kept:
        return out
    # A point or a line is drawn too; repeating its last vertex makes it a polygon of the same pixels.
    rings = [np.vstack([ring, np.repeat(ring[-1:], max(3 - len(ring), 0), axis=0)]) for _, ring in kept]
    masks = rasterize_polygons(rings, height, width, rule="opencv", outline=True, out="dense").numpy()
    areas = masks.sum(axis=(1, 2)).tolist()
    for i in sorted(range(len(kept)), key=lambda i: (areas[i], i), reverse=True):
        out[masks[i]] = IGNORE if "ignore" in kept[i][0] else TARGET
    return out


def _samples(file: Path) -> Iterator[Sample]:
    content = _read(file)
    queries = content.get("text")
    if isinstance(queries, str):
        queries = [queries]
    if not isinstance(queries, list) or not queries or not all(isinstance(query, str) for query in queries):
        raise ValueError(f"{file}: text must be a list of strings, got {queries!r:.80}")
    shapes = _shapes(file, content.get("shapes"))
    image, (width, height) = _picture(file)
    drawn = draw(shapes, height, width)
    mask, ignore = drawn == TARGET, drawn == IGNORE
    target = Target(
        box=box_of(mask),
        points=inscribed_points(mask),
        image_size=(width, height),
        mask=mask,
        polygons=tuple(ring for label, ring in shapes if "ignore" not in label.lower() and label.lower() != "flag"),
        ignore=ignore if ignore.any() else None,
    )
    for i, query in enumerate(queries):
        yield Sample(file.stem if len(queries) == 1 else f"{file.stem}-{i}", image, query, target)


def _read(file: Path) -> dict[str, Any]:
    raw = file.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")  # some of the published files are
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: expected an object with text and shapes, got {type(content).__name__}")
    return content


def _shapes(file: Path, shapes: object) -> list[tuple[str, Ring]]:
    if not isinstance(shapes, list):
        raise ValueError(f"{file}: shapes must be a list, got {type(shapes).__name__}")
    out = []
    for i, shape in enumerate(shapes):
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise ValueError(f"{file}: shapes[{i}].label must be a string")
        points = shape.get("points")
        if not isinstance(points, list) or not points:
            raise ValueError(f"{file}: shapes[{i}].points must be a list of [x, y], got {points!r:.80}")
        for j, point in enumerate(points):
            if not _is_point(point):
                raise ValueError(f"{file}: shapes[{i}].points[{j}] must be two finite numbers, got {point!r:.80}")
        out.append((shape["label"], np.asarray(points, np.float64)))
    return out


def _is_point(point: object) -> bool:
    return (
        isinstance(point, list)
        and len(point) == 2
        and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= 1e7 for v in point)
        and all(math.isfinite(v) for v in point)
    )


def _picture(file: Path) -> tuple[str, tuple[int, int]]:
    path = next((p for suffix in _PICTURES if (p := file.with_suffix(suffix)).is_file()), None)
    if path is None:
        raise ValueError(f"{file}: no picture beside it ({', '.join(file.stem + suffix for suffix in _PICTURES)})")
    with open_picture(str(path), str(path)) as image, decoding(str(path)):
        return str(path), upright_size(image)
