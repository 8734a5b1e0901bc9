"""Group advantages, one row at a time in Python floats."""

import math
import statistics
from collections.abc import Sequence

import torch


def group_advantage(
    rewards: torch.Tensor,
    groups: int | Sequence[object],
    *,
    scale: str = "std",
    eps: float = 1e-6,
    weights: Sequence[float] | None = None,
    token_mask: torch.Tensor | None = None,
    singleton: str = "zero",
) -> torch.Tensor:
    """The result of `dpad_fast.ops.group_advantage`, in float64."""
    table = [[v] for v in rewards.tolist()] if rewards.dim() == 1 else rewards.tolist()
    keys = [i // groups for i in range(len(table))] if isinstance(groups, int) else list(groups)
    weights = [1.0] * len(table[0]) if weights is None else list(weights)
    if scale in ("gdpo", "gdpo-batch"):
        columns = [_compare(list(column), keys, "std", eps, singleton) for column in zip(*table, strict=True)]
        advantage = [_weighted_sum(row, weights) for row in zip(*columns, strict=True)]
        if scale == "gdpo-batch":
            advantage = _compare(advantage, [0] * len(advantage), "std", eps, "zero")
    else:
        advantage = _compare([_weighted_sum(row, weights) for row in table], keys, scale, eps, singleton)
    out = torch.tensor([0.0 if math.isnan(a) else a for a in advantage], dtype=torch.float64)
    return out if token_mask is None else out[:, None] * (token_mask != 0)


def _weighted_sum(row: Sequence[float], weights: Sequence[float]) -> float:
    """The sum over scored terms; NaN where none is scored."""
    parts = [w * v for w, v in zip(weights, row, strict=True) if math.isfinite(v)]
    return sum(parts) if parts else math.nan


def _compare(values: list[float], keys: Sequence[object], scale: str, eps: float, singleton: str) -> list[float]:
    """Advantages of one column; NaN where the entry is unscored."""
    batch = [v for v in values if math.isfinite(v)]
    batch_std = statistics.stdev(batch) if len(batch) > 1 else 0.0
    out = []
    for value, key in zip(values, keys, strict=True):
        if not math.isfinite(value):
            out.append(math.nan)
            continue
        members = [v for v, k in zip(values, keys, strict=True) if k == key and math.isfinite(v)]
        single = len(members) == 1
        mean = statistics.fmean(members)
        if len(set(members)) == 1:
            mean = members[0]
        if single and singleton == "reward":
            mean = 0.0
        std = 1.0 if single else statistics.stdev(members)
        distance = value - mean
        divisor = {
            "std": std + eps,
            "none": 1.0,
            "batch": batch_std + eps,
            "rloo": 1.0 if single else (len(members) - 1) / len(members),
        }
        out.append(0.0 if distance == 0 else distance / divisor[scale])
    return out
