"""What the writer of ReasonSeg folders needs: shapes in labelme's JSON, and samples that share a file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from dpad_fast._mask_geometry import box_of
from dpad_fast.types import BoolMask, Ring, Sample, Size

VERSION = "5.5.0"
"""The labelme whose files these are; since 5.3 it has shapes of the kind mask."""


_NO_NAME = set('/\\\0:*?"<>|')
_LONGEST = 240  # bytes; with the suffix it must stay below 256


def record(queries: list[str], shapes: list[dict[str, Any]], picture: str, size: Size) -> dict[str, Any]:
    """The content of a file: ReasonSeg's `text` and `is_sentence`, and all that labelme asks for."""
    return {
        "version": VERSION,
        "flags": {},
        "text": queries,
        "is_sentence": True,
        "shapes": shapes,
        "imagePath": picture,
        "imageData": None,
        "imageHeight": size[1],
        "imageWidth": size[0],
    }


def polygon_shape(label: str, ring: Ring) -> dict[str, Any]:
    """An outline [n, 2] of (x, y) as it stands."""
    return _shape(label, "polygon", ring.tolist())


def mask_shape(label: str, mask: BoolMask) -> list[dict[str, Any]]:
    """The pixels of a mask bool [H, W] as labelme has them: the box, and a PNG of what is in it. None for no pixel."""
    box = box_of(mask)
    if box is None:
        return []
    x1, y1, x2, y2 = map(int, box)
    buffer = io.BytesIO()
    Image.fromarray(mask[y1:y2, x1:x2].astype(np.uint8)).save(buffer, "PNG")
    corners = [[float(x1), float(y1)], [float(x2 - 1), float(y2 - 1)]]
    return [_shape(label, "mask", corners) | {"mask": base64.b64encode(buffer.getvalue()).decode("ascii")}]


def _shape(label: str, kind: str, points: list[list[float]]) -> dict[str, Any]:
    return {
        "label": label,
        "points": points,
        "group_id": None,
        "description": "",
        "shape_type": kind,
        "flags": {},
    }


def by_file(samples: Iterable[Sample]) -> Iterator[tuple[str, list[Sample]]]:
    """The name of each file with the samples in it: NAME-0, NAME-1, ... of one picture and target together.

    Raises:
        ValueError: an id cannot be the name of a file, or two files would have the same name.
    """
    names: set[str] = set()
    for group in _runs(samples):
        name = _stem(group[0]) if len(group) > 1 else group[0].id
        where = f"sample {group[0].id!r:.80}"
        if not name.strip(".") or set(name) & _NO_NAME or len(name.encode(errors="surrogatepass")) > _LONGEST:
            raise ValueError(f"{where}: its id cannot be the name of a file")
        if name in names:
            raise ValueError(f"{where}: an earlier sample has the file {name!r:.80} already")
        names.add(name)
        yield name, group


def _runs(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    run: list[Sample] = []
    for sample in samples:
        if run and not _goes_on(run, sample):
            yield run
            run = []
        run.append(sample)
    if run:
        yield run


def _stem(first: Sample) -> str:
    return first.id.rpartition("-")[0]


def _goes_on(run: list[Sample], sample: Sample) -> bool:
    first = run[0]
    same = sample.image is first.image and sample.target is first.target
    return same and first.id.endswith("-0") and sample.id == f"{_stem(first)}-{len(run)}"
