"""Run lengths that do not fill the picture, and very long sides: what pycocotools takes, with its results.

The generated cases keep to what it is safe to ask pycocotools: joining masks whose runs reach unequally far never
returns there, and `decode` reads memory that nobody wrote.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpad_fast import coco_mask as ours
from dpad_fast.testing import cases

theirs = pytest.importorskip("pycocotools.mask")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.flags.f_contiguous) == (b.dtype, b.shape, b.flags.f_contiguous)
    assert np.array_equal(a, b) if isinstance(a, np.ndarray | np.generic) else a == b


@st.composite
def equally_far(draw):
    """Uncompressed run lengths of one size that all add up to one number, short of the picture or beyond it."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    total = draw(st.integers(1, height * width + 20))
    masks = []
    for _ in range(draw(st.integers(1, 4))):
        cuts = draw(st.sets(st.integers(1, max(total - 1, 1)), max_size=min(8, height * width - 1)))
        ends = [0, *sorted(cut for cut in cuts if cut < total), total]
        runs = np.diff(ends).tolist()
        masks.append({"size": [height, width], "counts": [0, *runs] if draw(st.booleans()) and runs else runs})
    return masks


@given(equally_far(), st.data())
@settings(max_examples=cases(400), deadline=None)
def test_runs_that_end_anywhere(plain, data):
    height, width = plain[0]["size"]
    rles = theirs.frPyObjects(plain, height, width)
    same(ours.frPyObjects(plain, height, width), rles)
    same(ours.frPyObjects(plain[0], height, width), rles[0])
    for function in ("area", "toBbox"):
        same(getattr(ours, function)(rles), getattr(theirs, function)(rles))
        same(getattr(ours, function)(rles[0]), getattr(theirs, function)(rles[0]))
    crowd = data.draw(st.lists(st.integers(0, 1), min_size=len(rles), max_size=len(rles)))
    same(ours.iou(rles, rles, crowd), theirs.iou(rles, rles, crowd))
    other = theirs.encode(np.ones((height + 1, width), np.uint8, order="F"))
    same(ours.iou(rles, [other], [0]), theirs.iou(rles, [other], [0]))
    if sum(plain[0]["counts"]) <= height * width:  # beyond, its `merge` may write past its memory
        for intersect in (0, 1):
            same(ours.merge(rles, intersect), theirs.merge(rles, intersect))
    total = sum(plain[0]["counts"])
    if total != height * width:
        with pytest.raises(ValueError, match=r"rleObjs\[0\]: counts"):
            ours.decode(rles)


def test_masks_that_end_at_different_pixels_are_named():
    """pycocotools never returns from these, unless their boxes are apart."""
    short, full = ours.frPyObjects([{"size": [4, 5], "counts": c} for c in ([2, 3], [1, 19])], 4, 5)
    with pytest.raises(ValueError, match=r"dt\[1\]: counts add up to 5, but those of gt\[0\] to 20"):
        ours.iou([full, short], [full], [0])
    with pytest.raises(ValueError, match=r"rleObjs\[2\]: counts add up to 5, but those of rleObjs\[0\] to 20"):
        ours.merge([full, full, short])
    apart = theirs.frPyObjects({"size": [4, 5], "counts": [16, 4]}, 4, 5)
    same(ours.iou([short], [apart], [0]), theirs.iou([short], [apart], [0]))


def test_whole_masks_are_read_as_before():
    """Complete run lengths have the same results beside short ones, which take another path."""
    rng = np.random.default_rng(0)
    whole = theirs.encode(np.asfortranarray(rng.random((9, 11, 5)) < 0.4, np.uint8))
    short = theirs.frPyObjects({"size": [9, 11], "counts": [3, 4]}, 9, 11)
    for function in ("area", "toBbox"):
        same(getattr(ours, function)([*whole, short]), getattr(theirs, function)([*whole, short]))


@pytest.mark.parametrize("size", [[4.7, 5], [4.0, np.float64(5.2)], [np.int64(4), True]])
def test_sizes_are_cut(size):
    for counts in ([2, 3], [2.9, 3.2], [True, 2]):
        same(
            ours.frPyObjects({"size": size, "counts": counts}, 4, 5),
            theirs.frPyObjects({"size": size, "counts": counts}, 4, 5),
        )
    same(ours.area({"size": size, "counts": b"23"}), theirs.area({"size": size, "counts": b"23"}))


@pytest.mark.parametrize("shape", [(70_000, 3), (2, 70_001), (65_536, 1)])
def test_sides_of_any_length(shape):
    rng = np.random.default_rng(1)
    masks = np.asfortranarray(rng.random((*shape, 3)) < 0.01, np.uint8)
    masks[:, :, 1] = 1
    rles = theirs.encode(masks)
    same(ours.encode(masks), rles)
    same(ours.encode(masks[:, :, 0]), rles[0])
    same(ours.encode(np.ascontiguousarray(masks[:, :, 0])), rles[0])
    for function in ("decode", "area", "toBbox"):
        same(getattr(ours, function)(rles), getattr(theirs, function)(rles))
        same(getattr(ours, function)(rles[0]), getattr(theirs, function)(rles[0]))
    for intersect in (0, 1):
        same(ours.merge(rles, intersect), theirs.merge(rles, intersect))
    same(ours.iou(rles, rles, [0, 1, 0]), theirs.iou(rles, rles, [0, 1, 0]))
    plain = {"size": list(shape), "counts": [5, 70_000]}
    same(ours.frPyObjects(plain, *shape), theirs.frPyObjects(plain, *shape))
    with pytest.raises(ValueError, match="h and w is too large: at most 65535 a side"):
        ours.frPyObjects([[0, 0, 5, 0, 5, 5]], *shape)
