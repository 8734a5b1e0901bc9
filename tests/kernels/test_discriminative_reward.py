"""The Triton kernel of the discriminative reward against the reference, in the interpreter or on a GPU."""

import math

import pytest
import torch

from dpad_fast.ops.discriminative_reward import SHAPES
from dpad_fast.reference.discriminative_reward import discriminative_reward as reference
from dpad_fast.testing import poisoned_memory

# NumPy, on which the interpreter runs, warns of inf / inf.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def launch(device: torch.device, *tensors: torch.Tensor | None, shape: str = "binary") -> list[torch.Tensor]:
    from dpad_fast.kernels.discriminative_reward import launch

    there = [t if t is None or device.type == "cpu" else t.to(device) for t in tensors]
    with poisoned_memory():
        out = launch(*there, shape, 7.0, 0.02)
    return [x.cpu() for x in out]


def embeddings(n: int, m: int, d: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(n * 1000 + d)
    text, roi, aoi = (torch.randn(k, d, generator=generator).to(dtype) for k in (n, m, m))
    return text, roi, aoi, torch.randint(-1, m, (n,), generator=generator)


@pytest.mark.parametrize(
    ("shape", "dtype"), [(shape, torch.float32) for shape in SHAPES] + [("released", dtype) for dtype in DTYPES[1:]]
)
@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (9, 4, 63), (5, 2, 224), (3, 3, 1000)])
def test_agrees_with_the_reference(
    device: torch.device, shape: str, dtype: torch.dtype, n: int, m: int, d: int
) -> None:
    text, roi, aoi, rows = embeddings(n, m, d, dtype)
    ours = launch(device, text, roi, aoi, rows, shape=shape)
    expected = reference(text, roi, aoi, rows.tolist(), shape=shape, alpha=7.0, tau=0.02)
    for got, want in zip(ours, expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=2e-6, atol=1e-6, equal_nan=True)


def test_no_index_and_strides_of_any_kind(device: torch.device) -> None:
    text, roi, aoi, _ = embeddings(12, 12, 126, torch.float32)
    sliced = launch(device, text[::2, ::2], roi[1::2, 1::2], aoi.flip(0)[::2, ::2], None, shape="margin")
    expected = reference(text[::2, ::2], roi[1::2, 1::2], aoi.flip(0)[::2, ::2], shape="margin")
    for got, want in zip(sliced, expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=2e-6, atol=1e-6)


def test_same_embedding_zero_non_finite_and_out_of_range(device: torch.device) -> None:
    text = torch.tensor([[1.0, 2.0], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], [1.0, 1.0], [1.0, 1.0]])
    roi = torch.tensor([[3.0, 1.0]])
    rows = torch.tensor([0, 0, 0, 0, 1, -7])
    for shape in SHAPES:
        reward, s1, s2 = launch(device, text, roi, roi, rows, shape=shape)
        assert s1[0] == s2[0]
        assert s1[1] == 0
        assert bool(s1[2:].isnan().all())
        assert bool(reward.isfinite().all())
        assert reward[2:].tolist() == [0.0] * 4
    assert launch(device, text, roi, roi, rows)[0].tolist() == [0.0] * 6
