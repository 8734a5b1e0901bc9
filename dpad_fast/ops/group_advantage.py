"""Group-relative advantages (GRPO and its relatives), with the spread over tokens in the same call."""

import math
import warnings
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from dpad_fast._native import extension
from dpad_fast._native.address import address
from dpad_fast.ops._library import register

SCALES = ("std", "none", "batch", "rloo", "gdpo", "gdpo-batch")
SINGLETONS = ("zero", "reward")

_INTEGERS = (int, np.integer)  # a tuple: `int | np.integer` would be made anew by each call

_MASK_KINDS = {
    torch.bool: "bits8",
    torch.uint8: "bits8",
    torch.int8: "bits8",
    torch.int16: "bits16",
    torch.int32: "bits32",
    torch.int64: "bits64",
    torch.float16: "float16",
    torch.bfloat16: "float16",  # both keep the sign in the highest of 16 bits, which is all that is looked at
    torch.float32: "float32",
    torch.float64: "float64",
}


def group_advantage(
    rewards: torch.Tensor,
    groups: int | torch.Tensor | Sequence[Hashable] | np.ndarray[Any, Any],
    *,
    scale: str = "std",
    eps: float = 1e-6,
    weights: torch.Tensor | Sequence[float] | None = None,
    token_mask: torch.Tensor | None = None,
    singleton: str = "zero",
) -> torch.Tensor:
    r"""Compare each completion with the others of its group.

    With r the weighted sum of a completion's terms, mean and std (sample standard deviation, n - 1) those of its group:

    ==============  ===================================================================================================
    `std`           (r - mean) / (std + eps): GRPO (DeepSeekMath, arXiv 2402.03300)
    `none`          r - mean: Dr. GRPO (arXiv 2503.20783)
    `batch`         (r - mean) / (std of all N + eps)
    `rloo`          r - mean of the group's other members (arXiv 2402.14740)
    `gdpo`          sum over terms of weight * (term - its group mean) / (its group std + eps)
    `gdpo-batch`    `gdpo`, then centred and divided by (std + eps) over all N (arXiv 2601.05242)
    ==============  ===================================================================================================

    TRL 1.16 is `eps=1e-4` (its `normalize_then_sum` is `gdpo-batch`); verl 0.9's `compute_grpo_outcome_advantage` is
    `eps=1e-6, singleton="reward"`.

    NaN and infinite entries are unscored: left out of every mean, std and sum; a row without a scored term gets 0. An
    all-equal group gets exactly 0. Statistics are computed in float64 on the CPU.

    Args:
        rewards: [N] or [N, F], F reward terms; any real dtype. No gradient flows. A table of one group per row is
            given flat (`rewards.reshape(-1)`); where F is the group size and neither `weights` nor `scale` says that
            terms are meant, a warning asks.
        groups: the size of equal groups of neighbours (divides N), or [N] group ids in any order: an integer tensor or
            array, or a sequence of hashables such as verl's uid strings. Groups may have any sizes.
        scale: see the table.
        eps: added to the standard deviation; not negative.
        weights: [F], one per term; default 1 each. Finite.
        token_mask: [N, T], any real or boolean dtype; tokens with 0 get advantage 0.
        singleton: what a group with one scored row gets: `zero` (TRL), or `reward`, its own reward by mean 0 and std 1
            (verl).

    Returns:
        [N], or [N, T] with `token_mask`; float64 where rewards are float64, else float32; on the device of `rewards`.

    Raises:
        ValueError: an argument is not as described; the message names it.
    """
    _check(rewards, scale, eps, singleton)
    if rewards.requires_grad:
        rewards = rewards.detach()
    n = rewards.shape[0]
    terms = rewards.shape[1] if rewards.dim() == 2 else 1
    ids, group_size = _as_ids(groups, rewards)
    if group_size > 1 and group_size == terms and weights is None:
        _warn_of_a_table(rewards, scale)
    if weights is not None:
        weights = _as_weights(weights, terms, rewards)
        weights = weights.detach() if weights.requires_grad else weights
    if token_mask is not None and not isinstance(token_mask, torch.Tensor):
        raise ValueError(f"token_mask must be a tensor [N, T], got {type(token_mask).__name__}")
    if token_mask is not None and token_mask.requires_grad:
        token_mask = token_mask.detach()
    if token_mask is not None and (token_mask.dim() != 2 or token_mask.shape[0] != n):
        raise ValueError(f"token_mask must be [N, T] with N = {n}, got {list(token_mask.shape)}")
    if token_mask is not None and token_mask.device != rewards.device:
        raise ValueError(f"token_mask is on {token_mask.device} but rewards are on {rewards.device}")
    return _op(rewards, ids, group_size, scale, float(eps), weights, token_mask, singleton == "reward")


