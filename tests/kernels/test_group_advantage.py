"""The Triton kernel of group advantage against the reference, in the interpreter or on a GPU."""

import math

import pytest
import torch

from dpad_fast.ops.group_advantage import SCALES
from dpad_fast.reference.group_advantage import group_advantage as reference
from dpad_fast.testing import poisoned_memory

# NumPy, on which the interpreter runs, warns of inf - inf.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")


def launch(device: torch.device, rewards: torch.Tensor, ids: torch.Tensor | None, size: int, scale: str, *,
           eps: float = 1e-4, weights: torch.Tensor | None = None, mask: torch.Tensor | None = None,
           keep: bool = False) -> torch.Tensor:  # fmt: skip
    from dpad_fast.kernels.group_advantage import launch

    def there(tensor: torch.Tensor | None) -> torch.Tensor | None:
        # .to() would make strides plain; the kernel must take them as they are.
        return tensor if tensor is None or device.type == "cpu" else tensor.to(device)

    with poisoned_memory():
        out = launch(there(rewards), there(ids), size, scale, eps, there(weights), there(mask), keep)
    return out.cpu()


def rows(n: int, terms: int, nan: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    """Rewards with unscored entries, and ids of ragged groups in no order."""
    generator = torch.Generator().manual_seed(n + terms)
    rewards = torch.randn(n, terms, generator=generator)
    rewards[torch.rand(n, terms, generator=generator) < nan] = math.nan
    names = torch.randint(-(2**62), 2**62, (max(1, n // 4),), generator=generator)
    return rewards, names[torch.randint(0, len(names), (n,), generator=generator)]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("n", "keep"), [(1, False), (1, True), (9, False), (9, True), (63, False)])
def test_agrees_with_the_reference(device: torch.device, scale: str, n: int, keep: bool) -> None:
    rewards, ids = rows(n, 3)
    weights = torch.tensor([0.5, -1.0, 2.0])
    mask = torch.rand(n, 5, generator=torch.Generator().manual_seed(0)) < 0.7
    out = launch(device, rewards, ids, 0, scale, weights=weights, mask=mask, keep=keep)
    singleton = "reward" if keep else "zero"
    expected = reference(rewards, ids.tolist(), scale=scale, eps=1e-4, weights=weights.tolist(), token_mask=mask,
                         singleton=singleton)  # fmt: skip
    torch.testing.assert_close(out, expected.float(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_groups_of_neighbours(device: torch.device, scale: str) -> None:
    """The group size does not divide a program's rows, so groups cross programs."""
    rewards, _ = rows(63, 1, nan=0.0)
    out = launch(device, rewards[:, 0], None, 7, scale)
    torch.testing.assert_close(out, reference(rewards, 7, scale=scale, eps=1e-4).float(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_dtypes_of_rewards(device: torch.device, dtype: torch.dtype) -> None:
    rewards = torch.tensor([0.0, 1.0, 3.0, 1.0, 1.0, 0.0, 0.0, 2.0]).to(dtype)
    out = launch(device, rewards, None, 4, "std")
    assert out.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(out.double(), reference(rewards.double(), 4, eps=1e-4), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 63, 1000])
def test_masks(device: torch.device, dtype: torch.dtype, tokens: int) -> None:
    rewards, ids = rows(9, 1, nan=0.0)
    mask = (torch.rand(9, tokens, generator=torch.Generator().manual_seed(1)) < 0.5).to(dtype)
    out = launch(device, rewards, ids, 0, "none", mask=mask)
    torch.testing.assert_close(out, reference(rewards, ids.tolist(), scale="none", token_mask=mask).float())


def test_strides_of_any_kind(device: torch.device) -> None:
    wide, many = rows(24, 6)
    rewards, ids = wide[::2, ::3], many[::2]
    mask = (torch.rand(5, 12, generator=torch.Generator().manual_seed(2)) < 0.5).T
    out = launch(device, rewards, ids, 0, "std", mask=mask)
    expected = reference(rewards, ids.tolist(), eps=1e-4, token_mask=mask)
    torch.testing.assert_close(out, expected.float(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_equal_rewards_get_exactly_zero(device: torch.device, scale: str) -> None:
    out = launch(device, torch.full((21,), 0.1), None, 7, scale, eps=0.0)
    assert out.tolist() == [0.0] * 21


def test_more_rows_than_are_compared_at_once(device: torch.device) -> None:
    rewards, ids = rows(132, 1)
    out = launch(device, rewards, ids % 3, 0, "std")
    torch.testing.assert_close(out, reference(rewards, (ids % 3).tolist(), eps=1e-4).float(), rtol=2e-6, atol=2e-6)


def test_empty(device: torch.device) -> None:
    assert launch(device, torch.empty(0), None, 4, "gdpo-batch").shape == (0,)
    assert launch(device, torch.rand(4), None, 4, "std", mask=torch.ones(4, 0)).shape == (4, 0)


def test_many_rows_of_ragged_groups(device: torch.device) -> None:
    rewards, ids = rows(224, 2)
    mask = torch.rand(224, 3, generator=torch.Generator().manual_seed(0)) < 0.7
    out = launch(device, rewards.to(torch.bfloat16), ids, 0, "gdpo", mask=mask)
    expected = reference(rewards.to(torch.bfloat16).double(), ids.tolist(), scale="gdpo", eps=1e-4, token_mask=mask)
    torch.testing.assert_close(out, expected.float(), rtol=2e-6, atol=2e-6)


def test_a_thousand_rows(device: torch.device) -> None:
    """Groups are neighbours here: with ids, each of 125 programs would read all rows, too slow in the interpreter."""
    rewards, _ = rows(1000, 1)
    out = launch(device, rewards[:, 0], None, 8, "std")
    torch.testing.assert_close(out, reference(rewards, 8, eps=1e-4).float(), rtol=2e-6, atol=2e-6)
