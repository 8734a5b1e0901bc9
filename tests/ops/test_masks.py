"""Masks as bits against NumPy and pycocotools, exactly."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpad_fast._native import extension
from dpad_fast.ops import PackedMasks, mask_iou, mask_iou_matrix
from dpad_fast.ops import _mask_ops as ops
from dpad_fast.reference import masks as reference
from dpad_fast.reference import rle as reference_rle
from dpad_fast.testing import cases

coco = pytest.importorskip("pycocotools.mask")

SIDES = st.one_of(st.integers(1, 9), st.sampled_from([1, 31, 63, 64, 65, 127, 128, 129, 200, 700]))


@st.composite
def masks(draw, n=None, size=None):
    """Blobs, noise, full and empty masks: [n, H, W]."""
    height, width = size or (draw(SIDES), draw(SIDES))
    count = draw(st.integers(0, 5)) if n is None else n
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    out = np.zeros((count, height, width), bool)
    for mask in out:
        kind = draw(st.sampled_from(["noise", "blob", "full", "empty", "dots"]))
        if kind == "noise":
            mask[:] = rng.random((height, width)) < rng.random()
        elif kind == "blob":
            y, x = sorted(rng.integers(0, height + 1, 2)), sorted(rng.integers(0, width + 1, 2))
            mask[y[0] : y[1], x[0] : x[1]] = True
        elif kind == "full":
            mask[:] = True
        elif kind == "dots":
            mask[rng.integers(0, height, 3), rng.integers(0, width, 3)] = True
    return out


@st.composite
def pairs(draw, same_count=True):
    a = draw(masks())
    b = draw(masks(n=len(a) if same_count else None, size=a.shape[1:]))
    which = draw(st.sampled_from(["none", "shared", "each"]))
    ignore = None
    if which != "none":
        ignore = draw(masks(n=1 if which == "shared" else len(b), size=a.shape[1:]))
        ignore = ignore[0] if which == "shared" else ignore
    return a, b, ignore


def pack(array):
    return PackedMasks.from_dense(array)


@given(pairs(), st.sampled_from([0.0, 1.0]))
@settings(max_examples=cases(300), deadline=None)
def test_paired_iou_is_numpys(case, empty):
    a, b, ignore = case
    expected = reference.mask_iou(a, b, ignore, empty)
    for left, right in ((a, b), (pack(a), b), (pack(a), pack(b))):
        got = mask_iou(left, right, ignore=ignore, empty=empty)
        assert got.dtype == torch.float64
        assert np.array_equal(got.numpy(), expected)


@given(pairs(same_count=False), st.sampled_from([0.0, 1.0]))
@settings(max_examples=cases(300), deadline=None)
def test_all_pairs_iou_is_numpys(case, empty):
    a, b, ignore = case
    expected = reference.mask_iou_matrix(a, b, ignore, empty)
    assert np.array_equal(mask_iou_matrix(a, b, ignore=ignore, empty=empty).numpy(), expected)
    assert np.array_equal(mask_iou_matrix(pack(a), pack(b), ignore=ignore, empty=empty).numpy(), expected)


@given(masks())
@settings(max_examples=cases(300), deadline=None)
def test_packing_and_back(dense):
    packed = pack(dense)
    assert np.array_equal(packed.words.numpy(), reference.pack(dense))
    assert np.array_equal(packed.area.numpy(), reference.area(dense))
    assert np.array_equal(packed.box.numpy(), reference.boxes(dense))
    assert np.array_equal(packed.to_dense().numpy(), dense)
    again = PackedMasks(packed.words, packed.width)
    assert torch.equal(again.area, packed.area)
    assert torch.equal(again.box, packed.box)
    if len(dense):
        one_by_one = PackedMasks.from_dense(iter(dense))
        assert torch.equal(one_by_one.words, packed.words)
        assert torch.equal(one_by_one.box, packed.box)


@given(masks())
@settings(max_examples=cases(300), deadline=None)
def test_run_lengths_both_ways(dense):
    encoded = pack(dense).to_rle()
    assert encoded == [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in dense]
    if not len(dense):
        return
    packed = PackedMasks.from_rle(encoded)
    assert np.array_equal(packed.words.numpy(), reference.pack(dense))
    assert np.array_equal(packed.area.numpy(), reference.area(dense))
    assert np.array_equal(packed.box.numpy(), reference.boxes(dense))
    plain = [{"size": r["size"], "counts": reference_rle.counts_from_string(r["counts"])} for r in encoded]
    assert torch.equal(PackedMasks.from_rle(plain).words, packed.words)
    text = [{"size": r["size"], "counts": r["counts"].decode()} for r in encoded]
    assert torch.equal(PackedMasks.from_rle(text).words, packed.words)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 12), st.data())
@settings(max_examples=cases(300), deadline=None)
def test_run_lengths_with_zero_runs_are_read(counts, height, data):
    width = -(-max(sum(counts), 1) // height)
    counts[data.draw(st.integers(0, len(counts) - 1))] += height * width - sum(counts)
    dense = reference_rle.mask_from_counts(counts, height, width)
    rle = {"size": [height, width], "counts": reference_rle.string_from_counts(counts)}
    assert reference_rle.counts_from_string(rle["counts"]) == counts
    packed = PackedMasks.from_rle([rle])
    assert np.array_equal(packed.to_dense().numpy()[0], dense)
    assert np.array_equal(packed.box.numpy(), reference.boxes(dense[None]))


@given(pairs(same_count=False), st.data())
@settings(max_examples=cases(200), deadline=None)
def test_crowd_is_cocos(case, data):
    a, b, _ = case
    if not len(a) or not len(b):
        return
    crowd = data.draw(st.lists(st.booleans(), min_size=len(b), max_size=len(b)))
    rle_a, rle_b = pack(a).to_rle(), pack(b).to_rle()
    got = mask_iou_matrix(PackedMasks.from_rle(rle_a), PackedMasks.from_rle(rle_b), crowd=crowd)
    assert np.array_equal(got.numpy(), coco.iou(rle_a, rle_b, crowd))


def test_pair_operations_of_packed_masks():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 7, 50, 70)) < 0.5
    left, right = pack(a), pack(b)
    intersection, union = reference.counts(a, b)
    assert left.intersection(right).tolist() == intersection.tolist()
    assert left.union(right).tolist() == union.tolist()
    assert left.iou(right).tolist() == (intersection / union).tolist()
    assert torch.equal(left[2].words, left.words[2:3])
    assert torch.equal(left[1:3].to_dense(), left.to_dense()[1:3])
    assert torch.equal(left[[4, 0]].area, left.area[[4, 0]])
    assert torch.equal(left[torch.tensor([True] + 6 * [False])].box, left.box[:1])
    assert repr(left) == "PackedMasks(7 of 50 x 70)"
    with pytest.raises(IndexError, match="7 masks, got 7"):
        left[7]


def test_whatever_chooses_masks_chooses_as_in_numpy():
    dense = np.random.default_rng(1).random((4, 5, 70)) < 0.5
    packed = pack(dense)
    frozen = np.array([3, 0])
    frozen.flags.writeable = False
    flags = [True, False, True, False]
    for index in (
        2, -1, slice(1, 3), [3, 0], [], (1, 2), range(3), np.int64(1), np.uint16(1), np.array([1, 1]), torch.tensor(1),
        np.array([2, 1])[::-1], frozen, torch.tensor([0, 3], dtype=torch.int32), flags, np.array(flags),
        torch.tensor(flags),
    ):  # fmt: skip
        want = dense[list(index) if isinstance(index, tuple | range | list) and len(index) else index]
        want = want.reshape(-1, 5, 70) if not isinstance(index, list) or index else dense[:0]
        got = packed[index]
        assert torch.equal(got.words, pack(want).words), index
        assert got.area.tolist() == pack(want).area.tolist()
        assert got.box.tolist() == pack(want).box.tolist()
    for index, message in (
        (4, "index must be within 4 masks, got 4"),
        (True, r"index must be a number, a slice, \[K\] numbers or \[N\] booleans, got torch.bool \[\]"),
        (1.0, r"booleans, got torch.float32 \[\]"),
        ([0.7], r"booleans, got torch.float32 \[1\]"),
        ([[0, 1], [1, 2]], r"booleans, got torch.int64 \[2, 2\]"),
        (None, "booleans, got None"),
        ("1", "booleans, got '1'"),
        ([True, False], r"shape of the mask \[2\]"),
    ):
        with pytest.raises(IndexError, match=message):
            packed[index]


def test_boxes_fill_the_pixels_whose_centres_they_hold():
    boxes = [(1, 2, 4, 5), (0.5, 0.5, 1.5, 1.5), (0.51, 0, 1.5, 1), (-5, -5, 100, 100), (3, 3, 3, 9), (8, 8, 2, 2)]
    dense = PackedMasks.from_boxes(boxes, 6, 7).to_dense().numpy()
    ys, xs = np.mgrid[0:6, 0:7] + 0.5
    for mask, (x1, y1, x2, y2) in zip(dense, boxes, strict=True):
        left, right, top, bottom = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
        assert np.array_equal(mask, (left <= xs) & (xs < right) & (top <= ys) & (ys < bottom))
    assert len(PackedMasks.from_boxes([], 6, 7)) == 0


@pytest.mark.parametrize("level", ["scalar", "avx2", "avx512"])
def test_each_instruction_set_agrees(level):
    """The level is read once, when the extension is first used, so it takes a process of its own."""
    script = (
        "import numpy as np, torch\n"
        "from dpad_fast import coco_mask\n"
        "from dpad_fast._native import extension\n"
        "from dpad_fast.ops import _mask_ops as ops\n"
        "from dpad_fast.ops import PackedMasks, mask_iou, mask_iou_matrix, polygon_iou, rasterize_polygons\n"
        "from dpad_fast.reference import masks as reference, polygons, rle\n"
        "rng = np.random.default_rng(1)\n"
        "for height, width in ((1, 1), (3, 63), (5, 64), (70, 65), (90, 200), (40, 700), (9, 1100), (300, 20)):\n"
        "    a, b = rng.random((2, 3, height, width)) < 0.5\n"
        "    on, any_bytes = a.copy(), torch.from_numpy(a * rng.integers(1, 256, a.shape, np.uint8)).view(torch.bool)\n"
        "    ignore = rng.random(b.shape) < 0.2\n"
        "    assert np.array_equal(mask_iou(a, b, ignore=ignore).numpy(), reference.mask_iou(on, b, ignore))\n"
        "    assert np.array_equal(mask_iou_matrix(a, b, ignore=ignore), reference.mask_iou_matrix(on, b, ignore))\n"
        "    packed = PackedMasks.from_dense(a)\n"
        "    assert torch.equal(ops.pack(any_bytes, 'a')[0], packed.words)\n"
        "    counts = ops.dense_counts(any_bytes, torch.from_numpy(b), torch.from_numpy(ignore))\n"
        "    assert np.array_equal(ops.ratio(*counts, 0.0), reference.mask_iou(on, b, ignore))\n"
        "    got = ops.ratio(*ops.dense_matrix_counts(any_bytes, torch.from_numpy(b)), 0.0)\n"
        "    assert np.array_equal(got, reference.mask_iou_matrix(on, b))\n"
        "    assert np.array_equal(packed.to_dense().numpy(), on)\n"
        "    assert np.array_equal(mask_iou_matrix(a, b), reference.mask_iou_matrix(on, b))\n"
        "    assert np.array_equal(packed.box, reference.boxes(on))\n"
        "    assert np.array_equal(packed.area, reference.area(on))\n"
        "    on[1] = False\n"
        "    on[1, height // 3 :, width // 4 : width // 2] = True\n"
        "    counts = [rle.string_from_counts(rle.counts_from_mask(mask)) for mask in on]\n"
        "    rles = [{'size': [height, width], 'counts': one} for one in counts]\n"
        "    assert PackedMasks.from_dense(on).to_rle() == rles\n"
        "    assert coco_mask.encode(np.asfortranarray(on.transpose(1, 2, 0))) == rles\n"
        "    assert np.array_equal(PackedMasks.from_rle(rles).to_dense(), on)\n"
        "    assert np.array_equal(coco_mask.iou(rles, rles, [0] * 3), reference.mask_iou_matrix(on, on))\n"
        "    ring = rng.random((9, 2)) * (width, height)\n"
        "    for rule in ('coco', 'opencv', 'center'):\n"
        "        expected = polygons.rasterize([ring], height, width, rule)[None]\n"
        "        assert np.array_equal(rasterize_polygons([ring], height, width, rule=rule, out='dense'), expected)\n"
        "        got = polygon_iou([ring], b[:1], rule=rule, ignore=ignore[:1])\n"
        "        assert np.array_equal(got, reference.mask_iou(expected, b[:1], ignore[:1]))\n"
        "print(extension.C.simd_report()['masks'])\n"
    )
    known = ["scalar", "avx2", "avx512"]
    if known.index(level) > known.index(extension.C.simd_report()["masks"]):
        pytest.skip(f"this processor, or DPAD_FAST_SIMD, has no {level} for masks")
    run = subprocess.run(
        [sys.executable, "-c", script], env={"DPAD_FAST_SIMD": level}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == level


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int64, torch.float16, torch.float32])
def test_dtypes_and_layouts(dtype):
    rng = np.random.default_rng(2)
    a, b = (torch.from_numpy(rng.random((6, 40, 33)) < 0.5) for _ in range(2))
    expected = reference.mask_iou(a.numpy(), b.numpy())
    assert mask_iou(a.to(dtype), b.to(dtype)).tolist() == expected.tolist()
    turned = a.to(dtype).permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not turned.is_contiguous()
    assert mask_iou(turned, b.to(dtype)).tolist() == expected.tolist()
    assert PackedMasks.from_dense(turned).area.tolist() == a.sum((1, 2)).tolist()
    frozen = a.numpy()[:, ::-1]
    frozen.flags.writeable = False
    assert mask_iou(frozen, b.numpy()[:, ::-1]).tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [">i4", ">f8", ">u2", np.longdouble, np.uint16, np.uint64, "record", "packed record"])
def test_arrays_that_torch_does_not_take(dtype):
    dense = np.random.default_rng(2).random((3, 5, 70)) < 0.5
    if dtype in ("record", "packed record"):
        kind = np.dtype([("mask", "i4"), ("other", "u1")], align=dtype == "record")
        records = np.zeros(dense.shape, kind)
        records["mask"] = dense
        array = records["mask"]
    else:
        array = dense.astype(dtype)
    assert torch.equal(pack(array).words, pack(dense).words)
    assert torch.equal(PackedMasks.from_dense(list(array)).words, pack(dense).words)
    assert mask_iou(array, dense).tolist() == [1.0] * 3


def test_registration():
    rng = np.random.default_rng(3)
    a, b = (torch.from_numpy(rng.random((4, 20, 70)) < 0.5) for _ in range(2))
    left, right = pack(a), pack(b)
    for args in ((a, b, None), (a, b, a), (a, b, a[0]), (a.transpose(1, 2), b.transpose(1, 2), None)):
        torch.library.opcheck(ops.dense_counts, args)
    torch.library.opcheck(ops.dense_matrix_counts, (a, b[:3]))
    torch.library.opcheck(ops.dense_matrix_counts, (a.transpose(1, 2), b.transpose(1, 2)))
    torch.library.opcheck(ops.pack, (a, "a"))
    torch.library.opcheck(ops.pack, (a[0].T, "a"))
    torch.library.opcheck(ops.unpack, (left.words, 70))
    torch.library.opcheck(ops.measure, (left.words, 70))
    torch.library.opcheck(ops.ratio, (*ops.dense_counts(a, b, None), 0.5))
    torch.library.opcheck(ops.ratio, (left.area.expand(3, 4).T, right.area.expand(3, 4).T, 0.0))
    for skip in ([], right[:1].parts, right.parts):
        for matrix in (False, True):
            torch.library.opcheck(ops.packed_counts, (left.parts, right.parts, skip, 70, matrix))


def test_compiles_into_one_graph():
    rng = np.random.default_rng(4)
    a, b = (torch.from_numpy(rng.random((4, 20, 70)) < 0.5) for _ in range(2))

    def both(x, y):
        packed = PackedMasks.from_dense(x)
        return mask_iou(x, y, ignore=y[0]), mask_iou_matrix(packed, y), packed.to_dense()

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    for got, expected in zip(compiled(a, b), both(a, b), strict=True):
        assert torch.equal(got, expected)


def test_ten_thousand_masks_stay_small():
    rle = coco.encode(np.asfortranarray(np.eye(480, 640, dtype=np.uint8)))
    packed = PackedMasks.from_rle([rle] * 10_000)
    assert packed.words.numel() * 8 < 400e6
    assert packed.area.unique().tolist() == [480]
    assert mask_iou_matrix(packed, packed[:3]).unique().tolist() == [1.0]
