"""Registered ops, called with other types than the public functions give them: addresses are never read as another."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import dpad_fast.ops  # noqa: F401  # registers them

OPS = torch.ops.dpad_fast
SQUARE = torch.tensor([[1.0, 1.0], [9.0, 1.0], [9.0, 7.0], [1.0, 7.0]], dtype=torch.float64)
STARTS = torch.tensor([0, 4]), torch.tensor([0, 1])
CROP = (8, "shortest", "bicubic", "floor", "pillow-13", [0.5] * 3, [0.25] * 3)
BOXES, INDEX = torch.tensor([[1, 2, 9, 9], [0, 0, 12, 10], [3, 1, 4, 8]]), torch.tensor([1, 0, 1])


def crops(boxes: torch.Tensor, index: torch.Tensor, into: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (10, 12, 3), generator=generator, dtype=torch.uint8) for _ in range(2)]
    if not into:
        return OPS.roi_clip_preprocess(images, boxes, index, *CROP, torch.float32)
    out = torch.empty(len(boxes), 3, 8, 8)
    OPS.roi_clip_preprocess_out(images, boxes, index, *CROP, out)
    return out


@pytest.mark.parametrize("into", [False, True])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_boxes_of_any_whole_numbers(dtype: torch.dtype, into: bool) -> None:
    assert torch.equal(crops(BOXES.to(dtype), INDEX.to(dtype), into), crops(BOXES, INDEX))


@pytest.mark.parametrize(("boxes", "index"), [(BOXES, INDEX[:2]), (BOXES[:, :2], INDEX), (BOXES.flatten(), INDEX)])
def test_boxes_and_numbers_must_fit(boxes: torch.Tensor, index: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"boxes must be \[K, 4\] and image_index \[K\], got \["):
        crops(boxes, index)


@pytest.mark.parametrize("name", ["polygon_draw", "polygon_draw_dense", "polygon_counts"])
def test_polygons_of_other_types(name: str) -> None:
    masks = list(OPS.mask_pack(torch.ones(1, 10, 12, dtype=torch.bool), "masks"))

    def call(*polygons: torch.Tensor) -> Any:
        if name == "polygon_counts":
            return OPS.polygon_counts(*polygons, masks, None, [], 12, "coco")
        return getattr(OPS, name)(*polygons, 10, 12, "coco")

    call(SQUARE, *STARTS)
    for which, part, dtype in ((0, "vertices", torch.float32), (1, "rings", torch.int32), (2, "objects", torch.int16)):
        parts = [SQUARE, *STARTS]
        parts[which] = parts[which].to(dtype)
        with pytest.raises(ValueError, match=f"{name}: {part} must be torch.*, got {dtype}"):
            call(*parts)


def test_masks_of_more_than_a_byte() -> None:
    masks, wide = torch.ones(2, 4, 5, dtype=torch.bool), torch.ones(2, 4, 5, dtype=torch.int64)
    for call, name in (
        (lambda: OPS.mask_pack(wide, "truth"), "mask_pack: truth"),
        (lambda: OPS.mask_dense_counts(wide, masks, None), "mask_dense_counts: a"),
        (lambda: OPS.mask_dense_counts(masks, wide, None), "mask_dense_counts: b"),
        (lambda: OPS.mask_dense_counts(masks, masks, wide), "mask_dense_counts: ignore"),
        (lambda: OPS.mask_dense_matrix_counts(masks, wide), "mask_dense_matrix_counts: b"),
    ):
        with pytest.raises(ValueError, match=f"{name} must be bool or of 8-bit integers, got torch.int64"):
            call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ids_and_weights_of_any_type(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    rewards = torch.randn(12, 2, generator=generator, dtype=dtype)
    ids, weights = torch.arange(12) % 3, torch.tensor([0.5, 2.0], dtype=dtype)
    expected = OPS.group_advantage(rewards, ids, 0, "std", 1e-4, weights, None, False)
    for other in (torch.float16, torch.float32, torch.float64):
        found = OPS.group_advantage(rewards, ids.to(torch.int32), 0, "std", 1e-4, weights.to(other), None, False)
        assert torch.equal(found, expected)


def test_rows_of_any_whole_numbers_and_embeddings_of_one_type() -> None:
    generator = torch.Generator().manual_seed(2)
    text, roi, aoi = (torch.randn(k, 16, generator=generator) for k in (5, 3, 3))
    rows = torch.tensor([2, -1, 0, 1, 2])
    options = ("margin", 1.0, 0.5)
    expected = OPS.discriminative_reward(text, roi, aoi, rows, *options)
    for found, want in zip(OPS.discriminative_reward(text, roi, aoi, rows.int(), *options), expected, strict=True):
        torch.testing.assert_close(found, want, rtol=0, atol=0, equal_nan=True)
    for places in ((text, roi.half(), aoi), (text, roi, aoi.double()), (text.half(), roi, aoi)):
        with pytest.raises(ValueError, match="text, roi and aoi must be of one dtype, got torch"):
            OPS.discriminative_reward(*places, rows, *options)
