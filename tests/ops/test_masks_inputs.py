"""What is no mask, and no run lengths, is refused by name before it reaches memory."""

import numpy as np
import pytest
import torch

from dpad_fast import coco_mask
from dpad_fast.ops import PackedMasks, mask_iou, mask_iou_matrix, polygon_iou, rasterize_polygons


def pack(array):
    return PackedMasks.from_dense(array)


BAD_RLE = [
    ({"size": [2, 2], "counts": [1, 2]}, r"rles\[1\]: counts add up to 3, expected 2 x 2 = 4"),
    ({"size": [2, 2], "counts": [5, -1]}, r"rles\[1\]: counts\[0\] is 5"),
    ({"size": [2, 2], "counts": [2, -2, 4]}, r"rles\[1\]: counts\[1\] is -2"),
    ({"size": [2, 2], "counts": [2**62, 2**62, 4]}, r"rles\[1\]: counts\[0\]"),
    ({"size": [-2, 2], "counts": [4]}, r"rles\[1\]: size\[0\] must be a whole number from 0 up, got -2"),
    ({"size": [2.5, 2], "counts": [4]}, r"rles\[1\]: size\[0\]"),
    ({"size": [10**30, 2], "counts": [4]}, r"rles\[1\]: size\[0\]"),
    ({"size": [2**40, 2**40], "counts": [4]}, r"rles\[1\]: size is too large"),
    ({"size": [2], "counts": [4]}, r"rles\[1\]: size must be \[height, width\]"),
    ({"size": 4, "counts": [4]}, r"rles\[1\]: size must be"),
    ({"counts": [4]}, r"rles\[1\] must be a dictionary with size and counts"),
    ([4], r"rles\[1\] must be a dictionary"),
    ({"size": [2, 2], "counts": b""}, r"rles\[1\]: counts add up to 0"),
    ({"size": [2, 2], "counts": b"4~"}, r"rles\[1\]: counts has a character outside '0'..'o' at position 1"),
    ({"size": [2, 2], "counts": b"T"}, r"rles\[1\]: counts ends in the middle"),
    ({"size": [2, 2], "counts": b"oooooooooooooooo0"}, r"rles\[1\]: counts has a number of more than 8"),
    ({"size": [2, 2], "counts": b"O4"}, r"rles\[1\]: counts\[0\] is -1"),
    ({"size": [2, 2], "counts": "\u00e9"}, r"rles\[1\]: counts has a character"),
    ({"size": [2, 2], "counts": "\ud800"}, r"rles\[1\]: counts is not valid text"),
    ({"size": [2, 2], "counts": {"a": 1}}, r"rles\[1\]: counts must be bytes"),
    # NumPy reads these as the numbers 52 and 49: a mask of another size where they happen to add up.
    ({"size": [2, 2], "counts": bytearray(b"4")}, r"rles\[1\]: counts must be bytes.*got bytearray"),
    ({"size": [101, 1], "counts": memoryview(b"41")}, r"rles\[1\]: counts must be bytes.*got memoryview"),
    ({"size": [2, 2], "counts": [1.5, 2.5]}, r"rles\[1\]: counts must be .* whole numbers, got list"),
    ({"size": [2, 2], "counts": [float("nan"), 4]}, r"rles\[1\]: counts must be .* whole numbers"),
    ({"size": [float("inf"), 2], "counts": [4]}, r"rles\[1\]: size\[0\] must be a whole number from 0 up, got inf"),
    ({"size": [2, 3], "counts": [6]}, r"rles\[1\] has size 2 x 3, expected 2 x 2"),
]


@pytest.mark.parametrize(("rle", "message"), BAD_RLE)
def test_bad_run_lengths_are_named(rle, message):
    good = {"size": [2, 2], "counts": [4]}
    with pytest.raises(ValueError, match=message):
        PackedMasks.from_rle([good, rle])


