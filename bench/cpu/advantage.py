"""Group advantages against what TRL and verl run, and the discriminative reward against torch's cosines.

Neither trainer lets its arithmetic be called alone (TRL's stands inside a method, verl cannot share an environment with
today's transformers), so both are restated here, operation by operation; `tests/ops` holds ours against the same.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from bench.registry import Contest, Provider, call
from dpad_fast.ops import discriminative_reward, group_advantage

N, SIZE, TOKENS, TERMS = 1024, 8, 512, 4
CAPTIONS, REGIONS, DIM = 1024, 128, 512


def close(ours: Any, theirs: Any) -> tuple[str, bool]:
    difference = float((ours.double() - theirs.double()).abs().max())
    return f"{difference:.0e}" if difference else "equal", difference <= 1e-6


def close_parts(ours: Any, theirs: Any) -> tuple[str, bool]:
    words = [close(a, b) for a, b in zip(ours[1:], theirs[1:], strict=True)]  # S1 and S2; the reward follows from them
    return max(words, key=lambda word: not word[1])


def trl_inline(per_term: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """`GRPOTrainer`, sum_then_normalize and scale_rewards="group"."""
    from trl.trainer.utils import nanstd

    total = (per_term * weights.unsqueeze(0)).nansum(dim=1)
    mean = torch.nanmean(total.view(-1, SIZE), dim=1).repeat_interleave(SIZE, dim=0)
    std = nanstd(total.view(-1, SIZE), dim=1).repeat_interleave(SIZE, dim=0)
    return torch.nan_to_num((total - mean) / (std + 1e-4), nan=0.0)


def verl_vectorised(scores: torch.Tensor, index: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The vectorised form: sums by group with `index_add_`, over ids that are already whole numbers."""
    groups = int(index.max()) + 1
    count = torch.zeros(groups).index_add_(0, index, torch.ones_like(scores)).clamp_min(1)
    total = torch.zeros(groups).index_add_(0, index, scores)
    squares = torch.zeros(groups).index_add_(0, index, scores * scores)
    mean = total / count
    std = ((squares - total * total / count) / (count - 1).clamp_min(1)).clamp_min(1e-6).sqrt()
    return ((scores - mean[index]) / (std[index] + 1e-6)).unsqueeze(-1) * mask


def verl_loop(scores: torch.Tensor, uids: np.ndarray[Any, Any], mask: torch.Tensor) -> torch.Tensor:
    """The default of verl: Python dictionaries of lists by uid."""
    groups: dict[str, list[torch.Tensor]] = {}
    for score, uid in zip(scores, uids, strict=True):
        groups.setdefault(uid, []).append(score)
    stats = {uid: (torch.stack(rows).mean(), torch.stack(rows).std()) for uid, rows in groups.items()}
    out = scores.clone()
    for row, uid in enumerate(uids):
        mean, std = stats[uid]
        out[row] = (scores[row] - mean) / (std + 1e-6)
    return out.unsqueeze(-1) * mask


def torch_cosines(text: torch.Tensor, roi: torch.Tensor, aoi: torch.Tensor, rows: torch.Tensor) -> Any:
    unit = functools.partial(torch.nn.functional.normalize, dim=-1)
    caption, target, whole = unit(text), unit(roi)[rows], unit(aoi)[rows]
    first, second = (caption * target).sum(-1), (caption * whole).sum(-1)
    return (first > second).float(), first, second


def contests() -> Iterable[Contest]:
    """With the token axis against verl, without it against TRL, and S1, S2 and the reward."""
    generator = torch.Generator().manual_seed(0)
    per_term = torch.rand(N, TERMS, generator=generator)
    weights = torch.tensor([1.0, 0.5, 2.0, 1.0])
    scores = torch.rand(N, generator=generator)
    index = torch.arange(N) // SIZE
    uids = np.array([f"prompt-{i // SIZE}" for i in range(N)], dtype=object)
    lengths = torch.randint(TOKENS // 4, TOKENS, (N, 1), generator=generator)
    mask = (torch.arange(TOKENS)[None, :] < lengths).to(torch.int64)
    yield Contest(
        "advantage",
        f"N = {N}, groups of {SIZE}, T = {TOKENS}",
        (
            Provider("dpad_fast", call(lambda: group_advantage(scores, index, token_mask=mask))),
            Provider("dpad_fast, group size", call(lambda: group_advantage(scores, SIZE, token_mask=mask))),
        ),
        (
            Provider("verl's vectorised form", call(lambda: verl_vectorised(scores, index, mask)), "close"),
            Provider("verl's default loop", call(lambda: verl_loop(scores, uids, mask)), "close"),
        ),
        lambda ours, theirs: close(ours, theirs),
        {"any": 1.0},
    )
    yield Contest(
        "advantage",
        f"N = {N}, groups of {SIZE}, {TERMS} terms, no token axis",
        (Provider("dpad_fast", call(lambda: group_advantage(per_term, SIZE, eps=1e-4, weights=weights))),),
        (Provider("TRL's inline code", call(lambda: trl_inline(per_term, weights)), "close"),),
        close,
        {"any": 1.0},
    )
    text, roi, aoi = (torch.randn(n, DIM, generator=generator) for n in (CAPTIONS, REGIONS, REGIONS))
    rows = torch.arange(CAPTIONS) % REGIONS
    yield Contest(
        "advantage",
        f"discriminative reward, {CAPTIONS} captions, {REGIONS} regions, D = {DIM}",
        (Provider("dpad_fast", call(lambda: discriminative_reward(text, roi, aoi, rows))),),
        (Provider("torch", call(lambda: torch_cosines(text, roi, aoi, rows)), "close"),),
        close_parts,
        {"any": 1.0},
    )
