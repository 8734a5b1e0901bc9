"""What goes from the host to a GPU arrives as it was, in one copy."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from dpad_fast._native.address import address
from dpad_fast._native.images import as_pixels
from dpad_fast._native.upload import upload, upload_image
from dpad_fast.testing import noisy_pixels


def test_no_tensor_has_the_address_0() -> None:
    values = torch.arange(6)
    assert address(None) == 0
    assert address(values[2:]) == values.data_ptr() + 16


def test_upload_keeps_values_types_and_shapes() -> None:
    parts = torch.rand(5, 2, dtype=torch.float64), torch.tensor([0, 5]), torch.zeros(0, dtype=torch.int64)
    for part, there in zip(parts, upload(parts, torch.device("cpu")), strict=True):
        assert torch.equal(part, there)
        assert (part.dtype, part.shape) == (there.dtype, there.shape)


def test_images_go_to_a_device_as_they_lie() -> None:
    """Where nothing can be computed, shapes, strides and how much goes up can still be looked at."""
    there = torch.device("meta")
    picture = Image.fromarray(noisy_pixels(20, 31))
    wide = torch.from_numpy(noisy_pixels(40, 500))
    for image, span in (
        (torch.from_numpy(noisy_pixels(20, 31)), 20 * 31 * 3),
        (torch.from_numpy(noisy_pixels(20, 31)).permute(2, 0, 1), 20 * 31 * 3),
        (torch.from_numpy(noisy_pixels(20, 31)[..., 0]), 20 * 31),
        (wide[10:30, 100:131], 20 * 31 * 3),
        (picture, 20 * 31 * 4 - 1 if hasattr(picture, "__arrow_c_array__") else 20 * 31 * 3),
    ):
        pixels = as_pixels(image, "image")
        up = upload_image(pixels, there, "image")
        assert up.shape == pixels.shape == (20, 31, 3)
        assert up.untyped_storage().nbytes() == span
        assert upload_image(pixels, torch.device("cpu"), "image") is pixels
    with pytest.raises(ValueError, match=r"images\[1\] is on meta, expected cuda:0 or the host"):
        upload_image(up, torch.device("cuda:0"), "images[1]")


def test_uploaded_bytes_are_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The staging copy, with the host in the place of a GPU."""

    class Elsewhere:
        type, index = "elsewhere", None

    sent = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, **options: sent.append(device) or self)
    for image in (
        noisy_pixels(20, 31),
        noisy_pixels(20, 31, channels=4)[..., :3],
        noisy_pixels(40, 500)[10:30, 100:131],
        noisy_pixels(9, 7)[..., :1],
    ):
        pixels = torch.from_numpy(image).expand(-1, -1, 3)
        assert torch.equal(upload_image(pixels, Elsewhere(), "image"), pixels)
    assert len(sent) == 4
