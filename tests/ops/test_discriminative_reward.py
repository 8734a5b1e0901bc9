"""The discriminative reward against its reference and torch, and its own promises."""

import inspect
import math

import numpy as np
import pytest
import torch

import dpad_fast as df
from dpad_fast.ops.discriminative_reward import SHAPES, _op, discriminative_reward, reward_of
from dpad_fast.reference.discriminative_reward import discriminative_reward as reference
from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.discriminative import apply_shape

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def embeddings(n: int, m: int, d: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Captions, regions, whole images and the region of each caption (some have none)."""
    generator = torch.Generator().manual_seed(n * 1000 + d)
    text, roi, aoi = (torch.randn(rows, d, generator=generator).to(dtype) for rows in (n, m, m))
    return text, roi, aoi, torch.randint(-1, m, (n,), generator=generator)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (7, 3, 63), (33, 5, 512), (4, 2, 1000)])
def test_agrees_with_the_reference(shape: str, dtype: torch.dtype, n: int, m: int, d: int) -> None:
    text, roi, aoi, rows = embeddings(n, m, d, dtype)
    keywords = {"shape": shape, "alpha": 7.0, "tau": 0.02}
    ours = df.ops.discriminative_reward(text, roi, aoi, rows, **keywords)
    expected = reference(text, roi, aoi, rows.tolist(), **keywords)
    for got, want in zip(ours, expected, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), want, rtol=2e-6, atol=1e-6, equal_nan=True)


def test_agrees_with_torch() -> None:
    text, roi, aoi, rows = embeddings(128, 16, 512)
    rows = rows.clamp(min=0)
    _, s1, s2 = df.ops.discriminative_reward(text, roi, aoi, rows)
    torch.testing.assert_close(s1, torch.cosine_similarity(text, roi[rows]), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(s2, torch.cosine_similarity(text, aoi[rows]), rtol=1e-6, atol=1e-6)


def test_every_float16_is_read_exactly() -> None:
    """Each of the 2^16 patterns against 1: the cosine's sign, and NaN or infinity, tell a wrong conversion."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    one = torch.ones(1, 2, dtype=torch.float16)
    text = torch.stack([values, torch.full_like(values, 2.0**-10)], dim=1)
    rows = torch.zeros(len(values), dtype=torch.int64)
    _, s1, _ = df.ops.discriminative_reward(text, one, one, rows)
    expected = torch.cosine_similarity(text.double(), one.double().expand_as(text))
    finite = values.isfinite()
    torch.testing.assert_close(s1[finite].double(), expected[finite], rtol=1e-6, atol=1e-6)
    assert bool(s1[~finite].isnan().all())


def test_the_same_embedding_on_both_sides_is_no_win() -> None:
    text, roi, _, _ = embeddings(50, 50, 512)
    reward, s1, s2 = df.ops.discriminative_reward(text, roi, roi)
    assert torch.equal(s1, s2)
    assert reward.tolist() == [0.0] * 50


def test_a_caption_scores_the_same_in_any_company() -> None:
    text, roi, aoi, rows = embeddings(40, 6, 512)
    whole = df.ops.discriminative_reward(text, roi, aoi, rows)
    for i in (0, 13, 39):
        alone = df.ops.discriminative_reward(text[i : i + 1], roi, aoi, rows[i : i + 1])
        for a, b in zip(alone, whole, strict=True):
            assert torch.equal(a[0].nan_to_num(9), b[i].nan_to_num(9))


def test_zero_and_non_finite_embeddings() -> None:
    text = torch.tensor([[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0], [3e38, 3e38]])
    roi = aoi = torch.ones(4, 2)
    for shape in SHAPES:
        reward, s1, _ = df.ops.discriminative_reward(text, roi, aoi, shape=shape)
        assert s1[0] == 0
        assert bool(s1[1:].isnan().all())
        assert bool(reward.isfinite().all())
        assert reward[1:].tolist() == [0.0] * 3


def test_non_contiguous_input() -> None:
    text, roi, aoi, rows = embeddings(20, 8, 126)
    sliced = df.ops.discriminative_reward(text[::2, ::2], roi[:, 1::2], aoi.flip(0)[:, ::2], rows[::2])
    copied = df.ops.discriminative_reward(
        text[::2, ::2].clone(), roi[:, 1::2].clone(), aoi.flip(0)[:, ::2].clone(), rows[::2].clone()
    )
    for a, b in zip(sliced, copied, strict=True):
        assert torch.equal(a.nan_to_num(9), b.nan_to_num(9))


def test_empty_batch() -> None:
    none = torch.empty(0, 4)
    assert [x.shape for x in df.ops.discriminative_reward(none, none, none)] == [(0,)] * 3


E = torch.rand(3, 4)


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((E[0], E, E), {}, r"text must be \[N, D\] with D at least 1, got \[4\]"),
        ((E[:, :0], E, E), {}, r"text must be \[N, D\] with D at least 1"),
        ((E.long(), E, E), {}, "text must be float32, float16, bfloat16 or float64, got torch.int64"),
        ((E, E[:, :2], E), {}, r"roi must be \[M, D\] with D = 4, got \[3, 2\]"),
        ((E, E, E.half()), {}, "aoi must have the dtype of text, torch.float32, got torch.float16"),
        ((E, E[:2], E), {}, "roi and aoi must have as many rows, got 2 and 3"),
        ((E, E[:2], E[:2]), {}, "without row_index, roi needs a row per caption: 3, got 2"),
        ((E, E, E, torch.zeros(2, dtype=torch.int64)), {}, r"row_index must be \[N\] with N = 3, got \[2\]"),
        ((E, E, E, torch.zeros(3)), {}, "row_index must hold integers, got torch.float32"),
        ((E, E, E, torch.tensor([0, 3, 1])), {}, r"row_index\[1\] must be -1 or below M = 3, got 3"),
        ((E, E, E, torch.tensor([0, 1, -2])), {}, r"row_index\[2\] must be -1 or below M = 3, got -2"),
        ((E, E, E), {"shape": "paper"}, "shape must be one of binary, .*, got 'paper'"),
        ((E, E, E), {"alpha": math.inf}, "alpha must be finite, got inf"),
        ((E, E, E), {"tau": math.nan}, "tau must be finite, got nan"),
        (
            (E, E, E),
            {"alpha": 1e308, "shape": "sigmoid"},
            r"alpha must be finite, got 1e\+308; expected a number within",
        ),
        ((E, E, E), {"alpha": 10**400}, "alpha must be finite, got 1000"),
        ((E, E, E), {"tau": "0.2"}, "tau must be finite, got '0.2'"),
        ((E, E, E), {"tau": True}, "tau must be finite, got True"),
        ((E.numpy(), E, E), {}, "text must be a tensor, got ndarray"),
        ((E, E.tolist(), E), {}, "roi must be a tensor, got list"),
        ((E, E, E.to_sparse()), {}, "aoi must be a dense tensor, got torch.sparse_coo"),
        ((E, E, E, [0, 1, 2]), {}, "row_index must be a tensor, got list"),
    ],
)
def test_bad_arguments_are_named(
    arguments: tuple[torch.Tensor, ...], keywords: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        df.ops.discriminative_reward(*arguments, **keywords)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_opcheck(shape: str, dtype: torch.dtype) -> None:
    text, roi, aoi, rows = embeddings(5, 3, 17, dtype)
    torch.library.opcheck(_op, (text, roi, aoi, rows.clamp(min=0), shape, 10.0, 0.1))
    torch.library.opcheck(_op, (roi, roi, aoi, None, shape, 10.0, 0.1))


def test_compiles_without_a_graph_break() -> None:
    text, roi, aoi, rows = embeddings(5, 3, 17)

    def step(text: torch.Tensor, roi: torch.Tensor) -> torch.Tensor:
        reward, s1, s2 = df.ops.discriminative_reward(text, roi + 1, aoi, rows.clamp(min=0), shape="released")
        return reward + s1 - s2

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(text, roi), step(text, roi))


