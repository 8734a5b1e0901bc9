"""Group advantage against its reference, TRL's inline code, a restatement of verl's function, and its own promises."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import dpad_fast as df
from dpad_fast.ops.group_advantage import SCALES, SINGLETONS, _op
from dpad_fast.reference.group_advantage import group_advantage as reference

close = partial(torch.testing.assert_close, rtol=1e-6, atol=1e-6, check_dtype=False)


def ragged_ids(n: int, seed: int = 0) -> list[int]:
    """Groups of 1 to about n / 3 rows, in no order, with large and negative ids."""
    generator = torch.Generator().manual_seed(seed)
    names = torch.randint(-(2**62), 2**62, (max(1, n // 3),), generator=generator)
    return names[torch.randint(0, len(names), (n,), generator=generator)].tolist()


def rewards_of(n: int, terms: int | None, seed: int = 0, nan: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (n,) if terms is None else (n, terms)
    rewards = torch.randn(shape, generator=generator, dtype=torch.float64)
    rewards[torch.rand(shape, generator=generator) < nan] = math.nan
    return rewards


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("singleton", SINGLETONS)
@pytest.mark.parametrize("n", [1, 2, 63, 257])
@pytest.mark.parametrize("terms", [None, 1, 3])
@pytest.mark.parametrize("nan", [0.0, 0.3])
def test_agrees_with_the_reference(scale: str, singleton: str, n: int, terms: int | None, nan: float) -> None:
    rewards = rewards_of(n, terms, nan=nan)
    ids = ragged_ids(n)
    weights = None if terms != 3 else [0.5, -1.0, 2.0]
    keywords = {"scale": scale, "eps": 1e-4, "weights": weights, "singleton": singleton}
    expected = reference(rewards, ids, **keywords)
    close(df.ops.group_advantage(rewards, torch.tensor(ids), **keywords), expected, rtol=1e-12, atol=1e-12)
    assert bool(expected.isfinite().all())


@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16,
                                        torch.bfloat16, torch.float32, torch.float64])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_token_mask_of_any_dtype(mask_dtype: torch.dtype, dtype: torch.dtype) -> None:
    rewards = rewards_of(24, 2).to(dtype)
    mask = (torch.rand(24, 63, generator=torch.Generator().manual_seed(1)) < 0.6).to(mask_dtype)
    if mask_dtype.is_floating_point:
        mask[0, 0] = -0.0
    out = df.ops.group_advantage(rewards, 8, token_mask=mask)
    assert out.dtype == dtype
    close(out, reference(rewards, 8, token_mask=mask))
    assert bool((out[mask == 0] == 0).all())


def trl_1_16(per_term: torch.Tensor, size: int, scale: str, weights: torch.Tensor) -> torch.Tensor:
    """TRL 1.16's arithmetic, in its order and with its own nanstd, over contiguous groups."""
    nanstd = pytest.importorskip("trl.trainer.utils").nanstd
    unscored = per_term.isnan().all(dim=1)
    if scale == "gdpo-batch":
        grouped = per_term.view(-1, size, per_term.shape[1])
        spread = nanstd(grouped, dim=1, keepdim=True)
        normed = (grouped - torch.nanmean(grouped, dim=1, keepdim=True)) / (spread + 1e-4)
        total = (normed.view_as(per_term) * weights).nansum(dim=1).masked_fill(unscored, math.nan)
        return torch.nan_to_num((total - torch.nanmean(total)) / (nanstd(total) + 1e-4), nan=0.0)
    total = (per_term * weights).nansum(dim=1).masked_fill(unscored, math.nan)
    grouped = total.view(-1, size)
    advantage = total - torch.nanmean(grouped, dim=1).repeat_interleave(size)
    if scale == "std":
        advantage = advantage / (nanstd(grouped, dim=1).repeat_interleave(size) + 1e-4)
    elif scale == "batch":
        advantage = advantage / (nanstd(total) + 1e-4)
    return torch.nan_to_num(advantage, nan=0.0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scale", ["std", "none", "batch", "gdpo-batch"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_with_trl(scale: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    per_term = torch.randint(0, 3, (128, 4), generator=generator).to(dtype) + torch.rand(
        128, 4, generator=generator, dtype=dtype
    )
    per_term[torch.rand(128, 4, generator=generator) < 0.1] = math.nan
    per_term[:8] = math.nan
    per_term[8:15] = math.nan
    weights = torch.tensor([1.0, 0.5, 2.0, 1.0], dtype=dtype)
    ours = df.ops.group_advantage(per_term, 8, scale=scale, eps=1e-4, weights=weights)
    close(ours, trl_1_16(per_term, 8, scale, weights))


