"""Group advantages on a GPU: statistics, scaling and the spread over tokens in one launch.

Ids come in any order, so a program finds the members of its rows' groups by comparing ids with all N rows (with groups
of neighbours, with the few rows around its own). That is N^2 comparisons in all, a few microseconds for the thousands
of rows of a training step, and needs neither a sort, nor atomics, nor a second launch. Statistics are in float64, as on
the CPU: there are few of them, and both devices then round to the same float32.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl

from dpad_fast._native.launches import Launched
from dpad_fast._native.upload import on_device

SCALE_CODES = {"std": 0, "none": 1, "batch": 2, "rloo": 3, "gdpo": 4}

ROWS = 8  # rows of a program: N = 1024 makes 128 programs, about one per multiprocessor of an A100 or H100
MEMBERS = 64  # rows compared at once: 4 float64 values per thread with 4 warps; 128 spilled on sm_80
TOKENS = 512  # tokens of a program: 8 x 512 float32 are 32 elements per thread, stored 16 bytes at a time


@triton.jit
def _term(rewards, rows, valid, term, stride_n, stride_f):
    """One term of some rows in float64, and which of them are scored."""
    x = tl.load(rewards + rows.to(tl.int64) * stride_n + term * stride_f, mask=valid, other=0.0).to(tl.float64)
    scored = valid & (tl.abs(x) < float("inf"))  # false for NaN too
    return tl.where(scored, x, 0.0), scored


@triton.jit
def _values(
    rewards, weights, rows, valid, term, stride_n, stride_f, TERMS: tl.constexpr, WEIGHTED: tl.constexpr,
    ONE_TERM: tl.constexpr,
):  # fmt: skip
    """What is compared: one term (GDPO), or the weighted sum of the scored ones."""
    if ONE_TERM:
        x, scored = _term(rewards, rows, valid, term, stride_n, stride_f)
    else:
        x, scored = _term(rewards, rows, valid, 0, stride_n, stride_f)
        if WEIGHTED:
            x *= tl.load(weights).to(tl.float64)
        for k in tl.static_range(1, TERMS):
            more, more_scored = _term(rewards, rows, valid, k, stride_n, stride_f)
            if WEIGHTED:
                more *= tl.load(weights + k).to(tl.float64)
            x += more
            scored = scored | more_scored
    return x, scored


@triton.jit
def _keys(ids, rows, valid, group_size, stride_id, HAS_IDS: tl.constexpr):
    if HAS_IDS:
        key = tl.load(ids + rows.to(tl.int64) * stride_id, mask=valid, other=0)
    else:
        key = rows.to(tl.int64) // group_size
    return key


@triton.jit
def _any(member, LOOK: tl.constexpr):
    """Whether a chunk of rows has a member of a group: others would add zeros, in float64 and slowly.

    Here and below truth is made by a comparison, since the interpreter of Triton 3.2 cannot fill a tensor of int1.
    """
    if LOOK:  # noqa: SIM108  (Triton compiles both sides of a conditional expression)
        found = tl.max(tl.max(member.to(tl.int32), axis=1), axis=0) > 0
    else:
        found = tl.full([], 1, dtype=tl.int32) > 0
    return found


@triton.jit
def _divided(distance, divisor):
    """A quotient that is 0 where either is 0, as on the CPU."""
    none = (distance == 0) | (divisor == 0)
    return tl.where(none, 0.0, distance / tl.where(none, 1.0, divisor))


@triton.jit
def _compared(
    rewards, ids, weights, own_rows, own_valid, first, last, n, term, group_size, eps, stride_n, stride_f, stride_id,
    SCALE: tl.constexpr, TERMS: tl.constexpr, WEIGHTED: tl.constexpr, HAS_IDS: tl.constexpr, KEEP: tl.constexpr,
    ROWS: tl.constexpr, MEMBERS: tl.constexpr,
):  # fmt: skip
    """The advantages [ROWS] of a program's rows in one column, and which of them are scored."""
    ONE_TERM: tl.constexpr = SCALE == 4
    LOOK: tl.constexpr = HAS_IDS and SCALE != 2  # groups of neighbours are in nearly all chunks that are read
    own, own_scored = _values(
        rewards, weights, own_rows, own_valid, term, stride_n, stride_f, TERMS, WEIGHTED, ONE_TERM
    )
    own_key = _keys(ids, own_rows, own_valid, group_size, stride_id, HAS_IDS)
    total = tl.zeros([ROWS], dtype=tl.float64)
    count = tl.zeros([ROWS], dtype=tl.int32)
    least = tl.full([ROWS], float("inf"), dtype=tl.float64)
    most = tl.full([ROWS], -float("inf"), dtype=tl.float64)
    whole_total = tl.zeros([1], dtype=tl.float64)
    whole_count = tl.zeros([1], dtype=tl.int32)
    for start in range(first, last, MEMBERS):
        rows = start + tl.arange(0, MEMBERS)
        valid = rows < n
        x, scored = _values(rewards, weights, rows, valid, term, stride_n, stride_f, TERMS, WEIGHTED, ONE_TERM)
        key = _keys(ids, rows, valid, group_size, stride_id, HAS_IDS)
        member = (key[None, :] == own_key[:, None]) & scored[None, :]  # [ROWS, MEMBERS]
        if _any(member, LOOK):
            total += tl.sum(tl.where(member, x[None, :], 0.0), axis=1)
            count += tl.sum(member.to(tl.int32), axis=1)
            least = tl.minimum(least, tl.min(tl.where(member, x[None, :], float("inf")), axis=1))
            most = tl.maximum(most, tl.max(tl.where(member, x[None, :], -float("inf")), axis=1))
        if SCALE == 2:
            whole_total += tl.sum(x, axis=0)
            whole_count += tl.sum(scored.to(tl.int32), axis=0)
    number = tl.maximum(count, 1).to(tl.float64)
    # Equal rewards: the mean is exact, so that no residue is left for 1 / eps to blow up.
    mean = tl.where(least == most, least, total / number)
    divisor = tl.full([ROWS], 1.0, dtype=tl.float64)
    if SCALE == 3:
        divisor = tl.where(count > 1, (number - 1.0) / number, 1.0)
    if (SCALE == 0) | (SCALE == 2) | (SCALE == 4):
        squares = tl.zeros([ROWS], dtype=tl.float64)
        whole_squares = tl.zeros([1], dtype=tl.float64)
        whole_number = tl.maximum(whole_count, 1).to(tl.float64)
        for start in range(first, last, MEMBERS):
            rows = start + tl.arange(0, MEMBERS)
            valid = rows < n
            x, scored = _values(rewards, weights, rows, valid, term, stride_n, stride_f, TERMS, WEIGHTED, ONE_TERM)
            if SCALE == 2:
                away = tl.where(scored, x - whole_total / whole_number, 0.0)
                whole_squares += tl.sum(away * away, axis=0)
            else:
                key = _keys(ids, rows, valid, group_size, stride_id, HAS_IDS)
                member = (key[None, :] == own_key[:, None]) & scored[None, :]
                if _any(member, LOOK):
                    distances = tl.where(member, x[None, :] - mean[:, None], 0.0)
                    squares += tl.sum(distances * distances, axis=1)
        if SCALE == 2:
            divisor += tl.sqrt(whole_squares / tl.maximum(whole_number - 1.0, 1.0)) + eps - 1.0
        else:
            divisor = tl.where(count == 1, 1.0, tl.sqrt(squares / tl.maximum(number - 1.0, 1.0))) + eps
    if KEEP:
        mean = tl.where(count == 1, 0.0, mean)
    return _divided(tl.where(own_scored, own - mean, 0.0), divisor), own_scored


