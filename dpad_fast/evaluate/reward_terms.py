"""The reward terms of a record: each with its value, and why it is zero or not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dpad_fast.evaluate.earnings import measured_discriminative
from dpad_fast.evaluate.measure import MISSING
from dpad_fast.evaluate.results import Row, box_of, iou_of, number, points_of
from dpad_fast.rewards import RewardConfig, RewardScorer, geometry, matching, parse_completion
from dpad_fast.rewards.config import FORMAT_TERMS, TERMS
from dpad_fast.rewards.format import answer_format, non_repeat, think_format
from dpad_fast.rewards.reasons import reason_of_zero
from dpad_fast.types import Completion, Sample, Size, Target

Term = tuple[float | None, str | None]
"""A value, None where it is not known; and why it is zero or not known, None where there is nothing to explain."""


class TermReader:
    """Finds the terms of records: those that they hold, and what can be computed of the rest without a model.

    Args:
        config: how texts are read, and the thresholds; those of lists of objects are the preset's for them.
    """

    def __init__(self, config: RewardConfig) -> None:
        self._config = config
        out = {"discriminative"} | ({"mask_iou"} if config.segmenter is not None else set())
        terms = tuple(dict.fromkeys((*FORMAT_TERMS, *(term for term in config.terms if term not in out))))
        self._scorer = RewardScorer(replace(config, terms=terms, weights={}, segmenter=None))
        self._objects = RewardConfig.preset("vision-reasoner")

    def of(self, row: Row, sample: Sample, seen: Size | None) -> dict[str, Term]:
        """The terms of one record, in the order of the rewards' own.

        Args:
            row: the record.
            sample: what it is about; its target may be empty.
            seen: (width, height) that pixels of the text are of, or None where that is not known.

        Returns:
            Value and reason by name. Of a record without `terms` those of the configuration; of evaluate's records
            every term of the kind of their answers; else those that it holds.
        """
        told, reason = row.get("terms"), row.get("reason")
        reason = reason if isinstance(reason, str) else None
        if told is None:
            return self._judged(row, reason, sample, seen)
        found = {str(name): _explained(str(name), number(value), reason) for name, value in told.items()}
        if "protocols" in row and reason != MISSING:
            found = self._measured(row, reason, sample.target) | found
            found = {name: found[name] for name in sorted(found, key=_place)}
        return found

    def _judged(self, row: Row, reason: str | None, sample: Sample, seen: Size | None) -> dict[str, Term]:
        text = row.get("text")
        if not isinstance(text, str):
            return {}
        sizes = None if self._config.coordinates != "pixel" or self._config.model_size is not None else [seen]
        scored = next(self._scorer.score([text], [sample.target], model_sizes=sizes, on_error="row").rows())
        if "error" in scored:
            return self._of_text(text, reason, _why(scored["error"], sample.target))
        values = {name: value for name, value in scored["terms"].items() if name in self._config.terms}
        found = {name: _explained(name, value, reason) for name, value in values.items()}
        if "discriminative" in self._config.terms:
            measured = measured_discriminative(row, scored["terms"], self._config)
            if measured is None and "s1" in row:  # it was looked at, and there was nothing to compare
                measured = 0.0
            found["discriminative"] = _explained("discriminative", measured, reason, "S1 and S2 were not measured")
        if self._config.segmenter is not None:
            found["mask_iou"] = _explained(
                "mask_iou", self._segmented(row, scored["terms"]), reason, "no mask was made"
            )
        return {name: found[name] for name in sorted(found, key=_place)}

    def _of_text(self, text: str, reason: str | None, why: str) -> dict[str, Term]:
        """The terms of a text whose ground truth is not known."""
        answer = parse_completion(text, self._config)
        known = {"think_format": think_format(answer), "answer_format": answer_format(answer)}
        known["non_repeat"] = non_repeat(text)
        return {name: _explained(name, known.get(name), reason, why) for name in self._config.terms}

    def _segmented(self, row: Row, terms: Mapping[str, float | None]) -> float | None:
        """`mask_iou` by a segmenter, of the areas that were measured."""
        if self._shut(terms):
            return 0.0
        iou = iou_of(row) if number(row.get("union")) else 0.0
        if iou is None or self._config.mask_threshold is None:
            return iou
        return float(iou > self._config.mask_threshold)

    def _shut(self, terms: Mapping[str, Any]) -> bool:
        """Whether the gate takes every other term for a format failure."""
        return self._config.gate and any((number(terms.get(name)) or 0.0) < 1 for name in FORMAT_TERMS)

    def _measured(self, row: Row, reason: str | None, target: Target) -> dict[str, Term]:
        """The terms of an answer that `dpad-fast evaluate` has read, in pixels of the ground truth's picture."""
        found: dict[str, Term] = {}
        if target.mask is not None or row.get("truth"):
            found["mask_iou"] = _explained("mask_iou", _rounded(iou_of(row)), reason, "the protocol drops the sample")
        if not row.get("terms"):  # a mask, no text
            return found
        if isinstance(row.get("boxes"), list):
            found["accuracy"] = self._accuracy(row, reason, target)
            found["non_repeat"] = _explained("non_repeat", non_repeat(row.get("text") or ""), reason)
        else:
            found |= self._one_object(row, reason, target)
        found["discriminative"] = (None, "S1 and S2 were not measured: evaluate --encoder NAME")
        return found

    def _one_object(self, row: Row, reason: str | None, target: Target) -> dict[str, Term]:
        config, box, points = self._config, box_of(row.get("box")), points_of(row.get("points"))
        if self._shut(row["terms"]):
            return {name: _explained(name, 0.0, reason) for name in ("iou", "box_l1", "point_l1")}
        if target.box is None:
            return {name: (None, "the ground truth has no box") for name in ("iou", "box_l1", "point_l1")}
        if box is None and row.get("polygons"):
            return {name: (None, "the answer is a polygon, without a box") for name in ("iou", "box_l1", "point_l1")}
        boxless = "no box in the answer" if box is None else None
        pointless = boxless or (None if len(points) == 2 else f"two points are needed, the answer has {len(points)}")
        found = {
            "iou": _explained("iou", geometry.iou_term(box, target.box, config.iou_threshold), reason, zero=boxless),
            "box_l1": _explained(
                "box_l1", geometry.box_l1_term(box, target.box, config.box_l1_threshold), reason, zero=boxless
            ),
            "point_l1": (None, "the ground truth has no points"),
        }
        if target.points is not None:
            value = geometry.point_l1_term(points, box, target.points, config.point_threshold)
            found["point_l1"] = _explained("point_l1", value, reason, zero=pointless)
        return found

    def _accuracy(self, row: Row, reason: str | None, target: Target) -> Term:
        boxes, points = row["boxes"], row.get("box_points")
        if not target.objects:
            return None, "the ground truth has no boxes with points"
        if not isinstance(points, list) or len(points) != len(boxes):
            return None, "the points of the boxes are not in the record"
        objects = tuple((_tuple(box[:4], 4), _tuple(point, 2)) for box, point in zip(boxes, points, strict=True))
        whole = bool(objects) and all(box is not None and point is not None for box, point in objects)
        answer = Completion("", objects=objects, fields_ok=whole)
        return _explained("accuracy", matching.accuracy_term(answer, target, self._objects, None), reason)


def _tuple(value: Any, length: int) -> tuple[float, ...] | None:
    found = [number(entry) for entry in value] if isinstance(value, list | tuple) else []
    return None if len(found) != length or None in found else tuple(entry for entry in found if entry is not None)


def _explained(
    name: str, value: float | None, reason: str | None, unknown: str | None = None, zero: str | None = None
) -> Term:
    """A term with its reason: `unknown` where there is no value; where it is 0 the reason of the text, else `zero`."""
    if value is None:
        return None, unknown
    if value != 0:
        return value, None
    own = reason_of_zero(name, reason)
    return value, own if zero is None or (own is not None and own == reason) else zero


def _why(error: str, target: Target) -> str:
    if target.box is None and not target.objects and target.mask is None and not target.polygons:
        return "the ground truth is not known: give --data"
    return error.replace("targets[0].", "the ground truth's ").replace("targets[0]", "the ground truth")


def _place(name: str) -> int:
    return TERMS.index(name) if name in TERMS else len(TERMS)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