def test_fake_cuda_tensors_give_the_right_shape_and_device() -> None:
    with torch._subclasses.FakeTensorMode():
        e = torch.empty(8, 16, device="cuda", dtype=torch.bfloat16)
        out = df.ops.discriminative_reward(e, e, e)
        assert [(x.shape, x.device.type, x.dtype) for x in out] == [((8,), "cuda", torch.float32)] * 3


def test_there_is_one_default_of_each_number():
    config = RewardConfig()
    for function in (discriminative_reward, reward_of, reference):
        defaults = inspect.signature(function).parameters
        assert (defaults["alpha"].default, defaults["tau"].default) == (config.alpha, config.tau) == (50.0, 0.25)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_scorers_formula_is_the_ops(shape):
    """On the op's own S1 and S2, and on those that are not finite, which the scorer's formula once rewarded."""
    generator = torch.Generator().manual_seed(5)
    text, roi, aoi = (torch.randn(200, 16, generator=generator) for _ in range(3))
    roi[0], aoi[1], text[2] = math.nan, math.inf, math.nan
    roi[3] = aoi[3]
    text[4] = 0
    for alpha, tau in ((50.0, 0.25), (1e4, 0.0), (0.0, -1.0)):
        reward, s1, s2 = discriminative_reward(text, roi, aoi, shape=shape, alpha=alpha, tau=tau)
        config = RewardConfig(shape=shape, alpha=alpha, tau=tau)
        ours = apply_shape(s1, s2, config)
        assert ours.dtype == torch.float32
        if shape == "sigmoid":
            assert torch.allclose(ours, reward, rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(ours, reward)
        assert ours[:3].tolist() == [0, 0, 0]
    s1, s2 = torch.tensor([math.inf, math.nan, 0.9, 0.5]), torch.tensor([0.1, 0.1, -math.inf, math.nan])
    assert apply_shape(s1, s2, RewardConfig(shape=shape)).tolist() == [0] * 4


def test_the_steepest_slope_of_a_tie_is_a_half():
    assert discriminative_reward(E, E, E, shape="sigmoid", alpha=1e30)[0].tolist() == [0.5] * 3
    assert apply_shape(E[0], E[0], RewardConfig(shape="sigmoid", alpha=1e30)).tolist() == [0.5] * 4
    for kind in (np.float32, np.float64, torch.tensor):
        reward = discriminative_reward(E, E.flip(0), E, shape="sigmoid", alpha=kind(2.0))[0]
        assert torch.equal(reward, discriminative_reward(E, E.flip(0), E, shape="sigmoid", alpha=2.0)[0])
