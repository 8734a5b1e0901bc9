"""Faults of a data set, worst first: pictures, boxes, points, masks, ids, queries, coordinates mixed up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dpad_fast._mask_geometry import box_of
from dpad_fast.data.coordinates import ORIGINAL, Verdict, coordinate_space
from dpad_fast.data.findings import Findings, Problem, Report
from dpad_fast.data.resize import raw_picture
from dpad_fast.pictures import decoding, open_picture, upright_size
from dpad_fast.types import BoolMask, Box, Sample, Size, Target

__all__ = ["Problem", "Report", "Verdict", "check", "coordinate_space", "picture_digests", "size_of", "truth_box"]

WORDS = 60
_MOST_BOXES = 2000  # that the coordinates are told from; more say no more
_RELEASED: Size = (840, 840)


def check(
    samples: Iterable[Sample],
    *,
    unread: Sequence[str] = (),
    against: set[bytes] | None = None,
    words: int = WORDS,
    resized: Size | None = None,
) -> Report:
    """Looks for faults of a data set. Every picture is decoded once; memory grows by a digest for each.

    Args:
        samples: the rows, as `dpad_fast.data.load` yields them.
        unread: messages of rows that could not be read. A list that a loader's `on_error` appends to while the
            samples are read will do.
        against: `picture_digests` of another set, which must not share a picture.
        words: a query of more is listed.
        resized: a size at which boxes may have been written.

    Returns:
        The report; an empty set has one of no rows.
    """
    found, state = Findings(), _State(against, words)
    rows = 0
    for sample in samples:
        rows += 1
        _check_sample(sample, found, state)
    for message in unread:
        found.add("unread", message)
    verdict = None
    if state.boxes:
        verdict = coordinate_space(
            state.boxes, state.sizes, state.truths, tried={_name(size): [size] * len(state.boxes) for size in
            ([resized] if resized else [_RELEASED])},
        )  # fmt: skip
        _judge(verdict, found)
    return Report(rows + len(unread), found.problems(), verdict, state.numbers(rows))


def _judge(verdict: Verdict, found: Findings) -> None:
    right = ORIGINAL in verdict.same and verdict.order == "xyxy"
    if verdict.space is None:
        found.add("unknown-space", verdict.why)
    elif not right and verdict.sure == "sure":
        found.add("coordinates", f"they are {verdict.space} {verdict.order} ({verdict.why})", verdict.rows)
    elif not right:
        found.add("unknown-space", f"they may be {verdict.space} {verdict.order}: {verdict.why}")


def _name(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


class _State:
    """The state between rows."""

    def __init__(self, against: set[bytes] | None, words: int) -> None:
        self.against, self.words = against, words
        self.ids: set[str] = set()
        self.pairs: set[bytes] = set()
        self.boxes: list[Box] = []
        self.sizes: list[Size] = []
        self.truths: list[Box | None] = []
        self.shared: set[bytes] = set()
        self.last: tuple[Any, tuple[bytes, Size | None]] | None = None
        self._ignored: list[float] = []
        self._pictures: set[bytes] = set()

    def saw(self, digest: bytes, target: Target) -> None:
        self._pictures.add(digest)
        if target.ignore is not None:
            self._ignored.append(float(target.ignore.mean()))

    def numbers(self, rows: int) -> dict[str, float]:
        found: dict[str, float] = {"pictures": len(self._pictures), "rows with ignored pixels": len(self._ignored)}
        if self._ignored:
            found["mean share of ignored pixels in these"] = round(float(np.mean(self._ignored)), 4)
        return found


def _check_sample(sample: Sample, found: Findings, state: _State) -> None:
    place, target = _place(sample), sample.target
    if sample.id in state.ids:
        found.add("id-twice", place)
    state.ids.add(sample.id)
    if not sample.query.strip():
        found.add("query-empty", place)
    count = len(sample.query.split())
    if count > state.words:
        found.add("long", f"{place}: {count} words")
    digest, size = _look(sample, place, found, state)
    if digest:
        pair = hashlib.sha256(digest + sample.query.encode("utf-8", "surrogatepass")).digest()[:16]
        if pair in state.pairs:
            found.add("row-twice", place)
        state.pairs.add(pair)
        if state.against is not None and digest in state.against and digest not in state.shared:
            state.shared.add(digest)
            found.add("shared", place)
        state.saw(digest, target)
    if size is not None and target.image_size not in (None, size):
        said = target.image_size
        assert said is not None
        found.add("size", f"{place}: the picture is {_name(size)}, the truth says {_name(said)}")
    _check_target(place, target, target.image_size or size, found, state)


def _check_target(place: str, target: Target, size: Size | None, found: Findings, state: _State) -> None:
    truth = truth_box(target)
    empty = target.mask is not None and not target.mask.any()
    if empty or (truth is None and target.box is None and target.points is None and not target.objects):
        found.add("no-target", place)
    boxes = [] if target.box is None else [("box", target.box)]
    boxes += [(f"objects[{i}].box", box) for i, (box, _) in enumerate(target.objects)]
    for name, box in boxes:
        _check_box(f"{place}: {name} {_short(box)}", box, size, found)
        if size is not None and len(state.boxes) < _MOST_BOXES:
            state.boxes.append(box)
            state.sizes.append(size)
            state.truths.append(truth if name == "box" else None)
    if target.box is not None and truth is not None and _iou(target.box, truth) < 0.9:
        found.add("box-mask", f"{place}: box {_short(target.box)}, its mask's {_short(truth)}")
    points = list(target.points or ()) + [point for _, point in target.objects]
    if size is not None and any(not (0 <= x <= size[0] and 0 <= y <= size[1]) for x, y in points):
        found.add("point-off", f"{place}: {points}, the picture is {_name(size)}")
    elif target.mask is not None and not empty and any(not _inside(target.mask, *p) for p in target.points or ()):
        found.add("point-mask", f"{place}: {points}")
    if target.ignore is not None and target.ignore.mean() > 0.5:
        found.add("ignored", f"{place}: {target.ignore.mean():.0%} of the pixels")


def _check_box(example: str, box: Box, size: Size | None, found: Findings) -> None:
    if not (box[0] < box[2] and box[1] < box[3]):
        found.add("box-area", example)
    elif size is not None and (min(box[:2]) < -1 or box[2] > size[0] + 1 or box[3] > size[1] + 1):
        found.add("box-off", f"{example}, the picture is {_name(size)}")


def truth_box(target: Target) -> Box | None:
    """The box of the mask, or else of the polygons; None where there is neither, or no pixel."""
    if target.mask is not None:
        return box_of(target.mask)
    if not target.polygons:
        return None
    low = np.min([ring.min(axis=0) for ring in target.polygons], axis=0)
    high = np.max([ring.max(axis=0) for ring in target.polygons], axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _iou(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def _inside(mask: BoolMask, x: float, y: float) -> bool:
    row, column = min(int(y + 0.5), mask.shape[0] - 1), min(int(x + 0.5), mask.shape[1] - 1)
    return x > -0.5 and y > -0.5 and bool(mask[row, column])


def _place(sample: Sample) -> str:
    image = sample.image
    return f"{sample.id} ({image})" if isinstance(image, str) and len(image) < 500 else sample.id


def _short(box: Box) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


def _look(sample: Sample, place: str, found: Findings, state: _State) -> tuple[bytes, Size | None]:
    """A digest of the picture (b"" where there is none) and its size; each file is read once for rows in a row."""
    source = sample.image
    if isinstance(source, str) and state.last is not None and state.last[0] == source:
        return state.last[1]
    seen: tuple[bytes, Size | None] = b"", None
    try:
        seen = _decoded(source, sample.id)
    except FileNotFoundError as error:
        found.add("picture-missing", f"{place}: {error.filename}")
    except ValueError as error:
        found.add("picture-broken", f"{place}: {error}")
    if isinstance(source, str):
        state.last = (source, seen)
    return seen


def _decoded(source: Any, name: str) -> tuple[bytes, Size]:
    """Digest and size; `FileNotFoundError` where there is no file, `ValueError` where it cannot be decoded."""
    if isinstance(source, str) and source[:5].lower() != "data:" and not Path(source).is_file():
        raise FileNotFoundError(2, "No such file", source)
    raw, path = raw_picture(source, name)
    image: Any = source if raw is None else open_picture(raw, path or name)
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.asarray(image))
    with decoding(path or name):
        size = upright_size(image)
        image.load()
        digest = hashlib.sha256(image.tobytes() if raw is None else raw).digest()[:16]
    return digest, size


def size_of(sample: Sample) -> Size:
    """(width, height) of the picture that the truth belongs to: as the target says it, or else as the file does.

    Raises:
        ValueError: the target does not say it and the picture cannot be read.
    """
    if sample.target.image_size is not None:
        return sample.target.image_size
    raw, path = raw_picture(sample.image, sample.id)
    image: Any = sample.image if raw is None else open_picture(raw, path or sample.id)
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.asarray(image))
    return upright_size(image)


def picture_digests(samples: Iterable[Sample]) -> set[bytes]:
    """Digests of the pictures of a set, for `check(against=...)`; pictures that cannot be decoded are left out."""
    found, last = set(), None
    for sample in samples:
        if isinstance(sample.image, str) and sample.image == last:
            continue
        last = sample.image if isinstance(sample.image, str) else None
        try:
            found.add(_decoded(sample.image, sample.id)[0])
        except (ValueError, OSError):
            continue
    return found
