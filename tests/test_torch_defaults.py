"""Users set torch's default dtype and device: neither may reach memory whose address goes to C++, nor a result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

import dpad_fast as df
from dpad_fast import coco_mask, ops
from dpad_fast.testing import rewards as shared

RNG = np.random.default_rng(0)
MASKS = RNG.random((6, 70, 90)) < 0.3
POLYGONS = [(RNG.random((7, 2)) * 60).tolist() for _ in range(6)]
PHOTOGRAPHS = [RNG.integers(0, 256, (50, 70, 3), np.uint8) for _ in range(2)]
REWARDS = torch.tensor([1.0, 2.0, 4.0, 7.0])
ROWS = torch.nn.functional.normalize(torch.arange(32.0).view(4, 8), dim=1)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


# What is put on "meta" by mistake has no memory: it cannot work by luck, as it might on a GPU.
SETTINGS = {
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "elsewhere": lambda: torch.device("meta"),
}


def masks() -> list[Any]:
    packed = ops.PackedMasks.from_dense(MASKS)
    rles = packed.to_rle()
    return [
        ops.mask_iou(MASKS, MASKS[::-1], ignore=MASKS[0]),
        ops.mask_iou_matrix(MASKS, MASKS[:2]),
        ops.mask_iou_matrix(packed, MASKS[:2], crowd=[True, False]),
        packed.area, packed[[0, 2]].box, packed.to_dense(), packed.intersection(packed), packed.union(packed),
        ops.PackedMasks.from_rle(rles).words,
        ops.PackedMasks.from_boxes([(1, 2, 30, 40), (0, 0, 5, 5)], 70, 90).words,
        ops.PackedMasks(packed.words, 90).box,
        coco_mask.decode(rles), coco_mask.iou(rles, rles, [0] * 6), coco_mask.area(rles), coco_mask.toBbox(rles),
    ]  # fmt: skip


def polygons() -> list[Any]:
    packed = ops.PackedMasks.from_dense(MASKS)
    tensors = [torch.tensor(ring, dtype=torch.float64, device="cpu") for ring in POLYGONS]
    return [
        *(ops.rasterize_polygons(POLYGONS, 70, 90, rule=rule, out="dense") for rule in ops.polygons.RULES),
        ops.rasterize_polygons(POLYGONS, 70, 90).words,
        ops.rasterize_polygons(tensors, 70, 90).words,
        ops.polygon_iou(POLYGONS, MASKS),
        ops.polygon_iou(POLYGONS, packed, mask_index=[0, 0, 1, 5, 2, 3], ignore=MASKS[0]),
    ]


def crops() -> list[Any]:
    boxes = [(1, 2, 30, 40), None, (3.4, 0, 20, 9)]
    strided = torch.zeros((3, 224, 224, 3), dtype=torch.float32, device="cpu").permute(0, 3, 1, 2)
    return [
        ops.roi_clip_preprocess(PHOTOGRAPHS, None),
        ops.roi_clip_preprocess(PHOTOGRAPHS, boxes, [0, 1, 1]),
        ops.roi_clip_preprocess(PHOTOGRAPHS, np.array([(1, 2, 30, 40)]), np.array([1]), dtype=torch.bfloat16),
        ops.roi_clip_preprocess(PHOTOGRAPHS, boxes, [0, 1, 1], out=strided),
    ]


def rewards() -> list[Any]:
    return [
        ops.group_advantage(REWARDS, 2),
        ops.group_advantage(REWARDS, ["a", "b", "b", "a"], scale="batch"),
        ops.group_advantage(REWARDS.view(2, 2), 2, scale="gdpo", weights=[1, 2]),
        *ops.discriminative_reward(ROWS, ROWS.flip(0)[:2], ROWS[:2], torch.tensor([0, 1, 1, 0], device="cpu")),
    ]


def same(got: Any, want: Any) -> None:
    if isinstance(want, torch.Tensor):
        assert (got.dtype, got.device) == (want.dtype, want.device)
        assert torch.equal(got, want)
    else:
        assert np.array_equal(got, want)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("work", [masks, polygons, crops, rewards])
def test_ops(work: Any, setting: str) -> None:
    expected = work()
    with SETTINGS[setting]():
        found = work()
    for got, want in zip(found, expected, strict=True):
        same(got, want)


def scores(encoder: df.ClipEncoder) -> Any:
    pictures = [shared.picture(i) for i in range(3)]
    completions = [shared.completion(box=(5 + i, 4, 60, 50)) for i in range(3)]
    target = df.Target(box=(20, 12, 64, 52), points=((30, 24), (50, 40)), image_size=shared.SIZE)
    return df.RewardScorer(df.RewardConfig(), encoder).score(completions, [target] * 3, pictures)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("precision", ["float32", "guarded"])
def test_the_reward_stage(precision: str, setting: str) -> None:
    clip = shared.tiny_clip()
    expected = scores(df.ClipEncoder.from_transformers(*clip, precision=precision))
    with SETTINGS[setting]():
        found = scores(df.ClipEncoder.from_transformers(*clip, precision=precision))
    assert found.reasons == expected.reasons
    assert set(expected.reasons) <= {None, "not-discriminative"}
    same(found.total, expected.total)
    for name in expected.similarity:
        same(found.similarity[name], expected.similarity[name])
