"""`dpad_fast.coco_mask` on what the public suites of pycocotools and of compatible libraries test.

The cases correspond to those of ppwwyyxx/cocoapi (`tests/test_cases.py`, `test_numpy2_compatibility.py`),
faster_coco_eval (`test_mask_api.py`, `test_cpp_safety_regressions.py`), hotcoco (`test_mask_parity.py`,
`test_dropin_compat.py`, `test_dropin_gaps.py`, `test_review_fixes.py`), rlemasklib (`test_functional.py`,
`test_edge_cases.py`, `test_regressions.py`), detectron2 (`tests/data/test_coco.py`), datumaro
(`tests/unit/test_masks.py`), supervision (`test_converters.py`, `test_compact_mask_coco.py`), and to issues of
pycocotools on memory orders and runs of no pixels. The numbers are our own. `test_drawing.py` has the boxes and
polygons, `test_pipelines.py` the libraries that call `pycocotools.mask`.
"""

import json

import numpy as np
import pytest

from dpad_fast import coco_mask as ours

theirs = pytest.importorskip("pycocotools.mask")

# pycocotools 2.0.11 raises this warning with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def same(a, b):
    """Equal in value, type, dtype, shape, memory order and in whether it can be written to."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.flags.writeable) == (b.dtype, b.shape, b.flags.writeable)
        assert a.flags.f_contiguous == b.flags.f_contiguous
    assert np.array_equal(a, b) if isinstance(a, np.ndarray | np.generic) else a == b


def agree(call):
    """The call's result with ours, which is that with pycocotools."""
    found = call(ours)
    same(found, call(theirs))
    return found


def mask_of(counts, height, width):
    """Pixels of run lengths that go down the columns and begin with background."""
    flat = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.uint8)
    return flat.reshape((height, width), order="F")


def square(height=9, width=11, rows=slice(2, 6), columns=slice(4, 9)):
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[rows, columns] = 1
    return mask


@pytest.mark.parametrize("peer", ["faster_coco_eval.core.mask", "hotcoco.mask"])
def test_peers_say_the_same(peer):
    """Peers give pycocotools' values, if not always its types: the comparisons below are not with a quirk of it."""
    peer = pytest.importorskip(peer)
    rng = np.random.default_rng(4)
    masks = np.asfortranarray(rng.random((23, 31, 6)) < [0.02, 0.3, 0.5, 0.9, 0, 1]).astype(np.uint8)
    rles = ours.encode(masks)
    assert [(list(r["size"]), r["counts"]) for r in peer.encode(masks)] == [(r["size"], r["counts"]) for r in rles]
    assert np.array_equal(peer.decode(rles), masks)
    assert np.array_equal(peer.area(rles), ours.area(rles))
    assert np.array_equal(peer.toBbox(rles), ours.toBbox(rles))
    for crowd in ([0] * 6, [1] * 6, [0, 1] * 3):
        assert np.array_equal(peer.iou(rles, rles, crowd), ours.iou(rles, rles, crowd))
    for intersect in (0, 1):
        assert peer.merge(rles[:4], intersect)["counts"] == ours.merge(rles[:4], intersect)["counts"]


BOXES = {
    "all but a corner": (np.array([[1, 1], [1, 0]]), [0, 0, 2, 2]),
    "rectangle inside": (square(), [4, 2, 5, 4]),
    "first pixel": (square(5, 4, 0, 0), [0, 0, 1, 1]),
    "last pixel": (square(5, 4, 4, 3), [3, 4, 1, 1]),
    "first column": (square(5, 4, slice(None), 0), [0, 0, 1, 5]),
    "last row": (square(5, 4, 4, slice(None)), [0, 4, 4, 1]),
    "one pixel of one": (np.ones((1, 1)), [0, 0, 1, 1]),
    "none of one": (np.zeros((1, 1)), [0, 0, 0, 0]),
    "one row": (np.array([[0, 0, 1, 1, 0, 1, 0]]), [2, 0, 4, 1]),
    "one column": (np.array([[0], [1], [0], [1], [0]]), [0, 1, 1, 3]),
    "cross": (square(5, 7, 2, slice(None)) | square(5, 7, slice(None), 3), [0, 0, 7, 5]),
    "anti-diagonal": (np.eye(4)[::-1], [0, 0, 4, 4]),
    "checkers": (np.indices((7, 6)).sum(axis=0) % 2, [0, 0, 6, 7]),
    "columns apart": (square(6, 9, slice(1, 3), slice(1, 9, 3)), [1, 1, 7, 2]),
}


