"""What goes from the host to a GPU arrives as it was, in one copy."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dpad_fast._native.address import address
from dpad_fast._native.images import as_pixels
from dpad_fast._native.upload import PackedImages, upload, upload_images
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


def test_upload_begins_on_the_host_whatever_the_default_device_is() -> None:
    part = torch.tensor([7, 8])
    torch.set_default_device("meta")
    try:
        (there,) = upload((part,), torch.device("cpu"))
    finally:
        torch.set_default_device(None)
    assert there.tolist() == [7, 8]


def test_three_bytes_a_pixel_go_up_in_one_piece() -> None:
    """Where nothing can be computed, shapes, strides and how much goes up can still be looked at."""
    there = torch.device("meta")
    wide = torch.from_numpy(noisy_pixels(40, 500))
    images = [
        (torch.from_numpy(noisy_pixels(20, 31)), (93, 3, 1)),
        (torch.from_numpy(noisy_pixels(20, 31)).permute(2, 0, 1).contiguous(), (31, 1, 620)),
        (torch.from_numpy(noisy_pixels(20, 31)[..., 0]), (31, 1, 0)),
        (wide[10:30, 100:131], (93, 3, 1)),
        (Image.fromarray(noisy_pixels(20, 31)), (93, 3, 1)),
    ]
    pixels = [as_pixels(image, "image") for image, _ in images]
    up = upload_images(pixels, there)
    assert [tuple(image.shape) for image in up] == [(20, 31, 3)] * 5
    assert [image.stride() for image in up] == [strides for _, strides in images]
    assert {image.untyped_storage().nbytes() for image in up} == {20 * 31 * (4 * 3 + 1)}
    assert all(one is other for one, other in zip(upload_images(pixels, torch.device("cpu")), pixels, strict=True))
    assert upload_images(up, there) == up
    with pytest.raises(ValueError, match=r"images\[1\] is on meta, expected cuda:0 or the host"):
        upload_images([pixels[0], up[0]], torch.device("cuda:0"))


@st.composite
def views(draw: st.DrawFn) -> torch.Tensor:
    """[H, W, 3] of any of the layouts that users' images have, or a crop of one."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    bytes_ = draw(st.sampled_from([1, 3, 4]))
    whole = torch.from_numpy(
        noisy_pixels(height, width, seed=draw(st.integers(0, 99)), channels=4)[..., :bytes_].copy()
    )
    if draw(st.booleans()):  # planes
        whole = whole.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    whole = whole.expand(-1, -1, 3) if bytes_ == 1 else whole[..., :3]
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    bottom, right = draw(st.integers(top + 1, height)), draw(st.integers(left + 1, width))
    return whole[top:bottom, left:right] if draw(st.booleans()) else whole


@given(st.lists(views(), min_size=1, max_size=5), st.integers(0, 5), st.integers(1, 3))
def test_packed_images_are_the_images(images: list[torch.Tensor], more: int, threads: int) -> None:
    packed = PackedImages(images)
    assert packed.size == sum(image.shape[0] * image.shape[1] * (1 if image.stride(2) == 0 else 3) for image in images)
    memory = torch.full((packed.size + more,), 0xA5, dtype=torch.uint8)
    packed.fill(memory, threads)
    for found, image in zip(packed.views(memory), images, strict=True):
        assert torch.equal(found, image)
    assert bool((memory[packed.size :] == 0xA5).all())


def test_a_photograph_is_packed_by_several_threads() -> None:
    wide = torch.from_numpy(noisy_pixels(700, 501, channels=4))
    images = [wide[..., :3], wide[3:, 5:, :3], wide[..., 1:], wide[..., :3].transpose(0, 1), wide[..., :3].flip(2)]
    packed = PackedImages(images)
    memory = torch.empty(packed.size, dtype=torch.uint8)
    packed.fill(memory, 4)
    for found, image in zip(packed.views(memory), images, strict=True):
        assert torch.equal(found, image)
