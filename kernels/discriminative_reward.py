"""Cosines of captions against their regions and the reward made from them, in one launch and without [N, D] copies."""

import torch
import triton
import triton.language as tl

from dpad_fast._native.launches import Launched
from dpad_fast._native.upload import on_device

SHAPE_CODES = {"binary": 0, "released": 1, "margin": 2, "sigmoid": 3, "roi-threshold": 4}

ROWS = 4  # captions of a program; their three rows of D are read once and nothing is kept but sums
WIDTH = 256  # elements at a time: with 4 warps 8 per thread, which is one 16-byte load of half precision


@Launched
@triton.jit
def discriminative_reward_kernel(
    text, roi, aoi, row_index, reward, s1_out, s2_out, n, m, d, alpha, tau, stride_text_n, stride_text_d, stride_roi_n,
    stride_roi_d, stride_aoi_n, stride_aoi_d, stride_index,
    SHAPE: tl.constexpr, HAS_INDEX: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Reward, S1 and S2 of ROWS captions. A row_index outside [0, m) means that there is nothing to compare."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    valid = row < n
    if HAS_INDEX:  # noqa: SIM108  (Triton compiles both sides of a conditional expression)
        region = tl.load(row_index + row * stride_index, mask=valid, other=-1)
    else:
        region = row
    known = valid & (region >= 0) & (region < m)
    text_text = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    roi_roi = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    aoi_aoi = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    text_roi = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    text_aoi = tl.zeros([ROWS, WIDTH], dtype=tl.float32)
    for start in range(0, d, WIDTH):
        column = start + tl.arange(0, WIDTH)
        inside = known[:, None] & (column < d)[None, :]
        c = column.to(tl.int64)[None, :]
        t = tl.load(text + row[:, None] * stride_text_n + c * stride_text_d, mask=inside, other=0.0).to(tl.float32)
        r = tl.load(roi + region[:, None] * stride_roi_n + c * stride_roi_d, mask=inside, other=0.0).to(tl.float32)
        a = tl.load(aoi + region[:, None] * stride_aoi_n + c * stride_aoi_d, mask=inside, other=0.0).to(tl.float32)
        text_text += t * t
        roi_roi += r * r
        aoi_aoi += a * a
        text_roi += t * r
        text_aoi += t * a
    text_norm = tl.sqrt_rn(tl.sum(text_text, axis=1))
    roi_norm = text_norm * tl.sqrt_rn(tl.sum(roi_roi, axis=1))
    aoi_norm = text_norm * tl.sqrt_rn(tl.sum(aoi_aoi, axis=1))
    s1 = tl.where(roi_norm == 0, 0.0, tl.div_rn(tl.sum(text_roi, axis=1), tl.where(roi_norm == 0, 1.0, roi_norm)))
    s2 = tl.where(aoi_norm == 0, 0.0, tl.div_rn(tl.sum(text_aoi, axis=1), tl.where(aoi_norm == 0, 1.0, aoi_norm)))
    s1 = tl.where(known, s1, float("nan"))
    s2 = tl.where(known, s2, float("nan"))
    delta = s1 - s2
    if SHAPE == 0:
        value = (delta > 0).to(tl.float32)
    elif SHAPE == 1:
        value = s1 * tl.maximum(delta, 0.0)
    elif SHAPE == 2:
        value = tl.maximum(delta, 0.0)
    elif SHAPE == 3:
        value = 1.0 / (1.0 + tl.exp(-alpha * delta))
    else:
        value = (s1 > tau).to(tl.float32)
    finite = (tl.abs(s1) < float("inf")) & (tl.abs(s2) < float("inf"))
    tl.store(reward + row, tl.where(finite, value, 0.0), mask=valid)
    tl.store(s1_out + row, s1, mask=valid)
    tl.store(s2_out + row, s2, mask=valid)


def launch(
    text: torch.Tensor,
    roi: torch.Tensor,
    aoi: torch.Tensor,
    row_index: torch.Tensor | None,
    shape: str,
    alpha: float,
    tau: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run the kernel; arguments and results are those of the registered op, strides of any kind included."""
    n, d = text.shape
    reward, s1, s2 = (torch.empty(n, dtype=torch.float32, device=text.device) for _ in range(3))
    if n == 0:
        return reward, s1, s2
    with on_device(text.device):
        discriminative_reward_kernel[(-(-n // ROWS),)](
            text,
            roi,
            aoi,
            text if row_index is None else row_index,
            reward,
            s1,
            s2,
            n,
            roi.shape[0],
            d,
            alpha,
            tau,
            *text.stride(),
            *roi.stride(),
            *aoi.stride(),
            0 if row_index is None else row_index.stride(0),
            SHAPE=SHAPE_CODES[shape],
            HAS_INDEX=row_index is not None,
            ROWS=ROWS,
            WIDTH=WIDTH,
            num_warps=4,
        )
    return reward, s1, s2