@pytest.mark.parametrize("name", BOXES)
def test_masks_there_and_back(name):
    mask, box = BOXES[name]
    mask = np.asfortranarray(mask, np.uint8)
    rle = agree(lambda m: m.encode(mask))
    assert np.array_equal(agree(lambda m: m.decode(rle)), mask)
    assert agree(lambda m: m.toBbox(rle)).tolist() == box
    assert agree(lambda m: m.area(rle)) == mask.sum()
    text = json.loads(json.dumps({**rle, "counts": rle["counts"].decode("ascii")}))
    assert np.array_equal(agree(lambda m: m.decode(text)), mask)
    assert agree(lambda m: m.decode([rle, text])).shape == (*mask.shape, 2)
    assert agree(lambda m: m.area([text, rle])).tolist() == [mask.sum()] * 2


# `encode` writes none of these, but each is unambiguous.
ZERO_RUNS = [
    [0, 0, 0, 30], [0, 0, 7, 4, 19], [0, 0, 30], [30, 0], [30, 0, 0, 0], [7, 4, 0, 0, 19], [7, 4, 19, 0],
    [7, 0, 0, 4, 19], [7, 4, 0, 3, 16], [7, 0, 23], [2, 0, 0, 0, 0, 28], [0, 0, 0, 0, 3, 8, 0, 0, 0, 9, 10],
]  # fmt: skip


@pytest.mark.parametrize("counts", ZERO_RUNS)
def test_runs_of_no_pixels(counts):
    """Pixels are the measure: `merge`, `iou` and `toBbox` of pycocotools misread some of these (cocoapi, 477)."""
    mask = mask_of(counts, 5, 6)
    rle = agree(lambda m: m.frPyObjects({"size": [5, 6], "counts": counts}, 5, 6))
    assert np.array_equal(agree(lambda m: m.decode(rle)), mask)
    assert agree(lambda m: m.area(rle)) == mask.sum()
    again, other = ours.encode(mask), ours.encode(square(5, 6, slice(1, 4), slice(1, 4)))
    assert agree(lambda m: m.merge([rle])) == rle
    same(ours.toBbox(rle), theirs.toBbox(again))
    for intersect in (0, 1):
        same(ours.merge([rle, other], intersect), theirs.merge([again, other], intersect))
    for crowd in ([0, 0], [1, 1]):
        same(ours.iou([rle, other], [other, rle], crowd), theirs.iou([again, other], [other, again], crowd))


def test_known_long_runs():
    """By hand: 3, 40 in two characters, 2, then 5 as 5 - 40 = -35, low five bits 11101 and rest -2."""
    rle = agree(lambda m: m.frPyObjects({"size": [5, 10], "counts": [3, 40, 2, 5]}, 5, 10))
    assert rle["counts"] == b"3X12mN"
    assert np.array_equal(agree(lambda m: m.decode(rle)), mask_of([3, 40, 2, 5], 5, 10))


@pytest.mark.parametrize(
    "runs",
    [
        [1_500_000, 700_000, 50_000],  # five characters
        [1_060_000, 1_049_000, 5, 7, 135_000, 5_988],  # and differences below zero of five
        [0, 1_100_000, 1, 1, 1, 1_149_997],
        [2_249_999, 1],
    ],
)
def test_runs_of_more_than_a_million(runs):
    mask = np.asfortranarray(mask_of(runs, 1500, 1500))
    rle = agree(lambda m: m.encode(mask))
    assert agree(lambda m: m.area(rle)) == mask.sum()
    assert agree(lambda m: m.frPyObjects({"size": [1500, 1500], "counts": runs}, 1500, 1500)) == rle
    assert np.array_equal(agree(lambda m: m.decode(rle)), mask)
    agree(lambda m: m.toBbox(rle))


def layouts(mask):
    """The same pixels, laid out in memory in every way that an array comes in."""
    height, width = mask.shape[:2]
    frozen = np.array(mask, order="F")
    frozen.flags.writeable = False
    wide = np.zeros((height * 2 + 1, width * 3 + 2, *mask.shape[2:]), mask.dtype)
    wide[1::2, 2::3] = mask
    tall = np.zeros((height + 3, *mask.shape[1:]), mask.dtype, order="F")
    tall[2:-1] = mask
    swapped = np.ascontiguousarray(mask.T).T
    backwards = np.ascontiguousarray(mask[::-1, ::-1])[::-1, ::-1]
    return [
        np.ascontiguousarray(mask),
        np.asfortranarray(mask),
        frozen,
        wide[1::2, 2::3],
        tall[2:-1],
        swapped,
        backwards,
    ]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (8, 8), (13, 5), (17, 33), (65, 63), (5, 6, 1), (9, 7, 4)])
