"""S1, S2 and the discriminative reward of captions against the regions that they describe."""

import math
from typing import Any

import torch

from dpad_fast._native import extension
from dpad_fast._native.address import address
from dpad_fast._native.gpu_errors import is_gpu_failure
from dpad_fast.ops._library import register

SHAPES = ("binary", "released", "margin", "sigmoid", "roi-threshold")

ALPHA, TAU = 50.0, 0.25
"""Defaults of the slope of `sigmoid` and the threshold of `roi-threshold`, here and in `RewardConfig`."""

_LARGEST = 1e30  # beyond float32 a slope is infinite there, and times a difference of 0 it is NaN

_TYPES = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float64: "float64",
}


def discriminative_reward(
    text: torch.Tensor,
    roi: torch.Tensor,
    aoi: torch.Tensor,
    row_index: torch.Tensor | None = None,
    *,
    shape: str = "binary",
    alpha: float = ALPHA,
    tau: float = TAU,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cosine of each caption with its region (S1) and with the whole image (S2), and the reward made from them.

    =================  =========================================
    `binary`           1 where S1 > S2, else 0 (the paper)
    `released`         S1 * max(0, S1 - S2) (the authors' code)
    `margin`           max(0, S1 - S2)
    `sigmoid`          1 / (1 + exp(-alpha * (S1 - S2)))
    `roi-threshold`    1 where S1 > tau, else 0
    =================  =========================================

    Embeddings need not be normalised. Sums are in float32 whatever the dtype, in an order that does not depend on the
    batch, so a caption scores the same in any company. A zero vector has cosine 0. Where S1 or S2 is not finite, the
    reward is 0.

    Args:
        text: [N, D] caption embeddings; float32, float16, bfloat16 or float64.
        roi: [M, D] embeddings of the regions, of the dtype of `text`.
        aoi: [M, D] embeddings of what each region is contrasted with, in the order of `roi`.
        row_index: [N] integers, the region of each caption; -1 where there is nothing to compare (S1 and S2 are then
            NaN and the reward 0). None: caption i belongs to region i.
        shape: see the table.
        alpha: slope of `sigmoid`; cosines of one picture differ by hundredths, so that a small one says little.
        tau: threshold of `roi-threshold`.

    Returns:
        reward, S1 and S2, float32 [N] each.

    Raises:
        ValueError: an argument is not as described, or row_index[i] is outside [-1, M) (on a GPU, where finding out
            would stall the stream, such a caption gets what -1 gets).
    """
    _check(text, roi, aoi, row_index)
    if shape not in SHAPES:
        raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {shape!r:.80}")
    alpha, tau = _number(alpha, "alpha"), _number(tau, "tau")
    if row_index is not None:
        row_index = row_index.to(device=text.device, dtype=torch.int64)
    if torch.is_grad_enabled():
        text, roi, aoi = text.detach(), roi.detach(), aoi.detach()
    return _op(text, roi, aoi, row_index, shape, alpha, tau)


def reward_of(
    s1: torch.Tensor, s2: torch.Tensor, *, shape: str, alpha: float = ALPHA, tau: float = TAU
) -> torch.Tensor:
    """The op's reward from S1 and S2, elementwise, for similarities that were averaged or selected after the op."""
    delta = s1 - s2
    if shape == "binary":
        value = (s1 > s2).to(s1.dtype)
    elif shape == "released":
        value = s1 * delta.clamp(min=0)
    elif shape == "margin":
        value = delta.clamp(min=0)
    elif shape == "sigmoid":
        value = 1 / (1 + torch.exp(-alpha * delta))
    else:
        value = (s1 > tau).to(s1.dtype)
    return torch.where(s1.isfinite() & s2.isfinite(), value, 0.0)


def _number(value: Any, name: str) -> float:
    try:
        number = math.nan if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # RuntimeError: a tensor of several numbers
        if is_gpu_failure(error):
            raise
        number = math.nan
    if not abs(number) <= _LARGEST:
        raise ValueError(f"{name} must be finite, got {value!r:.80}; expected a number within -1e30 to 1e30")
    return number


def _check(text: torch.Tensor, roi: torch.Tensor, aoi: torch.Tensor, row_index: torch.Tensor | None) -> None:
    for name, given in (("text", text), ("roi", roi), ("aoi", aoi), ("row_index", row_index)):
        if not isinstance(given, torch.Tensor) and not (name == "row_index" and given is None):
            raise ValueError(f"{name} must be a tensor, got {type(given).__name__}")
        if given is not None and given.layout is not torch.strided:
            raise ValueError(f"{name} must be a dense tensor, got {given.layout}")
    if text.dim() != 2 or text.shape[1] == 0:
        raise ValueError(f"text must be [N, D] with D at least 1, got {list(text.shape)}")
    if text.dtype not in _TYPES:
        raise ValueError(f"text must be float32, float16, bfloat16 or float64, got {text.dtype}")
    for name, tensor in (("roi", roi), ("aoi", aoi)):
        if tensor.dim() != 2 or tensor.shape[1] != text.shape[1]:
            raise ValueError(f"{name} must be [M, D] with D = {text.shape[1]}, got {list(tensor.shape)}")
        if tensor.dtype != text.dtype:
            raise ValueError(f"{name} must have the dtype of text, {text.dtype}, got {tensor.dtype}")
        if tensor.device != text.device:
            raise ValueError(f"{name} is on {tensor.device} but text is on {text.device}")
    if roi.shape[0] != aoi.shape[0]:
        raise ValueError(f"roi and aoi must have as many rows, got {roi.shape[0]} and {aoi.shape[0]}")
    if row_index is None:
        if roi.shape[0] != text.shape[0]:
            raise ValueError(f"without row_index, roi needs a row per caption: {text.shape[0]}, got {roi.shape[0]}")
        return
    if row_index.dim() != 1 or row_index.shape[0] != text.shape[0]:
        raise ValueError(f"row_index must be [N] with N = {text.shape[0]}, got {list(row_index.shape)}")
    if row_index.is_floating_point() or row_index.is_complex() or row_index.dtype == torch.bool:
        raise ValueError(f"row_index must hold integers, got {row_index.dtype}")


def _cpu(
    text: torch.Tensor,
    roi: torch.Tensor,
    aoi: torch.Tensor,
    row_index: torch.Tensor | None,
    shape: str,
    alpha: float,
    tau: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if not text.dtype == roi.dtype == aoi.dtype:  # as the type of text C++ reads the addresses of all three
        raise ValueError(f"text, roi and aoi must be of one dtype, got {text.dtype}, {roi.dtype} and {aoi.dtype}")
    text, roi, aoi = text.contiguous(), roi.contiguous(), aoi.contiguous()
    rows = None if row_index is None else row_index.to(torch.int64).contiguous()
    n, d = text.shape
    reward, s1, s2 = (text.new_empty((n,), dtype=torch.float32) for _ in range(3))
    if n == 0:
        return reward, s1, s2
    bad = extension.C.discriminative_reward(
        _TYPES[text.dtype], text.data_ptr(), roi.data_ptr(), aoi.data_ptr(), address(rows),
        n, roi.shape[0], d, shape, alpha, tau, reward.data_ptr(), s1.data_ptr(), s2.data_ptr(),
    )  # fmt: skip
    if bad >= 0 and rows is not None:
        raise ValueError(f"row_index[{bad}] must be -1 or below M = {roi.shape[0]}, got {int(rows[bad])}")
    return reward, s1, s2


def _cuda(
    text: torch.Tensor,
    roi: torch.Tensor,
    aoi: torch.Tensor,
    row_index: torch.Tensor | None,
    shape: str,
    alpha: float,
    tau: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    from dpad_fast.kernels import discriminative_reward as kernel

    return kernel.launch(text, roi, aoi, row_index, shape, alpha, tau)


def _fake(
    text: torch.Tensor,
    roi: torch.Tensor,
    aoi: torch.Tensor,
    row_index: torch.Tensor | None,
    shape: str,
    alpha: float,
    tau: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    def column() -> torch.Tensor:
        return text.new_empty((text.shape[0],), dtype=torch.float32)

    return column(), column(), column()


_op = register(
    "discriminative_reward",
    "(Tensor text, Tensor roi, Tensor aoi, Tensor? row_index, str shape, float alpha, float tau) "
    "-> (Tensor, Tensor, Tensor)",
    cpu=_cpu,
    cuda=_cuda,
    fake=_fake,
)