def test_whole_floats_are_sizes_and_counts():
    packed = PackedMasks.from_rle([{"size": [2.0, np.float64(2)], "counts": [1.0, 3]}])
    assert packed.to_dense().tolist() == [[[False, True], [True, True]]]


def test_no_run_lengths_have_no_size():
    with pytest.raises(ValueError, match="rles must not be empty"):
        PackedMasks.from_rle([])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: mask_iou(a, a[:2]), r"a and b must have one shape, got \[3, 4, 5\] and \[2, 4, 5\]"),
        (lambda a: mask_iou(a[0], a[0]), r"a must be \[N, H, W\], got \[4, 5\]"),
        (lambda a: mask_iou([1], a), "a must be a tensor or an array of numbers, got list"),
        (lambda a: mask_iou(np.array(["x"]), a), "a must be a tensor or an array of numbers, got an array of"),
        (lambda a: mask_iou(a, a, ignore=a[:2]), r"ignore must be \[H, W\] or \[N, H, W\]"),
        (lambda a: mask_iou(pack(a), pack(a)[:2]), "a and b must hold as many masks, got 3 and 2"),
        (lambda a: mask_iou(pack(a), a[:, :3]), "a and b must have one size, got 4 x 5 and 3 x 5"),
        (lambda a: mask_iou_matrix(a, a, ignore=a[:2]), r"ignore must be one mask or 3 \(one per mask of b\)"),
        (lambda a: mask_iou_matrix(a, a, crowd=[True]), r"crowd must be \[M\] with M = 3, got \[1\]"),
        (lambda a: mask_iou_matrix(a, a, crowd=["x"]), r"crowd must be \[M\] booleans, got \['x'\]"),
        (lambda a: mask_iou(a, a.to_sparse()), "b must be a dense tensor, got torch.sparse_coo"),
        (lambda a: PackedMasks.from_boxes([[0, 0, 1, 1]], 4.0, 5), "height and width must be whole numbers, got 4.0"),
        (lambda a: mask_iou_matrix(a, a, crowd=[True] * 3, ignore=a), "crowd and ignore cannot be given together"),
        (lambda a: PackedMasks(torch.zeros(1, 2, 2, dtype=torch.int64), 64), r"words must be int64 \[N, height, 1\]"),
        (lambda a: PackedMasks(-torch.ones(1, 2, 1, dtype=torch.int64), 63), "words has bits set past column 63"),
        (
            lambda a: PackedMasks(torch.zeros(1, 1, 2000, dtype=torch.int64), 128000),
            "height and width of words is too large.*got 1 x 128000",
        ),
        (
            lambda a: PackedMasks(torch.zeros(1, 2, 0, dtype=torch.int64), -3),
            "height and width of words must not be negative, got 2 x -3",
        ),
        (lambda a: PackedMasks.from_dense([]), "masks is empty"),
        (
            lambda a: PackedMasks.from_dense(iter([np.ones((1, 200000), bool)])),
            r"masks\[0\] is too large: at most 65535 a side and 2\^28 pixels, got 1 x 200000",
        ),
        (lambda a: PackedMasks.from_dense([a[0], a[0, :2]]), r"masks\[1\] must be \[4, 5\] as masks\[0\]"),
        (lambda a: PackedMasks.from_boxes([[1, 2, 3]], 4, 5), r"boxes must be \[N, 4\], got \[1, 3\]"),
        (
            lambda a: PackedMasks.from_boxes([[0, 0, 1, 1], [0, 0, 1, float("nan")]], 4, 5),
            r"boxes\[1\] must lie within -1e7 to 1e7, got \(0.0, 0.0, 1.0, nan\)",
        ),
        (lambda a: PackedMasks.from_boxes([[0, 0, 1.1e7, 1]], 4, 5), r"boxes\[0\] must lie within -1e7 to 1e7"),
        (lambda a: PackedMasks.from_boxes([[0, 0, 1, 1]], -4, 5), "height and width must not be negative, got -4 x 5"),
        (lambda a: PackedMasks.from_boxes([[0, 0, 1, 1]], 60000, 60000), "height and width is too large"),
        (lambda a: PackedMasks.from_boxes([[0, 0, 1, 1]], 10**30, 5), "height and width is too large: .*got 1000"),
        (lambda a: PackedMasks.from_boxes([[0, 0, 1, 1]], 5, -(10**30)), "height and width is too large: .*got 5 x -1"),
        (lambda a: rasterize_polygons([[0, 0, 5, 0, 5, 5]], 10**30, 5), "height and width is too large: .*got 1000"),
        (lambda a: coco_mask.frPyObjects([[0, 0, 5, 0, 5, 5]], 10**30, 5), "h and w is too large: .*got 1000"),
        (lambda a: coco_mask.frPyObjects([[0, 0, 1, 1]], 5, 10**30), "h and w is too large: .*got 5 x 1000"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(3, 4, 5, dtype=torch.bool))