def test_encode_of_every_layout_and_byte(shape):
    """pycocotools takes only 0 and 1 in Fortran order; other orders and values must give what it gives for those."""
    rng = np.random.default_rng(shape)
    index = np.arange(np.prod(shape)).reshape(shape, order="F")
    for on in (index < 0, index == 0, index == index.max(), index % 2 == 1, index % 16 < 8, rng.random(shape) < 0.2):
        expected = theirs.encode(np.asfortranarray(on, np.uint8))
        # Where bytes that are not 0 differ, pycocotools starts a new run.
        any_byte = on * rng.integers(1, 256, shape, np.uint8)
        for values in (on, on.astype(np.uint8), on * np.uint8(255), any_byte):
            for laid_out in layouts(values):
                assert np.array_equal(laid_out, values)
                same(ours.encode(laid_out), expected)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, object])
def test_encode_takes_no_other_dtype(dtype):
    for module in (theirs, ours):
        with pytest.raises(ValueError, match=r"bimask must be|dtype mismatch"):
            module.encode(np.zeros((3, 4), dtype, order="F"))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (0, 5, 2), (5, 0, 2), (3, 4, 0), (0, 3, 2)])
def test_masks_without_pixels(shape):
    rles = agree(lambda m: m.encode(np.zeros(shape, np.uint8, order="F")))
    agree(lambda m: m.area(rles))
    agree(lambda m: m.toBbox(rles))
    rles = rles if isinstance(rles, list) else [rles]
    agree(lambda m: m.iou(rles, rles, [0] * len(rles)))


@pytest.mark.parametrize("size", [(9, 11), np.array([9, 11]), [np.int64(9), np.uint8(11)], range(9, 12, 2)])
def test_sizes_in_every_form(size):
    """torchmetrics keeps sizes as tuples, others as NumPy's numbers; and dictionaries may have more keys."""
    rle = {"size": size, "counts": theirs.encode(square())["counts"], "zcounts": None}
    assert np.array_equal(agree(lambda m: m.decode(rle)), square())
    assert agree(lambda m: m.area(rle)) == 20
    assert agree(lambda m: m.toBbox([rle])).tolist() == [[4, 2, 5, 4]]
    assert agree(lambda m: m.merge([rle, rle])) == theirs.encode(square())
    assert agree(lambda m: m.iou([rle], [rle], [0])).tolist() == [[1]]
    agree(lambda m: m.frPyObjects({"size": size, "counts": [18, 3, 78]}, 9, 11))


@pytest.mark.parametrize(
    "crowd",
    [
        [0, 1],
        (False, True),
        [np.bool_(True)] * 2,
        np.array([1, 0]),
        np.array([True, False]),
        [0.0, 1.0],
        np.array([0.0, 2.0]),
    ],
)
def test_crowd_flags_in_every_form(crowd):
    a, b = agree(lambda m: m.encode(np.stack([square(), square(columns=slice(6, 11))], axis=2).copy(order="F")))
    agree(lambda m: m.iou([a, b], [b, a], crowd))
    agree(lambda m: m.iou([[4, 2, 5, 4]], [[6, 2, 5, 4], [4, 2, 5, 4]], crowd))


@pytest.mark.parametrize("crowd", [[], [0], [0, 0, 0]])
def test_crowd_flags_are_as_many_as_ground_truths(crowd):
    rle = theirs.encode(square())
    for module, error in ((theirs, AssertionError), (ours, ValueError)):
        with pytest.raises(error, match=r"pyiscrowd must have the length of gt|must have the same length as gt"):
            module.iou([rle], [rle, rle], crowd)


def test_iou_of_empty_full_and_nested_masks():
    masks = [
        square(rows=0, columns=slice(0, 0)),
        np.ones((9, 11)),
        square(),
        square(rows=slice(3, 5)),
        square(rows=slice(6, 9)),
    ]
    rles = theirs.encode(np.asfortranarray(np.stack(masks, axis=2), np.uint8))
    for crowd in ([0] * 5, [1] * 5, [1, 0, 1, 0, 1]):
        agree(lambda m, crowd=crowd: m.iou(rles, rles, crowd))
    assert ours.iou(rles[2:3], rles[3:], [0, 0]).tolist() == [[0.5, 0]]
    assert ours.iou(rles[3:4], rles[2:3], [1]).tolist() == [[1]]