def verl_0_9(scores: torch.Tensor, index: list[str], mask: torch.Tensor, by_std: bool) -> torch.Tensor:
    """What verl 0.9's `compute_grpo_outcome_advantage` computes, restated: a lone response has mean 0 and std 1."""
    out = torch.empty_like(scores)
    for uid in set(index):
        rows = [i for i, other in enumerate(index) if other == uid]
        mean, std = (scores[rows].mean(), scores[rows].std()) if len(rows) > 1 else (0.0, 1.0)
        out[rows] = (scores[rows] - mean) / (std + 1e-6) if by_std else scores[rows] - mean
    return out[:, None] * mask


@pytest.mark.parametrize(("scale", "by_std"), [("std", True), ("none", False)])
def test_agrees_with_verl(scale: str, by_std: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    scores = torch.randint(0, 6, (96,), generator=generator) + torch.rand(96, generator=generator)
    index = [f"uid-{i}" for i in torch.randint(0, 20, (95,), generator=generator).tolist()] + ["alone"]
    mask = (torch.rand(96, 17, generator=generator) < 0.8).float()
    ours = df.ops.group_advantage(scores, np.array(index, dtype=object), scale=scale, token_mask=mask,
                                  singleton="reward")  # fmt: skip
    close(ours, verl_0_9(scores, index, mask, by_std))


@pytest.mark.parametrize("scale", SCALES)
def test_equal_rewards_get_exactly_zero(scale: str) -> None:
    rewards = torch.full((1001,), 0.1)
    for eps in (0.0, 1e-6):
        assert df.ops.group_advantage(rewards, 7, scale=scale, eps=eps).tolist() == [0.0] * 1001


def test_a_spread_too_small_to_square_is_no_spread() -> None:
    rewards = torch.tensor([1e-200, 2e-200], dtype=torch.float64)
    assert df.ops.group_advantage(rewards, 2, eps=0.0).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("scale", SCALES)
def test_a_lone_scored_row(scale: str) -> None:
    rewards = torch.tensor([3.0, math.nan, math.nan])
    assert df.ops.group_advantage(rewards, [5, 5, 6], scale=scale).tolist() == [0.0, 0.0, 0.0]
    kept = df.ops.group_advantage(rewards, [5, 5, 6], scale=scale, singleton="reward", eps=0.5)
    expected = {"std": 2.0, "none": 3.0, "batch": 6.0, "rloo": 3.0, "gdpo": 2.0, "gdpo-batch": 0.0}
    assert kept.tolist() == [expected[scale], 0.0, 0.0]


def test_rloo_is_the_mean_of_the_others() -> None:
    rewards = torch.tensor([1.0, 5.0, 3.0, 7.0])
    expected = [r - (sum(rewards.tolist()) - r) / 3 for r in rewards.tolist()]
    close(df.ops.group_advantage(rewards, 4, scale="rloo"), torch.tensor(expected))


def test_infinite_rewards_are_unscored() -> None:
    rewards = torch.tensor([1.0, math.inf, 3.0, -math.inf])
    close(df.ops.group_advantage(rewards, 4, scale="none"), torch.tensor([-1.0, 0.0, 1.0, 0.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32, torch.bool])
def test_other_dtypes_are_computed_in_float32(dtype: torch.dtype) -> None:
    rewards = torch.tensor([0, 1, 1, 0, 1, 0]).to(dtype)
    out = df.ops.group_advantage(rewards, 3)
    assert out.dtype == torch.float32
    close(out, reference(rewards.float(), 3))


def test_non_contiguous_input() -> None:
    wide = rewards_of(48, 6)
    rewards = wide[::2, ::3]
    ids = torch.tensor(ragged_ids(48))[::2]
    mask = (torch.rand(9, 24, generator=torch.Generator().manual_seed(0)) < 0.5).T
    weights = torch.tensor([1.0, 9.0, 2.0])[::2]
    out = df.ops.group_advantage(rewards, ids, weights=weights, token_mask=mask)
    close(out, reference(rewards, ids.tolist(), weights=weights.tolist(), token_mask=mask))


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(width=32)), min_size=1, max_size=40), st.sampled_from(SCALES))
@settings(max_examples=150, deadline=None)
def test_any_rewards_give_finite_advantages_that_ignore_order(rows: list[tuple[int, float]], scale: str) -> None:
    ids = torch.tensor([group for group, _ in rows])
    rewards = torch.tensor([reward for _, reward in rows], dtype=torch.float64)
    out = df.ops.group_advantage(rewards, ids, scale=scale)
    assert bool(out.isfinite().all())
    backwards = df.ops.group_advantage(rewards.flip(0), ids.flip(0), scale=scale)
    torch.testing.assert_close(backwards.flip(0), out, rtol=1e-6, atol=1e-6 * float(out.abs().max()))


