"""The rule by which a row of the ablations agrees with the paper, disagrees, or cannot be told.

Runs are paired: seed i of every arm sees the same prompts. Of an arm's differences from R_dpad, one per seed, the rule
looks at the interval

    mean +- t * s / sqrt(n)

s is the larger of two standard deviations: that of the row's own differences, and one that is pooled over all arms of
the setting (the residuals of arms x seeds). Three seeds alone would say nothing: Student's t with two degrees of
freedom, corrected for thirty claims, is 24. t has the pooled degrees of freedom, and the level 1 - 0.05 / m, where m is
the number of claims in the table (Bonferroni), so that at most one table in twenty has a difference by chance where all
arms vary alike. Where some vary three times as much as the others it is one in twenty to one in eight
(docs/ablations.md).

A claim that the arm is *higher* agrees where the whole interval is above 0, and disagrees where it ends below what
would matter (`MATTERS`). *Lower* is the same turned round. That it is the *same* agrees where the whole interval is
within what would matter, and disagrees where it is wholly outside. Everything else cannot be told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.05
AGREES, DISAGREES, OPEN = "agrees", "disagrees", "cannot be told"
# Differences smaller than these are none that matters.
MATTERS: dict[str, float] = {
    "chain_tokens": 3.0,
    "giou": 0.03,
    "ciou": 0.03,
    "s1_wins": 0.05,
    "format": 0.02,
    "spread": 0.02,
}


@dataclass(frozen=True)
class Interval:
    """A difference from R_dpad and the interval that the rule looks at.

    Attributes:
        value: mean over seeds.
        low: its lower end; -infinity where there is no spread to judge by.
        high: its upper end.
        seeds: number of pairs.
    """

    value: float
    low: float
    high: float
    seeds: int


def verdict(says: str, interval: Interval, matters: float) -> str:
    """What an interval says of a claim; see the rule above.

    Args:
        says: "higher", "lower" or "same".
        interval: of the arm minus R_dpad.
        matters: the smallest difference that does.

    Returns:
        "agrees", "disagrees" or "cannot be told".

    Raises:
        ValueError: for another claim.
    """
    low, high = interval.low, interval.high
    if math.isnan(interval.value):
        return OPEN
    if says == "same":
        if -matters < low and high < matters:
            return AGREES
        return DISAGREES if low >= matters or high <= -matters else OPEN
    if says not in ("higher", "lower"):
        raise ValueError(f"says must be higher, lower or same, got {says!r}")
    if says == "lower":
        low, high = -high, -low
    if low > 0:
        return AGREES
    return DISAGREES if high < matters else OPEN


def intervals(values: Mapping[str, Sequence[float]], base: str, claims: int) -> dict[str, Interval]:
    """The interval of every arm of a setting, for one metric.

    Args:
        values: by arm, one number per seed, seed 0 first; arms may have different numbers of seeds.
        base: the arm that the others are compared with.
        claims: in the whole table, which the level is corrected for.

    Returns:
        One interval per arm other than `base`.
    """
    pooled, degrees = _pooled([list(numbers) for numbers in values.values()])
    found = {}
    for arm, numbers in values.items():
        if arm == base:
            continue
        gaps = np.array([mine - theirs for mine, theirs in zip(numbers, values[base], strict=False)])
        gaps = gaps[~np.isnan(gaps)]
        own = float(np.std(gaps, ddof=1)) if len(gaps) > 1 else math.nan
        mean = float(gaps.mean()) if len(gaps) else math.nan
        if math.isnan(own) or math.isnan(pooled):
            found[arm] = Interval(mean, -math.inf, math.inf, len(gaps))
            continue
        quantile = student_t(1 - LEVEL / max(1, claims), max(degrees, len(gaps) - 1))
        half = quantile * max(own, pooled) / math.sqrt(len(gaps))
        found[arm] = Interval(mean, mean - half, mean + half, len(gaps))
    return found


def _pooled(rows: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Standard deviation of a difference of two arms, from the residuals of arms x seeds, and degrees of freedom."""
    seeds = min(map(len, rows), default=0)
    table = np.array([row[:seeds] for row in rows], dtype=np.float64)
    if seeds:
        table = table[~np.isnan(table).any(axis=1)]
    degrees = (len(table) - 1) * (seeds - 1)
    if degrees < 1:
        return math.nan, 0
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    return math.sqrt(2 * float((rest**2).sum()) / degrees), degrees


def student_t(level: float, degrees: int) -> float:
    """The t within which Student's distribution has the probability `level`, two-sided.

    Args:
        level: between 0 and 1.
        degrees: of freedom, at least 1.

    Returns:
        The quantile, by bisection of the distribution's finite sum (Abramowitz and Stegun 26.7.3 and 26.7.4).
    """
    low, high = 0.0, 1.0
    while _within(high, degrees) < level:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < level else (low, middle)
    return high


def _within(t: float, degrees: int) -> float:
    """P(|T| < t)."""
    angle, odd = math.atan(t / math.sqrt(degrees)), degrees % 2
    square = math.cos(angle) ** 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for i in range((degrees - 1) // 2 if odd else degrees // 2):
        total += term
        term *= square * ((2 * i + 2) / (2 * i + 3) if odd else (2 * i + 1) / (2 * i + 2))
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def spread(curves: Sequence[Sequence[float]], window: int = 5) -> list[float]:
    """How far the curve of each seed lies from the others'.

    Args:
        curves: one per seed, of the same steps.
        window: steps of the running mean that evens out the luck of single prompts.

    Returns:
        Per seed the mean over steps of |own - mean of the others|, of running means; NaN where there is one seed.
    """
    if len(curves) < 2:
        return [math.nan] * len(curves)
    steps = min(map(len, curves))
    sums = np.cumsum(np.array([curve[:steps] for curve in curves], dtype=np.float64), axis=1)
    if steps > window:
        sums = np.concatenate([sums[:, window - 1 : window], sums[:, window:] - sums[:, :-window]], axis=1)
        smooth = sums / window
    else:
        smooth = sums[:, -1:] / max(1, steps)
    others = (smooth.sum(axis=0, keepdims=True) - smooth) / (len(curves) - 1)
    return [float(value) for value in np.abs(smooth - others).mean(axis=1)]
