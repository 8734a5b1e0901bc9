"""Measurements of completions: one record of plain numbers each, and the table rows made from them."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING as MISSING_DEFAULT
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from dpad_fast.data.shapes import ShapesSample
from dpad_fast.data.shapes_text import GENERIC_CAPTIONS, is_focused, named_shape
from dpad_fast.evaluate.metrics import Estimate, overlap, ratio_estimate
from dpad_fast.evaluate.small_masks import RECORD_COUNTS, RECORD_SIDE, small_mask
from dpad_fast.rewards import RewardScorer, parse_completion
from dpad_fast.rewards.parse import find_between
from dpad_fast.segmenters import Segmenter
from dpad_fast.types import BoolMask, Completion, Sample, Size

MISSING = "missing"
"""The reason code of a sample without a prediction, where such samples count as 0."""


@dataclass(frozen=True)
class Record:
    """One completion, measured.

    Attributes:
        id: of the sample.
        text: the completion.
        chain_tokens: tokens between the think tags; of everything after `<think>` where the tag is never closed.
        intersection: pixels shared by the predicted and the target mask.
        union: pixels covered by either; the target's where the answer cannot be read.
        format_ok: tags and answer are as asked.
        s1: cosine of caption and target region, None where there was nothing to compare.
        s2: cosine of caption and whole image.
        reason: reason code of the scorer, None where the text is right and no term is zero.
        right: the answer is about the target (shapes world only).
        focused: the chain goes straight to the clue (shapes world only).
        names: what the caption says: "target" or "other" for a shape of the scene, "generic" for one of the captions
            that fit any scene, "absent" for anything else, such as a shape that is not there (shapes world only).
        model_size: (width, height) that the answer's pixels are of, where it is another than the ground truth's.
        prediction: the answer's mask for the report, {"size": [h, w], "counts"}, thinned (see `small_masks`); None
            where it is the answer's box.
    """

    id: str
    text: str
    chain_tokens: int
    intersection: int
    union: int
    format_ok: bool
    s1: float | None = None
    s2: float | None = None
    reason: str | None = None
    right: bool | None = None
    focused: bool | None = None
    names: str | None = None
    model_size: list[int] | None = None
    prediction: dict[str, Any] | None = None

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where both masks are empty, 0 where there is no answer at all."""
        return self.intersection / self.union if self.union else float(self.reason != MISSING)

    @property
    def s1_wins(self) -> bool:
        """Whether the description fits the region better than the image; not where there was nothing to compare."""
        return self.s1 is not None and self.s2 is not None and self.s1 > self.s2


@dataclass(frozen=True)
class Metric:
    """One column of a table: a ratio of sums over records."""

    label: str
    top: Callable[[Record], float]
    bottom: Callable[[Record], float]
    applies: Callable[[Record], bool] = lambda record: True
    percent: bool = False


def _count_one(record: Record) -> float:
    return 1.0


METRICS: dict[str, Metric] = {
    "chain_tokens": Metric("chain tokens", lambda r: r.chain_tokens, _count_one, lambda r: r.reason != MISSING),
    "giou": Metric("gIoU", lambda r: r.iou, _count_one),
    "ciou": Metric("cIoU", lambda r: r.intersection, lambda r: r.union),
    "s1_wins": Metric("S1 > S2", lambda r: r.s1_wins, _count_one, percent=True),
    "format": Metric("format", lambda r: r.format_ok, _count_one, percent=True),
    "right": Metric("right target", lambda r: bool(r.right), _count_one, lambda r: r.right is not None, percent=True),
    "focused": Metric(
        "focused chains", lambda r: bool(r.focused), _count_one, lambda r: r.focused is not None, percent=True
    ),
}


def chain_of(text: str) -> str:
    """The reasoning chain of a completion: between the think tags, or all after an unclosed one, or all of it."""
    inside = find_between(text, "think")
    return inside if inside is not None else text.partition("<think>")[2] or text


