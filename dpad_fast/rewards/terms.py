"""The terms that need no encoder, and the rows that the encoder will compare."""

from __future__ import annotations

from dpad_fast.rewards import geometry, matching
from dpad_fast.rewards.batch import fails_gate
from dpad_fast.rewards.config import BOX_TERMS, FORMAT_TERMS, RewardConfig
from dpad_fast.rewards.format import answer_format, non_repeat, think_format
from dpad_fast.rewards.places import CaptionRow
from dpad_fast.row_errors import RowErrors
from dpad_fast.types import Completion, Point, Target


def term_columns(
    config: RewardConfig, parsed: list[Completion], targets: list[Target], scales: list[Point | None], errors: RowErrors
) -> dict[str, list[float]]:
    """N values for each term that needs no encoder; always those of the format terms, for the gate."""
    columns: dict[str, list[float]] = {name: [] for name in dict.fromkeys((*FORMAT_TERMS, *config.terms))}
    for i, (completion, target, scale) in enumerate(zip(parsed, targets, scales, strict=True)):
        values: dict[str, float] = {}
        if i not in errors:
            try:
                values = _values(config, completion, target, scale, i)
            except ValueError as error:
                errors.add(i, error)
        for name, column in columns.items():
            column.append(values.get(name, 0.0))
    return columns


def _values(
    config: RewardConfig, completion: Completion, target: Target, scale: Point | None, i: int
) -> dict[str, float]:
    """Every term that needs no encoder, of one completion."""
    values = {"think_format": think_format(completion), "answer_format": answer_format(completion)}
    if any(term in config.terms for term in BOX_TERMS):
        box = None if completion.box is None else geometry.scale_box(completion.box, scale)
        truth, points = geometry.read_truth(target, config)
        values["iou"] = geometry.iou_term(box, truth, config.iou_threshold)
        values["box_l1"] = geometry.box_l1_term(box, truth, config.box_l1_threshold)
        limit = config.point_threshold
        values["point_l1"] = geometry.point_l1_term(completion.points, box, points, limit, scale)
    if "mask_iou" in config.terms and config.segmenter is None:
        values["mask_iou"] = geometry.mask_term(completion, target, i, config, scale)
    if "accuracy" in config.terms:
        values["accuracy"] = matching.accuracy_term(completion, target, config, scale)
    if "non_repeat" in config.terms:
        values["non_repeat"] = non_repeat(completion.text)
    return values


def caption_rows(
    config: RewardConfig,
    parsed: list[Completion],
    targets: list[Target],
    scales: list[Point | None],
    columns: dict[str, list[float]],
    index: list[int] | None,
    errors: RowErrors,
) -> list[CaptionRow]:
    """The rows whose captions are compared with their pictures; `index` has the number of each row's picture."""
    if index is None:
        raise ValueError("images is missing: the term 'discriminative' needs them")
    rows = []
    for i, completion in enumerate(parsed):
        # The released code scores an empty caption; elsewhere there is nothing to compare.
        silent = completion.caption is None or (not completion.caption and config.answer != "released")
        if silent or i in errors or (config.gate and fails_gate(columns, i)):
            continue
        truth, _ = geometry.read_truth(targets[i], config)
        box = None
        if config.region == "predicted" and completion.box is not None:
            box = geometry.numbers(geometry.scale_box(completion.box, scales[i]))
        assert completion.caption is not None
        rows.append(CaptionRow(i, completion.caption, targets[i], truth, box, index[i]))
    return rows
