"""What a record says beside its measures: the answer, the truth, and the words."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from dpad_fast._row_target import drawn
from dpad_fast.data.deferred import Deferred
from dpad_fast.evaluate import mask_files
from dpad_fast.evaluate.boxes import answered_box, overlap, true_box
from dpad_fast.evaluate.protocols import Areas, Protocol, judge
from dpad_fast.evaluate.readers import Reading
from dpad_fast.row_images import size_of
from dpad_fast.types import BoolMask, Completion, Sample, Size

MISSING = "missing"


@dataclass(frozen=True)
class Line:
    """One prediction: a completion or a mask.

    Attributes:
        place: "FILE:NUMBER", for messages.
        text: the completion, or None.
        mask: run lengths, a path, or the name of an array of the archive; or None.
        model_size: (width, height) that the completion's coordinates refer to, where the line says it.
        number: of the line or row in its file.
    """

    place: str
    text: str | None = None
    mask: Any = None
    model_size: Size | None = None
    number: int = 0


@dataclass(frozen=True)
class Item:
    """A sample with its predictions.

    Attributes:
        sample: read, or to be read by whoever measures it.
        lines: none where nobody answered.
        later: as in `protocols.judge`.
        spare: a sample that cannot be read is left out and told, where it else is an error.
    """

    sample: Sample | Deferred
    lines: tuple[Line, ...]
    later: bool = False
    spare: bool = False


@dataclass(frozen=True)
class Case:
    """An item that was read.

    Attributes:
        sample: with its target.
        mask: the true pixels, bool [H, W]; None where the data has only boxes.
        size: (width, height) of the picture.
        lines: as in `Item`.
        later: as in `Item`.
    """

    sample: Sample
    mask: BoolMask | None
    size: Size
    lines: tuple[Line, ...]
    later: bool


def case_of(item: Item) -> Case:
    """Read an item.

    Raises:
        ValueError: the sample cannot be read, or its target has neither mask, polygons nor a box; names it.
    """
    sample = item.sample.read() if isinstance(item.sample, Deferred) else item.sample
    target = sample.target
    mask, size = target.mask, target.image_size
    if mask is None and target.polygons and size is not None:
        mask = drawn(target.polygons, size)
    if mask is None and true_box(target) is None and not target.objects:
        had = "" if target.box is None else f", whose box is {target.box}"
        raise ValueError(f"{sample.id} has neither a ground-truth mask nor a box with an area{had}")
    if mask is not None:
        size = mask.shape[1], mask.shape[0]
    return Case(sample, mask, size_of(sample.image, sample.id) if size is None else size, item.lines, item.later)


def as_list(
    protocol: Protocol, found: Areas, readable: bool, later: bool, missing: bool, says_none: bool, fits: bool
) -> list[float] | None:
    """`protocols.judge` as JSON has it: [I, U, IoU], or None."""
    verdict = judge(protocol, found, readable=readable, later=later, missing=missing, says_none=says_none, fits=fits)
    return None if verdict is None else [verdict.intersection, verdict.union, verdict.iou]


def described(
    case: Case, line: Line | None, reading: Reading | None, answer: Completion | None, count: Callable[[str], int]
) -> dict[str, Any]:
    """A record without its measures."""
    sample = case.sample
    image = sample.image if isinstance(sample.image, str | os.PathLike) else None
    record: dict[str, Any] = {
        "id": sample.id,
        "query": sample.query,
        "image": None if image is None else os.fspath(image),
        "text": "" if line is None else line.text,
        "chain": None if reading is None else reading.chain,
        "chain_tokens": None if reading is None else count(reading.chain),
        "caption": None if answer is None else answer.caption,
        "box": None if answer is None or answer.box is None else list(answer.box),
        "points": None if answer is None or answer.points is None else [list(point) for point in answer.points],
        "s1": None,
        "s2": None,
        "terms": {}
        if answer is None
        else {"think_format": float(answer.tags_ok), "answer_format": float(answer.fields_ok)},
        "reason": MISSING if line is None else None if reading is None else reading.reason,
        "format_ok": None if line is not None and reading is None else reading is not None and reading.format_ok,
        "lenient_ok": None if line is not None and reading is None else reading is not None and reading.lenient_ok,
    }
    record["box_areas"] = _box_areas(case, line, reading, answer)
    if answer is not None and answer.rings:
        record["polygons"] = [ring.tolist() for ring in answer.rings]
    if sample.target.objects:
        parts = [] if answer is None else parts_of(answer)
        scores = reading.scores if reading is not None and len(reading.scores) == len(parts) else (None,) * len(parts)
        record["boxes"] = [
            [*part.box, 1.0 if score is None else score]
            for part, score in zip(parts, scores, strict=True)
            if part.box is not None
        ]
        points = [None if not part.points else list(part.points[0]) for part in parts if part.box is not None]
        record["box_points"] = points
        record["truth_boxes"] = [list(box) for box, _ in sample.target.objects]
        record["truth_points"] = [list(point) for _, point in sample.target.objects]
    return record


def _box_areas(case: Case, line: Line | None, reading: Reading | None, answer: Completion | None) -> list[float] | None:
    """Intersection and union of the answer's box and the true one; None where there is nothing to compare."""
    truth = true_box(case.sample.target)
    if truth is None or (line is not None and line.text is None):
        return None
    return list(overlap(None if reading is None else answered_box(answer, reading.scores), truth))


def truth_of(case: Case) -> dict[str, Any]:
    """Box, points and mask of the truth, as JSON has them."""
    target = case.sample.target
    return {
        "box": None if target.box is None else list(target.box),
        "points": None if target.points is None else [list(point) for point in target.points],
        "mask": mask_files.rle_of(case.mask),
    }


def parts_of(answer: Completion) -> list[Completion]:
    """One answer per object: a list of boxes is drawn box by box, as VisionReasoner does."""
    if answer.objects is None or answer.box is not None:
        return [answer] if answer.box is not None or answer.rings else []
    return [
        replace(answer, box=box, points=None if point is None else (point,), objects=None)  # type: ignore[arg-type]
        for box, point in answer.objects
    ]
