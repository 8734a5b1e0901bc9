"""The terms that need no encoder, and the rows that the encoder will compare."""

from __future__ import annotations

from collections.abc import Collection

import torch

from dpad_fast.rewards import geometry, matching
from dpad_fast.rewards.config import BOX_TERMS, RewardConfig
from dpad_fast.rewards.format import answer_format, non_repeat, think_format
from dpad_fast.rewards.geometry import Truth
from dpad_fast.rewards.places import CaptionRow
from dpad_fast.row_errors import RowErrors
from dpad_fast.types import Completion, Point, Target


def term_columns(
    config: RewardConfig,
    parsed: list[Completion],
    targets: list[Target],
    truths: list[Truth],
    scales: list[Point | None],
    errors: RowErrors,
) -> dict[str, list[float]]:
    """N values for each term that needs no encoder; always those of the format terms, for the gate.

    Args:
        config: which terms.
        parsed: N completions.
        targets: N ground truths.
        truths: their boxes and points (`geometry.read_truths`).
        scales: N factors (`find_spaces`).
        errors: takes the rows whose target has no mask; what the columns hold for its rows means nothing.
    """
    columns = {name: [0.0] * len(parsed) for name in config.terms}
    columns["think_format"] = [think_format(completion) for completion in parsed]
    columns["answer_format"] = [answer_format(completion) for completion in parsed]
    if any(term in config.terms for term in BOX_TERMS):
        columns |= _box_columns(config, parsed, truths, scales)
    if "mask_iou" in config.terms and config.segmenter is None:
        columns["mask_iou"] = _mask_column(config, parsed, targets, scales, errors)
    if "accuracy" in config.terms:
        for i in errors.scored(len(parsed)):
            columns["accuracy"][i] = matching.accuracy_term(parsed[i], targets[i], config, scales[i])
    if "non_repeat" in config.terms:
        columns["non_repeat"] = [non_repeat(completion.text) for completion in parsed]
    return columns


def _mask_column(
    config: RewardConfig, parsed: list[Completion], targets: list[Target], scales: list[Point | None], errors: RowErrors
) -> list[float]:
    """The term of polygons; `errors` takes the rows whose target has no mask."""
    column = [0.0] * len(parsed)
    drawn: tuple[Target, torch.Tensor] | None = None  # a group's rows follow one another; all masks may be gigabytes
    for i in errors.scored(len(parsed)):
        try:
            if drawn is None or drawn[0] is not targets[i]:
                drawn = targets[i], geometry.target_mask(targets[i], i)
            column[i] = geometry.mask_term(parsed[i], *drawn, config, scales[i])
        except ValueError as error:
            errors.add(i, error)
    return column


def _box_columns(
    config: RewardConfig, parsed: list[Completion], truths: list[Truth], scales: list[Point | None]
) -> dict[str, list[float]]:
    """The terms of one box and two points."""
    boxes = [
        None if completion.box is None else geometry.scale_box(completion.box, scale)
        for completion, scale in zip(parsed, scales, strict=True)
    ]
    columns = {}
    if "iou" in config.terms:
        limit = config.iou_threshold
        columns["iou"] = [geometry.iou_term(box, truth, limit) for box, (truth, _) in zip(boxes, truths, strict=True)]
    if "box_l1" in config.terms:
        limit = config.box_l1_threshold
        columns["box_l1"] = [
            geometry.box_l1_term(box, truth, limit) for box, (truth, _) in zip(boxes, truths, strict=True)
        ]
    if "point_l1" in config.terms:
        limit = config.point_threshold
        columns["point_l1"] = [
            geometry.point_l1_term(completion.points, box, points, limit, scale)
            for completion, box, (_, points), scale in zip(parsed, boxes, truths, scales, strict=True)
        ]
    return columns


def caption_rows(
    config: RewardConfig,
    parsed: list[Completion],
    targets: list[Target],
    truths: list[Truth],
    scales: list[Point | None],
    failed: Collection[int],
    index: list[int] | None,
    errors: RowErrors,
) -> list[CaptionRow]:
    """The rows whose captions are compared with their pictures.

    Args:
        config: what is compared.
        parsed: N completions.
        targets: N ground truths.
        truths: their boxes and points (`geometry.read_truths`).
        scales: N factors (`find_spaces`).
        failed: the rows that the gate zeroes (`fails_gate`).
        index: N numbers of the rows' pictures; None: there are none.
        errors: the rows that are left out.

    Raises:
        ValueError: there are no pictures.
    """
    if index is None:
        raise ValueError("images is missing: the term 'discriminative' needs them")
    rows = []
    for i in errors.scored(len(parsed)):
        completion = parsed[i]
        # The released code scores an empty caption; elsewhere there is nothing to compare.
        silent = not completion.caption and config.answer != "released"
        if completion.caption is None or silent or i in failed:
            continue
        box = None
        if config.region == "predicted" and completion.box is not None:
            box = geometry.numbers(geometry.scale_box(completion.box, scales[i]))
        rows.append(CaptionRow(i, completion.caption, targets[i], truths[i][0], box, index[i]))
    return rows
