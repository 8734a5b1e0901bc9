"""The numbers of an evaluation: overlap of masks, gIoU, cIoU, and means with their spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolMask = NDArray[np.bool_]
IGNORE_MODES = ("drop", "target")


@dataclass(frozen=True)
class Overlap:
    """Pixels that a prediction and a target share, and pixels that either covers."""

    intersection: int
    union: int

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where both are empty, as in LISA's evaluation."""
        return self.intersection / self.union if self.union else 1.0


def overlap(
    predicted: BoolMask | None, target: BoolMask, ignore: BoolMask | None = None, ignore_as: str = "drop"
) -> Overlap:
    """Compare a predicted mask with the ground truth.

    Args:
        predicted: bool [H, W]; None for an answer that could not be read, which covers nothing.
        target: bool [H, W].
        ignore: bool [H, W], pixels of undecided annotation, or None.
        ignore_as: "drop" leaves those pixels out of both sides (LISA's evaluation); "target" counts them as target
            (what the released conversion of the data does).

    Returns:
        The shared and the covered number of pixels.

    Raises:
        ValueError: if the shapes differ or `ignore_as` is unknown.
    """
    if ignore_as not in IGNORE_MODES:
        raise ValueError(f"ignore_as is {ignore_as!r:.80}; known: {', '.join(IGNORE_MODES)}")
    for name, mask in (("predicted", predicted), ("ignore", ignore)):
        if mask is not None and mask.shape != target.shape:
            raise ValueError(f"{name} has shape {mask.shape}, target has {target.shape}")
    guess = np.zeros_like(target) if predicted is None else predicted
    if ignore is not None and ignore_as == "drop":
        target, guess = target & ~ignore, guess & ~ignore
    elif ignore is not None:
        target = target | ignore
    return Overlap(int((target & guess).sum()), int((target | guess).sum()))


def giou(overlaps: Sequence[Overlap]) -> float:
    """Mean of the per-image IoU (the reasoning-segmentation papers' gIoU).

    Args:
        overlaps: one per prediction.

    Returns:
        The mean; NaN for none.
    """
    return float(np.mean([item.iou for item in overlaps])) if overlaps else math.nan


def ciou(overlaps: Sequence[Overlap]) -> float:
    """Sum of the intersections over the sum of the unions.

    Args:
        overlaps: one per prediction.

    Returns:
        The ratio; NaN for none, 1 where all are empty.
    """
    if not overlaps:
        return math.nan
    union = sum(item.union for item in overlaps)
    return sum(item.intersection for item in overlaps) / union if union else 1.0


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error, and how many independent units it rests on."""

    value: float
    error: float
    units: int


def ratio_estimate(
    numerators: Sequence[float], denominators: Sequence[float], groups: Sequence[str], draws: int = 400, seed: int = 0
) -> Estimate:
    """Sum of numerators over sum of denominators, with a bootstrap over groups.

    A mean is the case of denominators 1; cIoU that of intersections and unions. Completions of one scene are not
    independent, so whole scenes are drawn.

    Args:
        numerators: [N].
        denominators: [N], not negative.
        groups: [N], the scene of each entry.
        draws: resamples.
        seed: of the resampling.

    Returns:
        The ratio and the standard deviation of its resamples; NaN where there is nothing to divide by.
    """
    names = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    index = np.array([names[name] for name in groups], dtype=np.int64)
    top = np.bincount(index, weights=np.asarray(numerators, dtype=np.float64), minlength=len(names))
    bottom = np.bincount(index, weights=np.asarray(denominators, dtype=np.float64), minlength=len(names))
    if not len(names) or bottom.sum() == 0:
        return Estimate(math.nan, math.nan, len(names))
    value = float(top.sum() / bottom.sum())
    if len(names) < 2:
        return Estimate(value, math.nan, 1)
    drawn = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    tops, bottoms = top[drawn].sum(axis=1), bottom[drawn].sum(axis=1)
    kept = bottoms > 0
    error = float(np.std(tops[kept] / bottoms[kept], ddof=1)) if kept.sum() > 1 else math.nan
    return Estimate(value, error, len(names))


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean of one number per seed with the standard error of that mean.

    Args:
        values: one per seed; NaN entries are left out.

    Returns:
        The mean; the error is NaN for fewer than two seeds.
    """
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Estimate(math.nan, math.nan, 0)
    error = float(np.std(known, ddof=1) / math.sqrt(len(known))) if len(known) > 1 else math.nan
    return Estimate(float(np.mean(known)), error, len(known))


# Two-sided 95 % quantile of Student's t for 1, 2, ... degrees of freedom; with a few seeds 1.96 would be far too small.
_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)


def beyond_noise(difference: Estimate, by_seeds: bool) -> bool:
    """Whether a difference's 95 % interval leaves out zero.

    Args:
        difference: the difference and its standard error.
        by_seeds: the error comes from few seeds (Student's t) rather than a bootstrap over many scenes (normal).

    Returns:
        True if the difference is established at that level; False also where there is no error to judge by.
    """
    if math.isnan(difference.value) or math.isnan(difference.error):
        return False
    degrees = difference.units - 1
    factor = _T95[degrees - 1] if by_seeds and degrees <= len(_T95) else 1.96
    return abs(difference.value) > factor * difference.error


def plain(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    """Estimates as JSON takes them: NaN becomes None.

    Args:
        estimates: by the metric's name.

    Returns:
        The fields of each.
    """
    return {key: {k: None if v != v else v for k, v in asdict(e).items()} for key, e in estimates.items()}