def test_masks_too_wide_do_not_reach_the_stack_of_a_compiled_graph():
    wide, ring = torch.ones(1, 1, 200000, dtype=torch.bool), torch.tensor([[0.0, 0.0], [5.0, 0.0], [5.0, 5.0]])
    for call, size in (
        (lambda: mask_iou_matrix(wide, wide), "1 x 200000"),
        (lambda: pack(wide).area, "1 x 200000"),
        (lambda: rasterize_polygons([ring], 9, 200000).area, "9 x 200000"),
        (lambda: rasterize_polygons([ring], 200000, 9, out="dense"), "200000 x 9"),
    ):
        with pytest.raises(ValueError, match=f"is too large.*got {size}"):
            torch.compile(call, fullgraph=True, backend="eager")()


def test_masks_on_two_devices_are_refused():
    here = torch.ones(3, 4, 5, dtype=torch.bool)
    there = here.to("meta")
    for call in (
        lambda: mask_iou(here, there),
        lambda: mask_iou(here, here, ignore=there),
        lambda: mask_iou(pack(here), there),
        lambda: mask_iou(pack(here), pack(here), ignore=there),
        lambda: mask_iou_matrix(here, there),
        lambda: mask_iou_matrix(here, pack(there)),
        lambda: mask_iou_matrix(here, here, ignore=there[0]),
        lambda: pack(here).intersection(pack(there)),
        lambda: polygon_iou([[(0, 0), (3, 0), (3, 3)]] * 3, here, ignore=there),
    ):
        with pytest.raises(ValueError, match="must be on one device, got cpu and meta"):
            call()


def test_wrong_boxes_do_not_reach_memory():
    packed = pack(np.ones((1, 4, 5), bool))
    packed.box = torch.tensor([[0, 0, 5000, 4000]])
    with pytest.raises(ValueError, match=r"box\[0\] does not lie in the mask"):
        packed.intersection(packed)


@pytest.mark.parametrize("empty", [None, "x", "0.5", [0.5]])
def test_the_value_of_an_empty_union_is_a_number(empty):
    masks = torch.zeros((1, 4, 4), dtype=torch.bool)
    ring = [[[9.0, 9.0, 12.0, 9.0, 12.0, 12.0]]]
    packed = PackedMasks.from_dense(masks)
    calls = (
        lambda value: mask_iou(masks, masks, empty=value),
        lambda value: mask_iou(packed, packed, empty=value),
        lambda value: mask_iou_matrix(masks, masks, empty=value)[0],
        lambda value: mask_iou_matrix(packed, packed, empty=value)[0],
        lambda value: polygon_iou(ring, masks, empty=value),
    )
    for call in calls:
        with pytest.raises(ValueError, match=r"^empty must be a number, got "):
            call(empty)
        for value in (0.25, 1, np.float32(0.5)):
            assert call(value).tolist() == [float(value)]