def test_empty_batch_and_empty_token_axis() -> None:
    assert df.ops.group_advantage(torch.empty(0), 4).shape == (0,)
    assert df.ops.group_advantage(torch.rand(4), 4, token_mask=torch.ones(4, 0)).shape == (4, 0)


def test_no_gradient_flows() -> None:
    rewards = torch.rand(8, requires_grad=True)
    assert not df.ops.group_advantage(rewards, 4).requires_grad
    weights, token_mask = torch.ones(1, requires_grad=True), torch.ones(8, 3, requires_grad=True)
    assert not df.ops.group_advantage(rewards, 4, weights=weights, token_mask=token_mask).requires_grad


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((torch.rand(8), 3), {}, "groups is a group size.*divide N = 8, got 3"),
        ((torch.rand(8), 0), {}, "at least 1.*got 0"),
        ((torch.rand(8), True), {}, "groups must be a group size or"),
        ((torch.rand(8), "abcdefgh"), {}, "groups must be a group size or"),
        ((torch.rand(4), list(torch.tensor([0, 0, 1, 1]))), {}, "groups must hold ids, not tensors"),
        ((torch.rand(2), [[0], [0]]), {}, "groups must hold one hashable id for each reward"),
        ((torch.rand(8), torch.arange(7)), {}, r"groups must hold one id for each of the 8 rewards.*\[7\]"),
        ((torch.rand(8), torch.rand(8)), {}, "groups must hold integer ids, got torch.float32"),
        ((torch.rand(2, 2, 2), 2), {}, r"rewards must be a tensor \[N\] or \[N, F\], got \[2, 2, 2\]"),
        (([1.0, 2.0], 2), {}, "rewards must be a tensor.*got list"),
        ((torch.rand(4, 0), 2), {}, "rewards has no term"),
        ((torch.rand(4).to(torch.complex64), 2), {}, "rewards must be real"),
        ((torch.rand(4), 2), {"scale": "grpo"}, "scale must be one of std, none,.*got 'grpo'"),
        ((torch.rand(4), 2), {"singleton": "x"}, "singleton must be one of zero, reward, got 'x'"),
        ((torch.rand(4), 2), {"eps": -1.0}, "eps must be finite and not negative, got -1.0"),
        ((torch.rand(4), 2), {"eps": math.nan}, "eps must be finite"),
        ((torch.rand(4, 3), 2), {"weights": [1, 2]}, r"weights must hold one number for each of the 3 terms.*\[2\]"),
        ((torch.rand(4, 2), 2), {"weights": [1, math.nan]}, r"weights\[1\] must be finite, got nan"),
        ((torch.rand(4), 2), {"token_mask": torch.ones(3, 5)}, r"token_mask must be \[N, T\] with N = 4, got \[3, 5\]"),
        ((torch.rand(4), 2), {"token_mask": np.ones((4, 5))}, r"token_mask must be a tensor \[N, T\], got ndarray"),
        ((torch.rand(4), 2), {"token_mask": torch.ones(4, 2).to(torch.complex64)}, "token_mask must be boolean"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[object, ...], keywords: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        df.ops.group_advantage(*arguments, **keywords)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scale", SCALES)
def test_opcheck(scale: str) -> None:
    rewards, ids, mask = torch.rand(12, 3), torch.arange(12) % 4, torch.rand(12, 5) < 0.5
    torch.library.opcheck(_op, (rewards, ids, 0, scale, 1e-6, torch.rand(3), mask, False))
    torch.library.opcheck(_op, (rewards[:, 0], None, 4, scale, 1e-6, None, None, True))


@pytest.mark.filterwarnings("ignore")
def test_compiles_without_a_graph_break() -> None:
    def step(rewards: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return df.ops.group_advantage(rewards * 2, ids, weights=[1.0, 2.0], token_mask=mask).relu()

    rewards, ids, mask = torch.rand(12, 2), torch.arange(12) % 4, torch.rand(12, 5) < 0.5
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    close(compiled(rewards, ids, mask), step(rewards, ids, mask))
    by_size = torch.compile(lambda r: df.ops.group_advantage(r, 4), fullgraph=True, backend="aot_eager")
    close(by_size(rewards), df.ops.group_advantage(rewards, 4))


def test_fake_cuda_tensors_give_the_right_shape_and_device() -> None:
    with torch._subclasses.FakeTensorMode():
        rewards = torch.empty(8, 2, device="cuda")
        out = df.ops.group_advantage(rewards, 4, token_mask=torch.empty(8, 3, device="cuda"))
        assert out.shape == (8, 3)
        assert out.device.type == "cuda"


def test_a_table_of_groups_is_asked_about():
    """A table [B, G] looks like [N, F] where F is the group size."""
    table = torch.arange(12.0).reshape(3, 4)
    with pytest.raises(
        ValueError, match=r"must divide N = 3, got 4: rewards \[3, 4\] is read as 3 completions of 4 terms"
    ):
        df.ops.group_advantage(table, 4)
    square = torch.arange(16.0).reshape(4, 4)
    with pytest.warns(UserWarning, match=r"for 4 groups of 4 give rewards.reshape\(-1\), and for terms weights"):
        summed = df.ops.group_advantage(square, 4)
    # No warning where terms are meant or the shape is another one; a warning would be an error here.
    assert torch.equal(df.ops.group_advantage(square, 4, weights=[1.0] * 4), summed)
    assert df.ops.group_advantage(square, 4, scale="gdpo").shape == (4,)
    assert df.ops.group_advantage(square, 2).shape == (4,)
    assert df.ops.group_advantage(square[:, :1], 1).shape == (4,)
    assert df.ops.group_advantage(square, torch.tensor([0, 0, 1, 1])).shape == (4,)
    assert df.ops.group_advantage(square.reshape(-1), 4).shape == (16,)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_a_group_size_of_numpy(kind):
    rewards = torch.tensor([1.0, 2, 5, 4])
    assert torch.equal(df.ops.group_advantage(rewards, kind(2)), df.ops.group_advantage(rewards, 2))
