"""Lists of numbers as tensors: torch's own values, on the CPU whatever the default device is."""

import math

import torch

from dpad_fast._native.numbers import float32, int64


def test_whole_numbers():
    values = [0, -1, 2**63 - 1, -(2**63)]
    assert torch.equal(int64(values), torch.tensor(values))
    assert torch.equal(int64(range(3)), torch.arange(3))
    assert (int64([]).shape, int64([]).dtype) == ((0,), torch.int64)


def test_floats_are_rounded_as_torch_does():
    values = [0.0, -0.0, 1 / 3, 0.1, 2.0**-149, 1e-46, 16777217.0, 3.4028234e38, math.inf, -math.inf, True, 3]
    found = float32(values)
    assert found.dtype == torch.float32
    assert torch.equal(found.view(torch.int32), torch.tensor(values, dtype=torch.float32).view(torch.int32))
    assert float32([math.nan]).isnan().all()
    assert (float32([]).shape, float32([]).dtype) == ((0,), torch.float32)


def test_the_default_device_does_not_matter():
    with torch.device("meta"):
        assert [float32([1.5]).device.type, float32([]).device.type, int64([]).device.type] == ["cpu"] * 3