@Launched
@triton.jit
def group_advantage_kernel(
    rewards, ids, weights, token_mask, out, n, tokens, group_size, eps, stride_n, stride_f, stride_id, stride_mask_n,
    stride_mask_t,
    SCALE: tl.constexpr, TERMS: tl.constexpr, WEIGHTED: tl.constexpr, HAS_IDS: tl.constexpr, HAS_TOKENS: tl.constexpr,
    KEEP: tl.constexpr, UNSCORED: tl.constexpr, ROWS: tl.constexpr, MEMBERS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Advantages of ROWS rows, times the mask of TOKENS tokens. UNSCORED is what a row without a scored term gets."""
    own_rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    own_valid = own_rows < n
    first = 0
    last = n
    if (not HAS_IDS) & (SCALE != 2):
        first = (tl.program_id(0) * ROWS // group_size) * group_size
        last = tl.minimum(((tl.program_id(0) * ROWS + ROWS - 1) // group_size + 1) * group_size, n)
    if SCALE == 4:
        advantage = tl.zeros([ROWS], dtype=tl.float64)
        scored = tl.zeros([ROWS], dtype=tl.int32) > 0
        for term in range(TERMS):
            part, part_scored = _compared(
                rewards, ids, weights, own_rows, own_valid, first, last, n, term, group_size, eps, stride_n, stride_f,
                stride_id, SCALE, TERMS, WEIGHTED, HAS_IDS, KEEP, ROWS, MEMBERS,
            )  # fmt: skip
            if WEIGHTED:
                part *= tl.load(weights + term).to(tl.float64)
            advantage += part
            scored = scored | part_scored
    else:
        advantage, scored = _compared(
            rewards, ids, weights, own_rows, own_valid, first, last, n, 0, group_size, eps, stride_n, stride_f,
            stride_id, SCALE, TERMS, WEIGHTED, HAS_IDS, KEEP, ROWS, MEMBERS,
        )  # fmt: skip
    advantage = tl.where(scored, advantage, UNSCORED).to(out.dtype.element_ty)
    if HAS_TOKENS:
        token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
        inside = own_valid[:, None] & (token < tokens)[None, :]
        at = own_rows.to(tl.int64)[:, None] * stride_mask_n + token.to(tl.int64)[None, :] * stride_mask_t
        kept = tl.load(token_mask + at, mask=inside, other=0) != 0  # [ROWS, TOKENS]
        spread = tl.where(kept, advantage[:, None], 0.0)
        tl.store(out + own_rows.to(tl.int64)[:, None] * tokens + token[None, :], spread, mask=inside)
    else:
        tl.store(out + own_rows, advantage, mask=own_valid)


def launch(
    rewards: torch.Tensor,
    ids: torch.Tensor | None,
    group_size: int,
    scale: str,
    eps: float,
    weights: torch.Tensor | None,
    token_mask: torch.Tensor | None,
    keep_single: bool,
) -> torch.Tensor:
    """Run the kernel; arguments and result are those of the registered op, strides of any kind included.

    `gdpo-batch` is two launches, since nobody can divide by the spread of all rows before all rows are there.
    """
    if scale == "gdpo-batch":
        totals = _launch(rewards, ids, group_size, "gdpo", eps, weights, None, keep_single, math.nan, torch.float64)
        dtype = torch.float64 if rewards.dtype == torch.float64 else torch.float32
        return _launch(totals, None, max(len(totals), 1), "std", eps, None, token_mask, False, 0.0, dtype)
    dtype = torch.float64 if rewards.dtype == torch.float64 else torch.float32
    return _launch(rewards, ids, group_size, scale, eps, weights, token_mask, keep_single, 0.0, dtype)


def _launch(
    rewards: torch.Tensor,
    ids: torch.Tensor | None,
    group_size: int,
    scale: str,
    eps: float,
    weights: torch.Tensor | None,
    token_mask: torch.Tensor | None,
    keep_single: bool,
    unscored: float,
    dtype: torch.dtype,
) -> torch.Tensor:
    n = rewards.shape[0]
    shape = (n,) if token_mask is None else (n, token_mask.shape[1])
    out = torch.empty(shape, dtype=dtype, device=rewards.device)
    if out.numel() == 0:
        return out
    mask: Any = rewards if token_mask is None else token_mask
    if mask.dtype == torch.bool:
        mask = mask.view(torch.uint8)
    tokens = 1 if token_mask is None else token_mask.shape[1]
    grid = -(-n // ROWS), -(-tokens // TOKENS)  # triton.cdiv takes as long as a launch
    with on_device(rewards.device):
        group_advantage_kernel[grid](
            rewards.view(torch.uint8) if rewards.dtype == torch.bool else rewards,
            rewards if ids is None else ids,
            rewards if weights is None else weights,
            mask,
            out,
            n,
            tokens,
            max(group_size, 1),
            eps,
            rewards.stride(0),
            rewards.stride(1) if rewards.dim() == 2 else 0,
            0 if ids is None else ids.stride(0),
            0 if token_mask is None else token_mask.stride(0),
            0 if token_mask is None else token_mask.stride(1),
            SCALE=SCALE_CODES[scale],
            TERMS=rewards.shape[1] if rewards.dim() == 2 else 1,
            WEIGHTED=weights is not None,
            HAS_IDS=ids is not None,
            HAS_TOKENS=token_mask is not None,
            KEEP=keep_single,
            UNSCORED=unscored,
            ROWS=ROWS,
            MEMBERS=MEMBERS,
            TOKENS=TOKENS,
            num_warps=4,
        )
    return out
