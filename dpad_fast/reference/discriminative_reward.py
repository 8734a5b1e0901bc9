"""The discriminative reward, one caption at a time in Python floats."""

import math
from collections.abc import Sequence

import torch


def discriminative_reward(
    text: torch.Tensor,
    roi: torch.Tensor,
    aoi: torch.Tensor,
    row_index: Sequence[int] | None = None,
    *,
    shape: str = "binary",
    alpha: float = 50.0,
    tau: float = 0.25,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The result of `dpad_fast.ops.discriminative_reward`, in float64."""
    rows = list(range(len(text))) if row_index is None else list(row_index)
    out = []
    for i, row in enumerate(rows):
        if row < 0:
            out.append((0.0, math.nan, math.nan))
            continue
        caption = text[i].double().tolist()
        s1 = _cosine(caption, roi[row].double().tolist())
        s2 = _cosine(caption, aoi[row].double().tolist())
        finite = math.isfinite(s1) and math.isfinite(s2)
        out.append((_shaped(s1, s2, shape, alpha, tau) if finite else 0.0, s1, s2))
    reward, first, second = torch.tensor(out, dtype=torch.float64).reshape(-1, 3).unbind(1)
    return reward, first, second


def _cosine(a: list[float], b: list[float]) -> float:
    length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length != 0 else 0.0


def _shaped(s1: float, s2: float, shape: str, alpha: float, tau: float) -> float:
    values = {
        "binary": float(s1 > s2),
        "released": s1 * max(0.0, s1 - s2),
        "margin": max(0.0, s1 - s2),
        "sigmoid": 1 / (1 + math.exp(-alpha * (s1 - s2))),
        "roi-threshold": float(s1 > tau),
    }
    return values[shape]
