"""PackedMasks: what it does by itself is what the functions for masks and polygons do."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

from dpad_fast.ops import PackedMasks, mask_iou, masks, rasterize_polygons
from dpad_fast.ops.polygons import RULES

POLYGONS = [[(1.5, 2), (30, 4.25), (12, 40)], [[5, 5, 20, 5, 20, 20, 5, 20], [8, 8, 12, 8, 12, 12]]]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("tensors", [False, True])
def test_from_polygons_draws_what_rasterize_polygons_draws(rule: str, tensors: bool) -> None:
    polygons: Any = POLYGONS
    if tensors:
        polygons = [torch.tensor(POLYGONS[0], dtype=torch.float64), [torch.tensor(ring) for ring in POLYGONS[1]]]
    packed = PackedMasks.from_polygons(polygons, 41, 67, rule=rule)
    dense = rasterize_polygons(POLYGONS, 41, 67, rule=rule, out="dense")
    assert torch.equal(packed.to_dense(), dense)
    assert packed.area.tolist() == dense.sum(dim=(1, 2)).tolist()
    assert packed.area[0] > 500
    assert packed.to_rle() == rasterize_polygons(POLYGONS, 41, 67, rule=rule, out="rle")


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((POLYGONS, 8, 8), {"rule": "svg"}, "rule must be one of coco, opencv, center, got 'svg'"),
        ((POLYGONS, 8, 8), {"outline": True}, "outline=True needs rule=\"opencv\", got rule='coco'"),
        ((POLYGONS, 70000, 8), {}, "height and width is too large"),
        (([[(0, 0), (float("nan"), 1), (2, 2)]], 8, 8), {}, r"polygons\[0\], ring 0: vertex 1 has the coordinate nan"),
        ((5, 8, 8), {}, "polygons must be a list of objects, got int"),
    ],
)
def test_from_polygons_refuses_what_rasterize_polygons_refuses(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    for draw in (PackedMasks.from_polygons, rasterize_polygons):
        with pytest.raises(ValueError, match=message):
            draw(*arguments, **options)


def test_iou_takes_what_mask_iou_takes() -> None:
    rng = np.random.default_rng(3)
    a, b, ignore = (rng.random((4, 9, 70)) < share for share in (0.5, 0.5, 0.2))
    a[2] = b[2] = False
    inside = ~ignore
    both, either = (a & b & inside).sum((1, 2)), ((a | b) & inside).sum((1, 2))
    want = [0.75 if n == 0 else k / n for k, n in zip(both.tolist(), either.tolist(), strict=True)]
    packed = PackedMasks.from_dense(a)
    for other in (b, torch.from_numpy(b), PackedMasks.from_dense(b)):
        for skip in (ignore, PackedMasks.from_dense(ignore)):
            assert packed.iou(other, ignore=skip, empty=0.75).tolist() == want
            assert mask_iou(packed, other, ignore=skip, empty=0.75).tolist() == want
    with pytest.raises(ValueError, match="a and b must hold as many masks, got 4 and 3"):
        packed.iou(b[:3])


def test_the_class_is_found_where_it_was() -> None:
    assert masks.PackedMasks is PackedMasks
    packed = PackedMasks.from_dense(np.ones((2, 3, 65), bool))
    back = pickle.loads(pickle.dumps(packed))
    assert (len(back), back.height, back.width, back.area.tolist()) == (2, 3, 65, [195, 195])
