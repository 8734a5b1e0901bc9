"""The bodies of the CUDA mask launchers, played on the host, against the CPU ops: equal in every bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dpad_fast.ops import _mask_cuda
from dpad_fast.ops import _mask_ops as cpu
from dpad_fast.testing import poisoned_memory

SIZES = [(1, 1), (3, 16), (9, 7), (5, 63), (5, 64), (70, 65), (17, 129), (33, 224), (3, 1000), (1000, 3), (96, 640)]

pytestmark = pytest.mark.usefixtures("thread_order")


def shifted(tensor: torch.Tensor, by: int) -> torch.Tensor:
    """The same values at an address that is `by` elements past a multiple of 64 bytes."""
    room = torch.zeros(tensor.numel() + by + 64, dtype=tensor.dtype)
    start = (-room.data_ptr() // tensor.element_size()) % (64 // tensor.element_size()) + by
    there = room[start : start + tensor.numel()].view(tensor.shape)
    return there.copy_(tensor)


def masks(n: int, height: int, width: int, seed: int = 0, share: float = 0.5) -> torch.Tensor:
    """Noise, and among it an empty, a full and a one-pixel mask where there is room."""
    rng = np.random.default_rng([n, height, width, seed])
    out = rng.random((n, height, width)) < share
    out[1:2], out[2:3], out[3:4] = False, True, False
    out[3:4, height // 2, width - 1] = True
    return torch.from_numpy(out)


def same(got: Any, expected: Any) -> None:
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("size", SIZES)
def test_packing_and_back(size: tuple[int, int]) -> None:
    for by in (0, 1, 8, 13):
        dense = shifted(masks(5, *size), by)
        with poisoned_memory():
            packed = _mask_cuda.pack(dense, "masks")
            back = _mask_cuda.unpack(packed[0], size[1])
            measured = _mask_cuda.measure(packed[0], size[1])
        same(packed, cpu.pack(dense, "masks"))
        same(measured, packed[1:])
        assert torch.equal(back, dense)
    numbers = torch.randint(0, 4, (2, *size), generator=torch.Generator().manual_seed(0)).to(torch.uint8) * 64
    same(_mask_cuda.pack(numbers, "masks"), cpu.pack(numbers.bool(), "masks"))


def test_words_at_odd_addresses() -> None:
    words = cpu.pack(masks(3, 5, 65), "masks")[0]  # 10 words a mask: pairs are aligned in every mask or in none
    odd = shifted(words, 1)
    same(_mask_cuda.measure(odd, 65), cpu.measure(words, 65))
    assert torch.equal(_mask_cuda.unpack(odd, 65), cpu.unpack(words, 65))


def ignores(kind: str, n: int, height: int, width: int) -> torch.Tensor | None:
    if kind == "none":
        return None
    hidden = masks(n, height, width, seed=2, share=0.3)
    return hidden if kind == "each" else hidden[0]


@pytest.mark.parametrize("kind", ["none", "one", "each"])
@pytest.mark.parametrize("size", SIZES)
def test_counts_of_pairs(size: tuple[int, int], kind: str) -> None:
    a, b, ignore = masks(5, *size), masks(5, *size, seed=1), ignores(kind, 5, *size)
    for by in (0, 3):
        moved = None if ignore is None else shifted(ignore, by)
        with poisoned_memory():
            got = _mask_cuda.dense_counts(shifted(a, by), shifted(b, 2 * by), moved)
        same(got, cpu.dense_counts(a, b, ignore))
    left, right = list(cpu.pack(a, "masks")), list(cpu.pack(b, "masks"))
    skip = [] if ignore is None else list(cpu.pack(ignore.view(-1, *size), "masks"))
    expected = cpu.packed_counts(left, right, skip, size[1], False)
    for by in (0, 1):
        got = _mask_cuda.packed_counts([shifted(left[0], by), *left[1:]], right, skip, size[1], False)
        same(got, expected)


@pytest.mark.parametrize("kind", ["none", "one", "each"])
@pytest.mark.parametrize(("n", "m", "size"), [(1, 1, (1, 1)), (3, 17, (9, 65)), (65, 16, (5, 130)), (70, 40, (7, 64)),
                                              (2, 3, (96, 640)),
                                              (2, 3, (300, 640))])  # fmt: skip
def test_counts_of_all_pairs(n: int, m: int, size: tuple[int, int], kind: str) -> None:
    a, b, ignore = masks(n, *size), masks(m, *size, seed=1), ignores(kind, m, *size)
    left, right = list(cpu.pack(a, "masks")), list(cpu.pack(b, "masks"))
    skip = [] if ignore is None else list(cpu.pack(ignore.view(-1, *size), "masks"))
    with poisoned_memory():
        got = _mask_cuda.packed_counts(left, right, skip, size[1], True)
    same(got, cpu.packed_counts(left, right, skip, size[1], True))
    if kind == "none":
        same(_mask_cuda.dense_matrix_counts(a, b), got)


@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5), (3, 4, 0)])
def test_nothing_at_all(shape: tuple[int, int, int]) -> None:
    dense = torch.zeros(shape, dtype=torch.bool)
    packed = cpu.pack(dense, "masks")
    with poisoned_memory():
        same(_mask_cuda.pack(dense, "masks"), packed)
        assert torch.equal(_mask_cuda.unpack(packed[0], shape[2]), dense)
        same(_mask_cuda.dense_counts(dense, dense, None), cpu.dense_counts(dense, dense, None))
        for matrix in (False, True):
            expected = cpu.packed_counts(list(packed), list(packed), [], shape[2], matrix)
            same(_mask_cuda.packed_counts(list(packed), list(packed), [], shape[2], matrix), expected)


def test_ratios() -> None:
    """More than a block of them, of any shape and strides; nothing over nothing is what `empty` says."""
    union = torch.arange(7 * 90).view(7, 90) % 91
    counts = (union * 5 // 7, union)
    for given in (counts, tuple(part.T for part in counts), tuple(part[:0] for part in counts)):
        with poisoned_memory():
            assert torch.equal(_mask_cuda.ratio(*given, 0.25), cpu.ratio(*given, 0.25))


def test_layouts_and_bad_dtypes() -> None:
    dense = masks(4, 20, 30)
    turned = dense.permute(1, 2, 0)
    same(_mask_cuda.pack(turned, "masks"), cpu.pack(turned, "masks"))
    same(
        _mask_cuda.dense_counts(turned, turned.flip(0), turned[0]), cpu.dense_counts(turned, turned.flip(0), turned[0])
    )
    with pytest.raises(ValueError, match=r"mask_pack: masks must be bool or of 8-bit integers, got torch\.int64"):
        _mask_cuda.pack(dense.long(), "masks")
