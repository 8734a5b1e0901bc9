"""`dpad_fast.coco_mask` in pycocotools.mask's place: the same values, types, dtypes and memory orders.

Besides random masks these are the cases that the suites of pycocotools and of compatible libraries look at: string
forms that are known, empty masks, runs over column ends, boxes, crowds, uncompressed run lengths, single and listed
arguments.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpad_fast import coco_mask as ours
from dpad_fast.reference import rle as reference
from dpad_fast.testing import cases

theirs = pytest.importorskip("pycocotools.mask")

# pycocotools 2.0.11 raises this warning with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@st.composite
def stacks(draw, min_size=1):
    """uint8 masks [H, W, N] in Fortran order."""
    side = st.one_of(st.integers(1, 80), st.sampled_from([129, 200, 330]))
    height, width = draw(side), draw(side)
    n = draw(st.integers(min_size, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    out = np.zeros((height, width, n), np.uint8, order="F")
    for i in range(n):
        kind = draw(st.sampled_from(["noise", "blob", "full", "empty", "last column"]))
        if kind == "noise":
            out[:, :, i] = rng.random((height, width)) < rng.random()
        elif kind == "blob":
            y, x = sorted(rng.integers(0, height + 1, 2)), sorted(rng.integers(0, width + 1, 2))
            out[y[0] : y[1], x[0] : x[1], i] = 1
        elif kind == "full":
            out[:, :, i] = 1
        elif kind == "last column":
            out[:, -1, i] = 1
    return out


def same(a, b):
    """Equal in value, type, dtype, shape and memory order."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.flags.f_contiguous == b.flags.f_contiguous
        assert np.array_equal(a, b)
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert a == b
        if isinstance(a, dict):
            assert type(a["counts"]) is type(b["counts"]) is bytes
            assert type(a["size"]) is type(b["size"]) is list


@given(stacks())
@settings(max_examples=cases(300), deadline=None)
def test_encode_decode_area_box(masks):
    same(ours.encode(masks), theirs.encode(masks))
    same(ours.encode(masks[:, :, 0]), theirs.encode(masks[:, :, 0]))
    rles = theirs.encode(masks)
    for function in ("decode", "area", "toBbox"):
        same(getattr(ours, function)(rles), getattr(theirs, function)(rles))
        same(getattr(ours, function)(rles[0]), getattr(theirs, function)(rles[0]))
    same(ours.decode([{**r, "counts": r["counts"].decode()} for r in rles]), theirs.decode(rles))
    c_order = np.ascontiguousarray(masks[:, :, 0])
    same(ours.encode(c_order), rles[0])
    same(ours.encode(np.ascontiguousarray(masks).astype(bool)), rles)


@given(stacks(), st.booleans())
@settings(max_examples=cases(300), deadline=None)
def test_merge(masks, intersect):
    rles = theirs.encode(masks)
    same(ours.merge(rles, intersect), theirs.merge(rles, intersect))
    same(ours.merge(rles, intersect=int(intersect)), theirs.merge(rles, intersect=int(intersect)))
    same(ours.merge(rles), theirs.merge(rles))


