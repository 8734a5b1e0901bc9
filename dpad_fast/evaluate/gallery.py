"""The samples and answers of a report as plain data, for its page to draw, filter and sort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dpad_fast.evaluate.answers import scale_to
from dpad_fast.evaluate.drawing import thumbnail
from dpad_fast.evaluate.lookup import Lookup, decode_mask, judge_of
from dpad_fast.evaluate.measure import chain_of
from dpad_fast.evaluate.results import Row, Series, boxes_of, iou_of, number, points_of, size_of
from dpad_fast.evaluate.reward_terms import TermReader
from dpad_fast.evaluate.small_masks import small_mask
from dpad_fast.ops.polygons import rasterize_polygons
from dpad_fast.rewards import parse_completion
from dpad_fast.rewards.spaces import in_pixels
from dpad_fast.types import Sample, Size, Target

THUMB, THUMB_OF_MANY, MANY = 224, 128, 1000
"""Longest side of a thumbnail in pixels; the same where there are more than `MANY` samples; and `MANY`."""
_MOST_DRAWN = 64  # boxes or points of an answer


def gallery(series: Sequence[Series], lookup: Lookup, thumb: int | None = None, limit: int = 0) -> dict[str, Any]:
    """All that the page's gallery needs.

    Args:
        series: records.
        lookup: finds samples.
        thumb: longest side of pictures in pixels, 0 for no pictures; None: `THUMB`, or `THUMB_OF_MANY`.
        limit: so many samples at most, in order; 0 for all.

    Returns:
        {"series": [{name, run, moment}], "samples": [...], "answers": per series per sample a list of answers,
        "pictures": a data URI or None per sample}.

    Raises:
        ValueError: see `Lookup.find`.
    """
    groups = [one.groups() for one in series]
    ids = list(dict.fromkeys(name for found in groups for name in found))
    ids = ids[:limit] if limit else ids
    side = thumb if thumb is not None else THUMB_OF_MANY if len(ids) > MANY else THUMB
    place = {name: i for i, name in enumerate(ids)}
    readers = [Reader(one) for one in series]
    samples: list[dict[str, Any]] = [_unknown(name, groups) for name in ids]
    pictures: list[str | None] = [None] * len(ids)
    answers: list[list[list[dict[str, Any]]]] = [[[] for _ in ids] for _ in series]
    for sample in lookup.find(series, ids):
        i = place[sample.id]
        samples[i], pictures[i] = _described(sample, side, lookup)
        _answer(answers, i, groups, readers, sample, samples[i]["size"])
    for i, name in enumerate(ids):
        if not any(column[i] for column in answers):
            _answer(answers, i, groups, readers, Sample(name, b"", "", Target()), None)
    told = [{"name": one.name, "run": one.run, "moment": one.moment} for one in series]
    return {"series": told, "samples": samples, "answers": answers, "pictures": pictures}


def _answer(
    answers: list[list[list[dict[str, Any]]]],
    i: int,
    groups: Sequence[Mapping[str, Sequence[Row]]],
    readers: Sequence[Reader],
    sample: Sample,
    size: Size | None,
) -> None:
    for column, rows, reader in zip(answers, groups, readers, strict=True):
        column[i] = reader.answers(rows.get(sample.id, ()), sample, size)


def _unknown(name: str, groups: Sequence[Mapping[str, Sequence[Row]]]) -> dict[str, Any]:
    """A sample of which no more is known than a record says."""
    queries = (row.get("query") for rows in groups for row in rows.get(name, ()))
    query = next((query for query in queries if isinstance(query, str)), "")
    return {"id": name, "query": query, "size": None, "boxes": [], "points": [], "mask": None}


def _described(sample: Sample, side: int, lookup: Lookup) -> tuple[dict[str, Any], str | None]:
    target = sample.target
    size: Size | None = target.image_size
    picture = None
    if side and sample.image is not None:
        try:
            own, picture = thumbnail(sample.image, side)
            size = size or own
        except (ValueError, OSError) as error:
            lookup.notes.append(f"{sample.id}: {error}")
    mask = target.mask
    if mask is None and target.polygons and size is not None:
        drawn = rasterize_polygons(list(target.polygons), *size, rule="opencv", out="dense")
        mask = drawn.numpy().any(axis=0)
    told = {
        "id": sample.id,
        "query": sample.query,
        "size": None if size is None else list(size),
        "boxes": boxes_of([target.box, *(box for box, _ in target.objects)]),
        "points": points_of([*(target.points or ()), *(point for _, point in target.objects)]),
        "mask": small_mask(mask),
    }
    return told, picture


class Reader:
    """Reads the records of one series: what they hold, and for those of training what their text says.

    Args:
        series: the records.
    """

    def __init__(self, series: Series) -> None:
        self.config = judge_of(series)
        self._terms = TermReader(self.config)

    def answers(self, rows: Sequence[Row], sample: Sample, size: Size | None) -> list[dict[str, Any]]:
        """The answers of one sample.

        Args:
            rows: its records.
            sample: what they are about; its target may be empty.
            size: (width, height) that boxes refer to, or None where it is not known.

        Returns:
            One plain dictionary each.
        """
        return [self._answer(row, sample, None if size is None else (size[0], size[1])) for row in rows]

    def _answer(self, row: Row, sample: Sample, size: Size | None) -> dict[str, Any]:
        text = row.get("text") or ""
        known = "box" in row
        seen = size_of(row.get("model_size")) or self.config.model_size or size
        parsed = {} if known else self._parsed(text, size, seen)
        reason = row.get("reason")
        chain, caption = row.get("chain"), row.get("caption")
        told = {
            "text": text,
            "chain": chain if isinstance(chain, str) else chain_of(text) if "<think>" in text else None,
            "caption": caption if isinstance(caption, str) else parsed.get("caption"),
            "boxes": (boxes_of(row.get("boxes") or [row.get("box")]) if known else parsed["boxes"])[:_MOST_DRAWN],
            "points": (points_of(_points(row)) if known else parsed["points"])[:_MOST_DRAWN],
            "mask": _mask_of(row),
            "iou": _rounded(iou_of(row)),
            "box_iou": _rounded(_box_iou(row)),
            "s1": number(row.get("s1")),
            "s2": number(row.get("s2")),
            "tokens": number(row.get("chain_tokens")),
            "reason": reason if isinstance(reason, str) else None,
            "terms": {name: [_rounded(value), why] for name, (value, why) in self._terms.of(row, sample, seen).items()},
        }
        return {key: value for key, value in told.items() if value not in (None, [], {})}

    def _parsed(self, text: str, size: Size | None, seen: Size | None) -> dict[str, Any]:
        answer = parse_completion(text, self.config)
        caption = answer.caption
        if size is not None and answer.fields_ok:
            answer = in_pixels(answer, scale_to(size, self.config.coordinates, lambda _: seen))
        parts = answer.objects or ()
        return {
            "caption": caption,
            "boxes": boxes_of([answer.box, *(box for box, _ in parts)]),
            "points": points_of([*(answer.points or ()), *(point for _, point in parts)]),
        }


def _points(row: Row) -> list[Any]:
    """The points of an answer, and those of its boxes where it has several."""
    return [point for name in ("points", "box_points") if isinstance(row.get(name), list) for point in row[name]]


def _mask_of(row: Row) -> dict[str, Any] | None:
    try:
        return small_mask(decode_mask(row.get("prediction")))
    except ValueError as error:
        raise ValueError(f"{row['id']}: prediction: {error}") from None


def _box_iou(row: Row) -> float | None:
    """Of the areas [I, U] that evaluate counted; None where no box was to be compared."""
    areas = row.get("box_areas")
    shared, union = map(number, areas) if isinstance(areas, list) and len(areas) == 2 else (None, None)
    return shared / union if shared is not None and union else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