def test_merge_of_several():
    masks = [square(), square(columns=slice(7, 11)), square(rows=slice(0, 3)), np.zeros((9, 11)), np.ones((9, 11))]
    rles = theirs.encode(np.asfortranarray(np.stack(masks, axis=2), np.uint8))
    for intersect in (0, 1, False, True, np.int64(1), 2):
        for chosen in (rles, rles[:1], rles[:2], rles[:3], rles[2:4], rles[::-1], tuple(rles), [rles[0]] * 3):
            agree(lambda m, chosen=chosen, intersect=intersect: m.merge(chosen, intersect))
    assert ours.area(ours.merge(rles[:3])) == np.logical_or.reduce(masks[:3]).sum()
    assert ours.area(ours.merge(rles[:3], intersect=True)) == 2
    small = theirs.encode(square(4, 5))
    for intersect in (0, 1):
        agree(lambda m, intersect=intersect: m.merge([rles[0], small], intersect))


def test_a_covered_part_is_cut_off():
    """As in datumaro's crop_covered_segments: a covered part is cut off, and its area is that of the intersection."""
    below, above = theirs.frPyObjects([[1, 1, 6, 1, 6, 6, 1, 6], [3, 1, 6, 1, 6, 6]], 7, 7)
    covered = agree(lambda m: m.merge([below, above], True))
    assert agree(lambda m: m.area(covered)) == agree(lambda m: m.area(above)) > 0
    left = agree(lambda m: m.decode(below)) & ~ours.decode(above) & 1
    assert agree(lambda m: m.area(m.encode(left))) == ours.area(below) - ours.area(covered)
    assert agree(lambda m: m.iou([above], [below], [1])).tolist() == [[1]]


def test_results_are_the_callers_own():
    """No result keeps or shares the memory of another, or of what it was made of."""
    mask = square()
    rle = ours.encode(mask)
    counts, size = rle["counts"], rle["size"]
    decoded, boxes = ours.decode(rle), ours.toBbox([rle])
    decoded[:] = 7
    boxes[:] = -1
    mask[:] = 0
    del mask
    assert rle == {"size": [9, 11], "counts": counts}
    assert ours.decode(rle).sum() == 20
    assert ours.toBbox(rle).tolist() == [4, 2, 5, 4]
    merged = ours.merge([rle])
    merged["size"][0] = 99
    assert rle["size"] is size
    assert size == [9, 11]


READERS = {
    "decode": lambda rle: ours.decode(rle),
    "decode list": lambda rle: ours.decode([rle, rle]),
    "area": lambda rle: ours.area(rle),
    "toBbox": lambda rle: ours.toBbox([rle]),
    "merge": lambda rle: ours.merge([rle, {"size": [2, 2], "counts": b"4"}]),
    "iou": lambda rle: ours.iou([rle], [rle], [0]),
    "frPyObjects": lambda rle: ours.frPyObjects(rle, 2, 2),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "counts",
    [
        b"!", b"O", "O", b"PPPPPP8", b"P" * 20, b"\xff", "\xff", b"1P",  # text
        [2**32 - 1, 5], [-1, 5], [2**32 + 4],  # numbers
        None, 4, {}, [[4]],
    ],
)  # fmt: skip
def test_run_lengths_that_are_none_are_refused(reader, counts):
    """pycocotools takes some of these, never returns from others and crashes on a few."""
    with pytest.raises(ValueError, match=r"\[0\]: counts"):
        READERS[reader]({"size": [2, 2], "counts": counts})


@pytest.mark.parametrize("counts", [b"5", b"", "", b"3", [], [5], [0, 100], [1, 1], np.array([2, 3])])
@pytest.mark.parametrize("reader", READERS)
def test_run_lengths_that_do_not_fill_the_mask(reader, counts):
    """`decode` of pycocotools leaves memory as it was, and its `merge` with a mask that is full never returns."""
    rle = {"size": [2, 2], "counts": counts}
    if reader in ("decode", "decode list", "merge"):
        with pytest.raises(ValueError, match=r"rleObjs\[[01]\]: counts"):
            READERS[reader](rle)
        return
    compressed = theirs.frPyObjects(rle, 2, 2) if not isinstance(counts, bytes | str) else rle
    if not isinstance(counts, bytes | str):
        same(ours.frPyObjects(rle, 2, 2), compressed)
    for function in ("area", "toBbox"):
        same(getattr(ours, function)(compressed), getattr(theirs, function)(compressed))
    same(ours.merge([compressed])["size"], [2, 2])
    agree(lambda m: m.iou([compressed], [compressed], [0]))


def test_a_cut_off_string_is_refused():
    counts = theirs.encode(np.asfortranarray(np.random.default_rng(3).random((40, 50)) < 0.2, np.uint8))["counts"]
    for end in (1, 17, len(counts) // 2, len(counts) - 1):
        with pytest.raises(ValueError, match=r"rleObjs\[0\]: counts"):
            ours.decode({"size": [40, 50], "counts": counts[:end].decode()})