@given(stacks(min_size=2), st.data())
@settings(max_examples=cases(300), deadline=None)
def test_iou_of_run_lengths(masks, data):
    rles = theirs.encode(masks)
    cut = data.draw(st.integers(1, len(rles) - 1))
    dt, gt = rles[:cut], rles[cut:]
    crowd = data.draw(st.lists(st.integers(0, 1), min_size=len(gt), max_size=len(gt)))
    same(ours.iou(dt, gt, crowd), theirs.iou(dt, gt, crowd))
    same(ours.iou(rles, rles, [False] * len(rles)), theirs.iou(rles, rles, [False] * len(rles)))


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([0.001, 0.5, 5]), st.data())
@settings(max_examples=cases(300), deadline=None)
def test_iou_of_boxes(m, n, grid, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dt, gt = ((np.round(rng.random((k, 4)) * 60 / grid) * grid - (9, 9, 0, 0)).tolist() for k in (m, n))
    crowd = (rng.random(n) < 0.5).tolist()
    same(ours.iou(dt, gt, crowd), theirs.iou(dt, gt, crowd))
    same(ours.iou(np.array(dt), np.array(gt), crowd), theirs.iou(np.array(dt), np.array(gt), crowd))
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    same(ours.frPyObjects(np.array(dt), height, width), theirs.frPyObjects(np.array(dt), height, width))
    assert ours.frPyObjects(dt, height, width) == theirs.frPyObjects(np.array(dt), height, width)
    assert ours.frPyObjects(dt[0], height, width) == theirs.frPyObjects(np.array(dt), height, width)[0]


@given(st.data())
@settings(max_examples=cases(300), deadline=None)
def test_polygons(data):
    height, width = data.draw(st.integers(1, 90)), data.draw(st.integers(1, 90))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    grid = data.draw(st.sampled_from([0.0001, 0.5, 1]))
    rings = [
        (np.round((rng.random(2 * rng.integers(3, 10)) * 150 - 30) / grid) * grid).tolist()
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    same(ours.frPyObjects(rings, height, width), theirs.frPyObjects(rings, height, width))
    assert ours.frPyObjects(rings[0], height, width) == theirs.frPyObjects(rings, height, width)[0]
    odd = [[*ring, 5] for ring in rings]
    same(ours.frPyObjects(odd, height, width), theirs.frPyObjects(odd, height, width))


@given(stacks())
@settings(max_examples=cases(100), deadline=None)
def test_uncompressed_run_lengths(masks):
    height, width = masks.shape[:2]
    plain = [
        {"size": [height, width], "counts": reference.counts_from_mask(masks[:, :, i].astype(bool))}
        for i in range(masks.shape[2])
    ]
    same(ours.frPyObjects(plain, height, width), theirs.frPyObjects(plain, height, width))
    same(ours.frPyObjects(plain[0], height, width), theirs.frPyObjects(plain[0], height, width))
    same(ours.frPyObjects(plain, height, width), theirs.encode(masks))


def test_known_strings():
    """Hand-made, so that both libraries being wrong together is excluded."""
    mask = np.asfortranarray(np.array([[0, 1, 1], [1, 1, 0]], np.uint8))  # down the columns: 0 1 1 1 1 0
    assert ours.encode(mask) == {"size": [2, 3], "counts": b"141"}
    assert ours.encode(np.ones((2, 3), np.uint8, order="F")) == {"size": [2, 3], "counts": b"06"}
    assert ours.encode(np.zeros((2, 3), np.uint8, order="F")) == {"size": [2, 3], "counts": b"6"}
    # 20 takes two characters: the low five bits 10100 with "more" set (20 + 32 + 48 = 100, 'd'), then 0.
    assert ours.encode(np.zeros((4, 5), np.uint8, order="F"))["counts"] == b"d0"
    assert ours.decode({"size": [2, 3], "counts": "141"}).tolist() == mask.tolist()
    # From the fourth number on, differences to the one two before: 1 1 1 1 1 is 1 1 1 0 0.
    stripes = np.asfortranarray(np.array([[0], [1], [0], [1], [0]], np.uint8))
    assert ours.encode(stripes)["counts"] == b"11100"


def test_boxes_of_runs_over_column_ends():
    mask = np.zeros((4, 5), np.uint8, order="F")
    mask[2:, 1] = mask[:1, 2] = 1
    assert ours.toBbox(ours.encode(mask)).tolist() == [1, 0, 2, 4]
    mask[:] = 0
    mask[1:3, 3] = 1
    assert ours.toBbox(ours.encode(mask)).tolist() == [3, 1, 1, 2]
    assert ours.toBbox({"size": [3, 3], "counts": b"504"}).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("height", [63, 64, 65, 448, 449, 511, 512, 513, 577, 1100])
def test_iou_of_boxes_as_tall_as_a_register_and_taller(height):
    rng = np.random.default_rng(height)
    masks = np.zeros((height, 9, 12), np.uint8, order="F")
    for i in range(12):
        y = sorted(rng.integers(0, height + 1, 2))
        masks[y[0] : y[1], i % 4 : 9 - i % 3, i] = 1
    masks[:, ::2, 10] = 1  # columns without a pixel in between
    masks[:, :, 11] = rng.random((height, 9)) < 0.5  # many runs to a column
    rles = theirs.encode(masks)
    crowd = [i % 2 for i in range(12)]
    same(ours.iou(rles, rles, crowd), theirs.iou(rles, rles, crowd))


def test_crowd_union_is_the_detection():
    big, small = np.zeros((2, 10, 10), np.uint8)
    big[:, :] = 1
    small[:2, :5] = 1
    dt, gt = [ours.encode(np.asfortranarray(small))], [ours.encode(np.asfortranarray(big))]
    assert ours.iou(dt, gt, [0]).tolist() == [[0.1]]
    assert ours.iou(dt, gt, [1]).tolist() == [[1.0]]


def test_empty_arguments():
    rle = ours.encode(np.asfortranarray(np.eye(3, dtype=np.uint8)))
    for a, b, crowd in (([], [rle], [0]), ([rle], [], []), ([], [], [])):
        same(ours.iou(a, b, crowd), theirs.iou(a, b, crowd))
    for function in ("area", "toBbox", "merge"):
        same(getattr(ours, function)([]), getattr(theirs, function)([]))
    for shape in ((0, 4), (4, 0)):
        same(ours.encode(np.zeros(shape, np.uint8, order="F")), theirs.encode(np.zeros(shape, np.uint8, order="F")))
    same(ours.encode(np.zeros((3, 4, 0), np.uint8, order="F")), [])
    same(ours.decode(ours.encode(np.zeros((0, 4), np.uint8))), np.zeros((0, 4), np.uint8, order="F"))


def test_masks_of_different_sizes():
    three, two = (ours.encode(np.ones((n, n), np.uint8, order="F")) for n in (3, 2))
    same(ours.iou([three], [two], [0]), theirs.iou([three], [two], [0]))
    same(ours.merge([three, two]), theirs.merge([three, two]))
    with pytest.raises(ValueError, match=r"rleObjs\[1\] has size 2 x 2, expected 3 x 3"):
        ours.decode([three, two])


def test_sizes_from_json_may_be_floats():
    same(ours.frPyObjects([FLAT], 8.0, 9.0), theirs.frPyObjects([FLAT], 8.0, 9.0))
    boxes = np.array([[1.0, 2.0, 3.0, 4.0]])
    same(ours.frPyObjects(boxes, 8.0, np.float64(9)), theirs.frPyObjects(boxes, 8.0, np.float64(9)))


def test_extreme_boxes_are_as_in_c_and_warn_as_little():
    numbers = [0.0, -0.0, 1.0, -2.0, 1e200, 1e-200, 5e-324, np.inf, -np.inf, np.nan]
    boxes = np.random.default_rng(0).choice(numbers, (300, 4))
    for crowd in (np.zeros(300), np.ones(300)):
        assert np.array_equal(ours.iou(boxes, boxes, crowd), theirs.iou(boxes, boxes, crowd), equal_nan=True)


RLE = {"size": [2, 2], "counts": b"4"}
FLAT = [0, 0, 5, 0, 5, 5]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ours.decode([]), "rleObjs must not be empty"),
        (lambda: ours.decode({"size": [2, 2], "counts": b"5"}), r"rleObjs\[0\]: counts"),
        (
            lambda: ours.decode([RLE, {"size": [2, 2], "counts": b"3"}]),
            r"rleObjs\[1\]: counts add up to 3, expected 2 x 2",
        ),
        (lambda: ours.toBbox({"size": [-1, 2], "counts": b"4"}), r"rleObjs\[0\]: size\[0\]"),
        (lambda: ours.merge([RLE, {"counts": b"4"}]), r"rleObjs\[1\] must be a dictionary"),
        (lambda: ours.merge([RLE, {"size": [2, 2], "counts": b"9"}]), r"rleObjs\[1\]: counts"),
        (lambda: ours.iou([RLE], [{"size": [2, 2], "counts": b"\xff"}], [0]), r"gt\[0\]: counts has a character"),
        (lambda: ours.iou([RLE], [RLE], [0, 1]), "pyiscrowd must have the length of gt, 1, got"),
        (lambda: ours.iou([RLE], [[0, 0, 1, 1]], [0]), "dt and gt must be of one kind"),
        (lambda: ours.iou([RLE, [0, 0, 1, 1]], [RLE], [0]), "dt must be"),
        (lambda: ours.iou(5, [RLE], [0]), "dt must be a list of run lengths or boxes, got int"),
        (lambda: ours.iou([[0, 0, 1]], [[0, 0, 1]], [0]), r"dt must be boxes \[N, 4\]"),
        (lambda: ours.encode(np.zeros((2, 2))), "bimask must be uint8 or bool"),
        (lambda: ours.encode(np.zeros((2, 2, 2, 2), np.uint8)), "bimask must be uint8 or bool"),
        (lambda: ours.frPyObjects([[1, 2]], 8, 8), r"pyobj\[0\] must be a box of 4 numbers or a polygon of more"),
        (lambda: ours.frPyObjects([FLAT, [1, float("nan")]], 8, 8), r"polygons\[1\], ring 0: vertex 0"),
        (lambda: ours.frPyObjects([["a", "b", "c", "d", "e", "f"]], 8, 8), "polygons.0., ring 0 does not hold numbers"),
        (lambda: ours.frPyObjects([[1, 2, 3, 4, 5, float("nan")]], 8, 8), r"polygons\[0\], ring 0: vertex 2"),
        (lambda: ours.frPyObjects([[1, 2, 3, 4, 5, 1e9]], 8, 8), r"polygons\[0\], ring 0: vertex 2"),
        (lambda: ours.frPyObjects([[0, 0, 5, 0, 5, 5]], -8, 8), "h and w must not be negative"),
        (lambda: ours.frPyObjects([[0, 0, 5, 0, 5, 5]], 10**9, 10**9), "h and w is too large"),
        (lambda: ours.frPyObjects([[0, 0, float("inf"), 1]], 8, 8), r"polygons\[0\], ring 0: vertex"),
        (lambda: ours.frPyObjects("polygon", 8, 8), "pyobj must be a list"),
        # Of 5 pairs or rings the last was dropped.
        (
            lambda: ours.frPyObjects([[(0, 0), (5, 0), (5, 5), (2, 5), (0, 3)]], 8, 8),
            r"pyobj\[0\] must be a flat polygon",
        ),
        (lambda: ours.frPyObjects([np.ones((5, 2))], 8, 8), r"pyobj\[0\] must be a flat polygon"),
        (lambda: ours.frPyObjects([[FLAT] * 5], 8, 8), r"pyobj\[0\] must be a flat polygon"),
        (lambda: ours.frPyObjects([[FLAT, FLAT[:2]]], 8, 8), r"pyobj\[0\] must be a flat polygon"),
        (lambda: ours.frPyObjects([FLAT, RLE], 8, 8), r"pyobj\[1\] must be a flat polygon.*got {'size'"),
        (lambda: ours.frPyObjects([FLAT, None], 8, 8), r"pyobj\[1\] must be a flat polygon.*got None"),
        (lambda: ours.frPyObjects([], 8, 8), "pyobj must be a list"),
        (lambda: ours.frPyObjects({"size": [2, 2], "counts": [1, -2]}, 2, 2), r"pyobj\[0\]: counts\[1\] is -2"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@given(st.binary(max_size=30), st.integers(0, 12), st.integers(0, 12))
@settings(max_examples=cases(500), deadline=None)
def test_any_bytes_are_read_or_refused(counts, height, width):
    rle = {"size": [height, width], "counts": counts}
    try:
        expected = reference.mask_from_counts(reference.counts_from_string(counts), height, width)
    except ValueError:
        with pytest.raises(ValueError, match=r"rleObjs\[0\]"):
            ours.decode(rle)
        return
    assert np.array_equal(ours.decode(rle), expected)
    assert ours.area(rle) == expected.sum()
