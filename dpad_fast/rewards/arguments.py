"""The scorer's columns as callers give them: their lengths, and each completion, ground truth and picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from typing import Any

import torch

from dpad_fast.clip.images import Picture
from dpad_fast.rewards import geometry
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.parse import parse_completion
from dpad_fast.rewards.spaces import ModelSizes
from dpad_fast.row_errors import RowErrors, given_error, no_text
from dpad_fast.types import Completion, Target


def read_completions(completions: Sequence[str], config: RewardConfig, errors: RowErrors) -> list[Completion]:
    """N parsed completions; one that is not a string is its row's error, and is parsed as an empty text."""
    parsed = []
    for i, text in enumerate(completions):
        if not isinstance(text, str):
            errors.add(i, no_text(text, f"completions[{i}]"))
            text = ""
        parsed.append(parse_completion(text, config))
    return parsed


def read_targets(targets: Sequence[Target | str], config: RewardConfig, errors: RowErrors) -> list[Target]:
    """N ground truths, checked for the fields that the configuration reads; a row in error gets an empty target."""
    nothing = Target()
    truths = []
    right: dict[object, Target] = {}  # the rows of a group share one, which is checked once
    for i, target in enumerate(targets):
        found = nothing
        if i not in errors:
            key = id(target) if isinstance(target, Target) else target if type(target) is str else None
            try:
                found = right[key] if key in right else _read_target(target, i, config)
            except ValueError as error:
                errors.add(i, error)
            else:
                if key is not None:  # it is held here, so that its address stays its own
                    right[key] = found
        truths.append(found)
    return truths


def _read_target(target: Target | str, i: int, config: RewardConfig) -> Target:
    given_error(target, f"targets[{i}]")
    if isinstance(target, str):
        if config.answer == "released":
            # The released code scores an unreadable text 0; a space keeps an empty text apart from no text.
            return Target(text=target or " ")
        try:
            target = Target.parse(target)
        except ValueError as error:
            raise ValueError(f"targets[{i}]: {error}") from None
    if not isinstance(target, Target):
        raise ValueError(f"targets[{i}] must be a Target or a string, got {type(target).__name__}")
    if config.answer == "objects":
        if not target.objects:
            raise ValueError(f"targets[{i}].objects is empty; the multi-object terms need at least one")
    elif not (config.answer == "released" and target.text):
        if config.needs_encoder or any(term in config.terms for term in ("iou", "box_l1")):
            geometry.check_box(target.box, f"targets[{i}].box")
        if "point_l1" in config.terms and target.points is None:
            raise ValueError(f"targets[{i}].points is missing; the term 'point_l1' needs it")
    if config.region == "mask" and config.needs_encoder:
        geometry.check_mask(target, i)
    return target


def check_pictures(pictures: Sequence[Picture], index: Sequence[int], errors: RowErrors) -> None:
    """Checks every image, since a bad one is the caller's mistake whether or not a completion uses it."""
    for place, picture in enumerate(pictures):
        try:
            picture.check()
        except ValueError as error:
            for row in (i for i, found in enumerate(index) if found == place):
                errors.add(row, error)


def snapshot(column: Any) -> Any:
    """A copy of a column, which its caller may change later; a value that is no column is refused when scored."""
    return list(column) if isinstance(column, Iterable) and not isinstance(column, str) else column


def tensors(*columns: Any) -> list[torch.Tensor]:
    """The entries of columns that are tensors, which may lie on a GPU."""
    return [
        entry for column in columns if isinstance(column, list) for entry in column if isinstance(entry, torch.Tensor)
    ]


def check_lengths(
    completions: Sequence[str], targets: Sequence[Any], images: Sequence[Any] | None, sizes: ModelSizes | None
) -> int:
    """N, the length that all columns must have."""
    if isinstance(completions, str):
        raise ValueError("completions must be a list of strings, got one string")
    optional = {"images": images, "model_sizes": None if callable(sizes) else sizes}
    given = {name: column for name, column in optional.items() if column is not None}
    for name, column in {"completions": completions, "targets": targets, **given}.items():
        if not isinstance(column, Sized):
            raise ValueError(f"{name} must be a list with an entry per completion, got {type(column).__name__}")
        if len(column) != len(completions):
            raise ValueError(f"{name} has {len(column)} entries for {len(completions)} completions")
    return len(completions)
