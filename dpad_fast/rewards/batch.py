"""A batch between the scorer's stages, and its `ScoreBatch`."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from dpad_fast._native.numbers import float32
from dpad_fast.clip.images import Picture
from dpad_fast.rewards.config import FORMAT_TERMS, RewardConfig
from dpad_fast.rewards.places import CaptionRow
from dpad_fast.rewards.reasons import explain_zeros
from dpad_fast.row_errors import RowErrors, moved
from dpad_fast.types import ScoreBatch


@dataclass
class Batch:
    """The result of the stage without the encoder, which the stage with the encoder completes.

    Attributes:
        count: N.
        columns: per term N values.
        reasons: N reason codes.
        captions: the rows whose captions are to be compared.
        pictures: the distinct ones.
        timings: seconds per stage so far.
        errors: the rows that cannot be scored.
        similarity: "roi" (S1) and "aoi" (S2), N values each.
    """

    count: int
    columns: dict[str, list[float]]
    reasons: list[str | None]
    captions: list[CaptionRow]
    pictures: list[Picture]
    timings: dict[str, float]
    errors: RowErrors
    similarity: dict[str, list[float]] = field(init=False)

    def __post_init__(self) -> None:
        self.similarity = {name: [float("nan")] * self.count for name in ("roi", "aoi")}


def fails_gate(columns: dict[str, list[float]], config: RewardConfig) -> frozenset[int]:
    """The completions of which only the format terms count, since they are malformed; without `gate` there are none."""
    if not config.gate:
        return frozenset()
    formats = zip(*(columns[name] for name in FORMAT_TERMS), strict=True)
    return frozenset(i for i, (tags, answer) in enumerate(formats) if tags < 1.0 or answer < 1.0)


def combine(batch: Batch, config: RewardConfig) -> ScoreBatch:
    """The gate, the rows that cannot be scored, the reasons and the weighted sum."""
    columns, errors = batch.columns, batch.errors
    failed = fails_gate(columns, config)
    for name in config.terms:
        if name not in FORMAT_TERMS:
            for i in failed:
                columns[name][i] = 0.0
    for i in errors.rows():
        batch.reasons[i] = errors.code(i)
        for column in (*columns.values(), *batch.similarity.values()):
            column[i] = float("nan")
    explain_zeros(columns, batch.reasons, config.terms)
    terms = {name: float32(columns[name]) for name in config.terms}
    total = torch.zeros(batch.count, dtype=torch.float32, device="cpu")
    for name, values in terms.items():
        weight = config.weight(name)
        total += values if weight == 1.0 else weight * values
    return ScoreBatch(
        total=total,
        terms=terms,
        similarity={name: float32(found) for name, found in batch.similarity.items()},
        reasons=tuple(batch.reasons),
        timings=batch.timings,
        errors=errors.messages(batch.count),
    )


def joined(parts: list[ScoreBatch], first: int = 0) -> ScoreBatch:
    """Batches one behind the other, from a row on; messages name the row of the whole."""
    errors: list[str | None] = []
    timings: dict[str, float] = {}
    for part in parts:
        errors += [moved(error, first) for error in part.errors] if first else list(part.errors)
        for stage, seconds in part.timings.items():
            timings[stage] = timings.get(stage, 0.0) + seconds
    return ScoreBatch(
        total=torch.cat([part.total for part in parts]),
        terms={name: torch.cat([part.terms[name] for part in parts]) for name in parts[0].terms},
        similarity={name: torch.cat([part.similarity[name] for part in parts]) for name in parts[0].similarity},
        reasons=tuple(reason for part in parts for reason in part.reasons),
        timings=timings,
        errors=tuple(errors),
    )