def _check(rewards: torch.Tensor, scale: str, eps: float, singleton: str) -> None:
    if not isinstance(rewards, torch.Tensor) or rewards.dim() not in (1, 2):
        shape = list(rewards.shape) if isinstance(rewards, torch.Tensor) else type(rewards).__name__
        raise ValueError(f"rewards must be a tensor [N] or [N, F], got {shape}")
    if rewards.dim() == 2 and rewards.shape[1] == 0:
        raise ValueError("rewards has no term: its shape is [N, 0]")
    if rewards.is_complex():
        raise ValueError(f"rewards must be real, got {rewards.dtype}")
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(SCALES)}, got {scale!r:.80}")
    if singleton not in SINGLETONS:
        raise ValueError(f"singleton must be one of {', '.join(SINGLETONS)}, got {singleton!r:.80}")
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must be finite and not negative, got {eps}")


def _warn_of_a_table(rewards: torch.Tensor, scale: str) -> None:
    """A table [groups, group size] is read as [rows, terms], which is rarely meant where both sizes are equal."""
    if not scale.startswith("gdpo") and not torch.compiler.is_compiling():
        warnings.warn(f"rewards {_layout(rewards)}, and for terms weights, which says so", UserWarning, stacklevel=3)


def _layout(rewards: torch.Tensor) -> str:
    n, terms = rewards.shape
    return (
        f"[{n}, {terms}] is read as {n} completions of {terms} terms; "
        f"for {n} groups of {terms} give rewards.reshape(-1)"
    )


def _as_ids(groups: Any, rewards: torch.Tensor) -> tuple[torch.Tensor | None, int]:
    """Ids [N] on the device of the rewards and 0, or None and the size of groups of neighbours."""
    n = rewards.shape[0]
    if isinstance(groups, _INTEGERS) and not isinstance(groups, bool):
        groups = int(groups)
        if groups < 1 or n % groups != 0:
            table = rewards.dim() == 2 and rewards.shape[1] == groups
            rule, hint = ("divide", f": rewards {_layout(rewards)}") if table else ("be at least 1 and divide", "")
            raise ValueError(f"groups is a group size, so it must {rule} N = {n}, got {groups}{hint}")
        return None, groups
    if isinstance(groups, torch.Tensor):
        ids = groups
    elif isinstance(groups, np.ndarray) and groups.dtype.kind in "iu":
        ids = torch.from_numpy(groups.astype(np.int64))
    elif isinstance(groups, (Sequence, np.ndarray)) and not isinstance(groups, (str, bytes)):
        ids = torch.tensor(_numbered(groups), dtype=torch.int64, device="cpu")
    else:
        raise ValueError(f"groups must be a group size or [N] ids, got {type(groups).__name__}")
    if ids.dim() != 1 or ids.shape[0] != n:
        raise ValueError(f"groups must hold one id for each of the {n} rewards, got shape {list(ids.shape)}")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"groups must hold integer ids, got {ids.dtype}")
    return ids.to(device=rewards.device, dtype=torch.int64), 0


def _numbered(groups: Sequence[Any] | np.ndarray[Any, Any]) -> list[int]:
    """A number for each id, in order of first appearance."""
    seen: dict[Hashable, int] = {}
    try:
        numbers = [seen.setdefault(key, len(seen)) for key in groups]
    except TypeError:
        raise ValueError("groups must hold one hashable id for each reward") from None
    # A tensor's hash is its identity: each would be a group of its own.
    if any(isinstance(key, torch.Tensor) for key in seen):
        raise ValueError("groups must hold ids, not tensors: give one tensor [N], or numbers by .item()")
    return numbers