def shape_concerned(answer: Completion, item: ShapesSample) -> int | None:
    """Which shape an answer is about: the one that its box overlaps most, else its caption names; None for neither.

    Args:
        answer: the parsed completion.
        item: the scene.

    Returns:
        Index into `item.scene.objects`, or None.
    """
    if answer.box is not None:
        shared = [_box_iou(answer.box, shape.box) for shape in item.scene.objects]
        best = int(np.argmax(shared))
        if shared[best] > 0:
            return best
    return named_shape(answer.caption or "", item.scene.objects)


def _box_iou(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def measure(
    texts: Sequence[str],
    items: Sequence[Sample],
    scorer: RewardScorer,
    count_tokens: Callable[[str], int],
    segmenter: Segmenter,
    ignore_as: str = "drop",
    model_sizes: Sequence[Size | None] | None = None,
    keep_masks: bool = False,
) -> list[Record]:
    """Measure N completions.

    Args:
        texts: N completions.
        items: N samples, the one that each completion answers; the target needs a mask.
        scorer: its format terms and similarities are recorded.
        count_tokens: number of tokens of a text.
        segmenter: makes the predicted mask from the answer.
        ignore_as: "drop" or "target": how ignored pixels of the ground truth count.
        model_sizes: N sizes of the pictures that the answers' pixels are of; those of the ground truth when None.
        keep_masks: keep every predicted mask; otherwise those of answers with polygons.

    Returns:
        N records.

    Raises:
        ValueError: if the lengths differ or a target has no mask; names the index.
    """
    if len(texts) != len(items):
        raise ValueError(f"texts has {len(texts)} entries, items has {len(items)}")
    if not texts:
        return []
    masks: list[BoolMask] = []
    for index, item in enumerate(items):
        if item.target.mask is None:
            raise ValueError(f"items[{index}] ({item.id}) has no ground-truth mask")
        masks.append(item.target.mask)
    targets, images, keys = [i.target for i in items], [i.image for i in items], [i.id for i in items]
    sizes = model_sizes
    if sizes is None and scorer.config.model_size is None:
        # Masks are made from answers in pixels of the ground truth's picture, so similarities are too.
        sizes = [target.image_size for target in targets]
    batch = scorer.score(list(texts), targets, images, image_keys=keys, model_sizes=sizes)
    answers = [parse_completion(text, scorer.config) for text in texts]
    drawn = segmenter.segment(answers, images, [(mask.shape[1], mask.shape[0]) for mask in masks])
    records = []
    seen = [None] * len(texts) if model_sizes is None else model_sizes
    for text, item, row, answer, truth, predicted, size in zip(
        texts, items, batch.rows(), answers, masks, drawn, seen, strict=True
    ):
        shared = overlap(predicted, truth, item.target.ignore, ignore_as)
        terms = row["terms"]
        record = Record(
            id=item.id,
            text=text,
            chain_tokens=count_tokens(chain_of(text)),
            intersection=shared.intersection,
            union=shared.union,
            format_ok=all(terms.get(name, 0) > 0 for name in ("think_format", "answer_format")),
            s1=row["similarity"]["roi"],
            s2=row["similarity"]["aoi"],
            reason=row["reason"],
            model_size=None if size is None or size == truth.shape[::-1] else list(size),
            prediction=_kept(predicted) if keep_masks or answer.rings else None,
            **(_about_shapes(text, answer, item) if isinstance(item, ShapesSample) else {}),
        )
        records.append(record)
    return records


def _kept(mask: BoolMask | None) -> dict[str, Any] | None:
    return small_mask(mask, RECORD_SIDE, RECORD_COUNTS)


def _about_shapes(text: str, answer: Completion, item: ShapesSample) -> dict[str, Any]:
    target = item.question.target
    caption = answer.caption or ""
    named = named_shape(caption, item.scene.objects)
    if named is not None:
        names = "target" if named == target else "other"
    else:
        names = "generic" if caption in GENERIC_CAPTIONS else "absent"
    return {"right": shape_concerned(answer, item) == target, "focused": is_focused(chain_of(text)), "names": names}


def summarise(records: Sequence[Record], seed: int = 0) -> dict[str, Estimate]:
    """Every metric that applies to the records, with its bootstrap standard error over scenes.

    Args:
        records: measured completions.
        seed: of the bootstrap.

    Returns:
        One estimate per key of `METRICS` that applies.
    """
    found = {}
    for key, metric in METRICS.items():
        used = [record for record in records if metric.applies(record)]
        if used:
            tops, bottoms = [metric.top(r) for r in used], [metric.bottom(r) for r in used]
            found[key] = ratio_estimate(tops, bottoms, [r.id for r in used], seed=seed)
    return found


def difference(a: Sequence[Record], b: Sequence[Record], key: str, draws: int = 400, seed: int = 0) -> Estimate:
    """Metric of `a` minus metric of `b`, with a bootstrap over the scenes that both saw.

    Args:
        a: records of one policy.
        b: records of another on the same scenes.
        key: of `METRICS`.
        draws: resamples.
        seed: of the resampling.

    Returns:
        The difference and the standard deviation of its resamples.
    """
    metric = METRICS[key]
    scenes = list(dict.fromkeys(r.id for r in [*a, *b] if metric.applies(r)))
    place = {name: i for i, name in enumerate(scenes)}
    sums = np.zeros((2, 2, len(scenes)))  # policy, top or bottom, scene
    for which, records in enumerate((a, b)):
        for record in records:
            if metric.applies(record):
                sums[which, 0, place[record.id]] += metric.top(record)
                sums[which, 1, place[record.id]] += metric.bottom(record)
    whole = sums.sum(axis=2)
    if not scenes or not whole[:, 1].all():
        return Estimate(math.nan, math.nan, len(scenes))
    ratios = whole[:, 0] / whole[:, 1]
    drawn = np.random.default_rng(seed).integers(len(scenes), size=(draws, len(scenes)))
    resampled = sums[:, :, drawn].sum(axis=3)  # [2, 2, draws]
    kept = (resampled[:, 1] > 0).all(axis=0)
    drawn_ratios = resampled[:, 0, kept] / resampled[:, 1, kept]
    error = float(np.std(drawn_ratios[0] - drawn_ratios[1], ddof=1)) if kept.sum() > 1 else math.nan
    return Estimate(float(ratios[0] - ratios[1]), error, len(scenes))


def to_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Plain dictionaries, for JSON; similarities to six digits, no size and no mask where a record has none."""
    rows = [asdict(record) for record in records]
    for row in rows:
        for name in ("model_size", "prediction"):
            if row[name] is None:
                del row[name]
        for name in ("s1", "s2"):
            row[name] = None if row[name] is None else round(row[name], 6)
    return rows


def from_rows(rows: Sequence[dict[str, Any]]) -> list[Record]:
    """Records from what `to_rows` made.

    Args:
        rows: dictionaries with the fields of `Record`.

    Returns:
        The records.

    Raises:
        ValueError: if a row has other fields, or one has a value of another type; names its index.
    """
    known = {name: _classes(hint) for name, hint in typing.get_type_hints(Record).items()}
    needed = {field.name for field in fields(Record) if field.default is MISSING_DEFAULT}
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise ValueError(f"rows[{index}] must be a mapping, got {type(row).__name__}")
        if set(row) - set(known):
            raise ValueError(f"rows[{index}] has unknown fields {sorted(set(row) - set(known))}")
        if needed - set(row):
            raise ValueError(f"rows[{index}] has no {', '.join(sorted(needed - set(row)))}")
        for name, value in row.items():
            if not isinstance(value, known[name]):
                raise ValueError(f"rows[{index}].{name} is a {type(value).__name__}")
    return [Record(**row) for row in rows]


def _classes(hint: Any) -> tuple[type, ...]:
    """The classes of a field's values: `isinstance` takes no parameters such as those of list[int]."""
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(typing.get_origin(part) or part for part in parts)