def _as_weights(weights: torch.Tensor | Sequence[float], terms: int, rewards: torch.Tensor) -> torch.Tensor:
    dtype = torch.float64 if rewards.dtype == torch.float64 else torch.float32
    if not isinstance(weights, torch.Tensor):
        values = tuple(float(weight) for weight in weights)
        for i, value in enumerate(values):
            if not math.isfinite(value):
                raise ValueError(f"weights[{i}] must be finite, got {value}")
        weights = _weights_tensor(values, dtype, rewards.device)
    if weights.dim() != 1 or weights.shape[0] != terms:
        raise ValueError(f"weights must hold one number for each of the {terms} terms, got shape {list(weights.shape)}")
    return weights.to(device=rewards.device, dtype=dtype)


@lru_cache(maxsize=32)
def _cached_weights(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def _weights_tensor(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Upload a tuple of weights once; a copy from host memory in every training step would stall the stream."""
    if torch.compiler.is_compiling():
        return torch.tensor(values, dtype=dtype, device=device)
    return _cached_weights(values, dtype, device)


def _cpu(
    rewards: torch.Tensor,
    ids: torch.Tensor | None,
    group_size: int,
    scale: str,
    eps: float,
    weights: torch.Tensor | None,
    token_mask: torch.Tensor | None,
    keep_single: bool,
) -> torch.Tensor:
    dtype = torch.float64 if rewards.dtype == torch.float64 else torch.float32
    rewards = rewards.to(dtype).contiguous()
    n = rewards.shape[0]
    terms = rewards.shape[1] if rewards.dim() == 2 else 1
    # C++ reads addresses as these types, whatever a caller of the registered op gives.
    ids = None if ids is None else ids.to(torch.int64).contiguous()
    weights = None if weights is None else weights.to(dtype).contiguous()
    scratch = None
    kind, tokens = "bits8", 0
    if token_mask is None:
        out = rewards.new_empty((n,), dtype=dtype)
    else:
        token_mask = token_mask.contiguous()
        kind, tokens = _mask_kind(token_mask), token_mask.shape[1]
        scratch = rewards.new_empty((n,), dtype=dtype)
        out = rewards.new_empty((n, tokens), dtype=dtype)
    if out.numel() > 0:
        extension.C.group_advantage(
            dtype == torch.float64, rewards.data_ptr(), n, terms, address(ids), group_size, scale, eps,
            address(weights), keep_single, address(token_mask), kind, tokens, address(scratch), out.data_ptr(),
        )  # fmt: skip
    return out


def _mask_kind(token_mask: torch.Tensor) -> str:
    kind = _MASK_KINDS.get(token_mask.dtype)
    if kind is None:
        raise ValueError(f"token_mask must be boolean, integer or floating, got {token_mask.dtype}")
    return kind


def _cuda(
    rewards: torch.Tensor,
    ids: torch.Tensor | None,
    group_size: int,
    scale: str,
    eps: float,
    weights: torch.Tensor | None,
    token_mask: torch.Tensor | None,
    keep_single: bool,
) -> torch.Tensor:
    from dpad_fast.kernels import group_advantage as kernel

    return kernel.launch(rewards, ids, group_size, scale, eps, weights, token_mask, keep_single)


def _fake(
    rewards: torch.Tensor,
    ids: torch.Tensor | None,
    group_size: int,
    scale: str,
    eps: float,
    weights: torch.Tensor | None,
    token_mask: torch.Tensor | None,
    keep_single: bool,
) -> torch.Tensor:
    dtype = torch.float64 if rewards.dtype == torch.float64 else torch.float32
    if token_mask is None:
        return rewards.new_empty((rewards.shape[0],), dtype=dtype)
    return rewards.new_empty(token_mask.shape, dtype=dtype)


_op = register(
    "group_advantage",
    "(Tensor rewards, Tensor? ids, int group_size, str scale, float eps, Tensor? weights, Tensor? token_mask, "
    "bool keep_single) -> Tensor",
    cpu=_cpu,
    cuda=_cuda,
    fake=_fake,
)
