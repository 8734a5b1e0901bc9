"""Boxes, polygons and lists of run lengths through `dpad_fast.coco_mask`, as the public suites have them.

The cases correspond to those of ppwwyyxx/cocoapi (`tests/test_numpy2_compatibility.py`), faster_coco_eval
(`test_mask_api.py`), hotcoco (`test_mask_parity.py`, `test_dropin_compat.py`, `test_review_fixes.py`,
`fuzz_dropin.py`), rlemasklib (`test_functional.py`), detectron2 (`tests/structures/test_masks.py`,
`tests/data/test_coco.py`), mmdet (mask structures), supervision (`test_coco_reference.py`), and to issues of
pycocotools on far vertices (cocoapi, 380), shifted edges (659) and lists of boxes (139, 348). The numbers are our own.
"""

import numpy as np
import pytest

from dpad_fast import coco_mask as ours

theirs = pytest.importorskip("pycocotools.mask")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
PEERS = ["faster_coco_eval.core.mask", "hotcoco.mask"]


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.flags.f_contiguous) == (b.dtype, b.shape, b.flags.f_contiguous)
        assert np.array_equal(a, b, equal_nan=True)
    else:
        assert a == b


def agree(call):
    """The call's result with ours, which is that with pycocotools."""
    found = call(ours)
    same(found, call(theirs))
    return found


POLYGONS = {
    "square": [2, 3, 9, 3, 9, 8, 2, 8],
    "counter-clockwise": [2, 3, 2, 8, 9, 8, 9, 3],
    "from another corner": [9, 8, 2, 8, 2, 3, 9, 3],
    "closed": [2, 3, 9, 3, 9, 8, 2, 8, 2, 3],
    "every vertex twice": [2, 3, 2, 3, 9, 3, 9, 3, 9, 8, 9, 8, 2, 8, 2, 8],
    "between pixels": [2.3, 3.6, 9.4, 3.6, 9.4, 8.7, 2.3, 8.7],
    "halves": [2.5, 3.5, 9.5, 3.5, 9.5, 8.5, 2.5, 8.5],
    "fifths": [0.1, 0.3, 9.7, 0.3, 9.7, 8.9, 0.1, 8.9],
    "thin": [4, 1, 5, 1, 5, 11, 4, 11],
    "thinner than a pixel": [4.2, 1, 4.45, 1, 4.45, 11, 4.2, 11],
    "flat": [1, 4.2, 12, 4.2, 12, 4.4, 1, 4.4],
    "diagonal": [0, 0, 12, 0, 0, 12],
    "concave": [1, 1, 11, 1, 11, 4, 5, 4, 5, 11, 1, 11],
    "crossing itself": [1, 1, 11, 11, 11, 1, 1, 11],
    "wound twice": [2, 2, 10, 2, 10, 10, 2, 10] * 2,
    "around the picture": [-3, -2, 17, -2, 17, 16, -3, 16],
    "over a corner": [-4, -4, 5, -4, 5, 6, -4, 6],
    "beyond the right": [40, 2, 50, 2, 50, 9, 40, 9],
    "beyond the left": [-40, 2, -30, 2, -30, 9, -40, 9],
    "below": [2, 40, 9, 40, 9, 50, 2, 50],
    "one point": [6, 5, 6, 5, 6, 5],
    "a line": [1, 1, 6, 6, 11, 11],
    "the picture's edge": [0, 0, 0, 12, 14, 12, 14, 0],
    "the last pixels": [0, 0, 0, 11, 13, 11, 13, 0],
}


@pytest.mark.parametrize("name", POLYGONS)
def test_polygons(name):
    polygon = POLYGONS[name]
    drawn = agree(lambda m: m.frPyObjects([polygon], 12, 14))
    agree(lambda m: m.decode(drawn))
    agree(lambda m: m.toBbox(drawn))
    agree(lambda m: m.frPyObjects([polygon, POLYGONS["diagonal"], [*polygon, 3]], 12, 14))
    assert [ours.frPyObjects(polygon, 12, 14)] == drawn
    for form in (
        np.array(polygon, float),
        np.array(polygon, np.float32),
        np.array(polygon, object),
        np.repeat(np.array(polygon, float), 2)[::2],
        tuple(polygon),
        (*polygon, 3),
        np.array([*polygon, 3]),
        [np.float64(value) for value in polygon],
    ):
        agree(lambda m, form=form: m.frPyObjects([form], 12, 14))
        agree(lambda m, form=form: m.frPyObjects([form, polygon, form], 12, 14))


@pytest.mark.parametrize("peer", PEERS)
def test_peers_draw_the_same(peer):
    peer = pytest.importorskip(peer)
    polygons = list(POLYGONS.values())
    assert peer.frPyObjects(polygons, 12, 14) == ours.frPyObjects(polygons, 12, 14)
    boxes = np.array([[1, 2, 3, 4], [0.4, 1.6, 5.3, 2.2], [-3, 5, 30, 4], [9, 9, 0, 3]])
    assert peer.frPyObjects(boxes, 12, 14) == ours.frPyObjects(boxes, 12, 14)
    assert peer.frPyObjects(boxes.tolist(), 12, 14) == ours.frPyObjects(boxes.tolist(), 12, 14)
    plain = {"size": [4, 5], "counts": [2, 3, 15]}
    assert peer.frPyObjects(plain, 4, 5) == ours.frPyObjects(plain, 4, 5)
    assert peer.frPyObjects([plain, plain], 4, 5) == ours.frPyObjects([plain, plain], 4, 5)


@pytest.mark.parametrize("scale", [40, 700, 9_000, 250_000, 1e6])
def test_far_vertices(scale):
    """Edges keep their slope however far outside they end (hotcoco clamped them once; cocoapi, 380, crashed)."""
    rng = np.random.default_rng(int(scale))
    for height, width in ((28, 28), (100, 70), (480, 640)):
        for corners in (3, 4, 7):
            inside = rng.random((corners, 2)) * (width, height)
            far = inside + rng.choice([-1, 0, 1], (corners, 2)) * scale * rng.random((corners, 1))
            rings = [far.ravel().tolist()]
            agree(lambda m, rings=rings, height=height, width=width: m.frPyObjects(rings, height, width))


@pytest.mark.parametrize(
    "sides",
    [(np.int64(12), np.int32(14)), (np.uint8(12), True), (12.0, 14.0), (np.float32(12), np.float64(14.9)), (0, 0)],
)
def test_heights_and_widths_in_every_form(sides):
    """JSON of other tools has 480.0; pycocotools cuts the fraction."""
    agree(lambda m: m.frPyObjects([POLYGONS["square"]], *sides))
    agree(lambda m: m.frPyObjects(np.array([[1.0, 2, 5, 6]]), *sides))
    agree(lambda m: m.frPyObjects({"size": [3, 2], "counts": [1, 5]}, *sides))


def test_parts_of_an_object():
    """`merge` joins parts, so that overlaps stay and a ring inside a ring is no hole."""
    outer, inner, apart = [1, 1, 9, 1, 9, 9, 1, 9], [3, 3, 6, 3, 6, 6, 3, 6], [10, 2, 13, 2, 13, 7, 10, 7]
    rles = agree(lambda m: m.frPyObjects([outer, inner, apart], 12, 14))
    joined = agree(lambda m: m.merge(rles))
    assert ours.area(joined) == ours.area(rles[0]) + ours.area(rles[2])
    assert np.array_equal(agree(lambda m: m.decode(joined)), ours.decode(rles).any(axis=2))
    assert agree(lambda m: m.toBbox(joined)).tolist() == [1, 1, 12, 8]


def test_boxes_come_back():
    """As detectron2's masks: a polygon on whole pixels has the box that it was made of."""
    for x1, y1, x2, y2 in ((1, 0, 4, 4), (1, 1, 3, 4), (0, 0, 9, 7), (8, 6, 9, 7)):
        rle = agree(lambda m, ring=(x1, y1, x2, y1, x2, y2, x1, y2): m.frPyObjects([list(ring)], 7, 9))
        assert agree(lambda m, rle=rle: m.toBbox(rle)).tolist() == [[x1, y1, x2 - x1, y2 - y1]]
    none = agree(lambda m: m.frPyObjects([[0, 0, 0, 0, 0, 0, 0, 0]], 7, 9))
    assert agree(lambda m: m.toBbox(none)).tolist() == [[0, 0, 0, 0]]
    assert agree(lambda m: m.frPyObjects(np.zeros((0, 4)), 7, 9)) == []


def test_fewer_than_three_vertices_are_empty():
    good = POLYGONS["square"]
    for bad in ([5, 5, 6, 6], [5.5, 1.2, 9.8, 9.9, 3], [-3, 4, 70, 9], [1, 1], [1, 1, 1], [7], []):
        for form in (bad, tuple(bad), np.array(bad, float)):
            drawn = agree(lambda m, form=form: m.frPyObjects([good, form, good], 12, 14))
            assert ours.area(drawn).tolist() == [35, 0, 35]
    agree(lambda m: m.frPyObjects([[1, 2, 9, 8, 5], [1, 2, 9, 8]], 12, 14))


def test_numbers_in_strings():
    """As some JSON has them; pycocotools leaves them to NumPy."""
    polygon = ["2.5", "3", " 9", "3e0", "9", "8", "2", "8"]
    drawn = agree(lambda m: m.frPyObjects([polygon, POLYGONS["square"], polygon[:5]], 12, 14))
    assert drawn[0] == ours.frPyObjects([[float(x) for x in polygon]], 12, 14)[0]
    agree(lambda m: m.frPyObjects([np.array(polygon), tuple(polygon)], 12, 14))
    agree(lambda m: m.frPyObjects(polygon, 12, 14))
    agree(lambda m: m.frPyObjects([{"size": [3, 4], "counts": ["2", "10"]}], 3, 4))


@pytest.mark.parametrize(
    "bad", [None, "abcdef", 5, {"size": [2, 2], "counts": b"4"}, {1, 2, 3}, [[1, 1], [8, 1], [8, 8]]]
)
def test_what_is_no_polygon_is_named(bad):
    with pytest.raises(ValueError, match=r"pyobj\[1\] must be a flat polygon"):
        ours.frPyObjects([POLYGONS["square"], bad], 12, 14)


def test_boxes_are_rectangles():
    boxes = [[1, 2, 3, 4], [0.5, 0.5, 2, 2], [1.2, 1.7, 3.3, 2.1], [-1.5, 2.5, 4, 3], [3, 3, 0, 5], [3, 3, -2, -2]]
    boxes += [[-9, -9, 4, 4], [30, 30, 4, 4], [-50, -50, 500, 500], [13, 11, 1, 1]]
    rles = agree(lambda m: m.frPyObjects(np.array(boxes, float), 12, 14))
    agree(lambda m: m.decode(rles))
    # pycocotools takes float64 arrays only (cocoapi, 139 and 348); others take these too.
    for form in (boxes, np.array(boxes, np.float64)[:, ::-1][:, ::-1], [np.array(box) for box in boxes], tuple(boxes)):
        assert ours.frPyObjects(form, 12, 14) == rles
    whole = np.array(boxes[:1] + boxes[-1:])
    for dtype in (int, np.float32, np.int16):
        assert ours.frPyObjects(whole.astype(dtype), 12, 14) == [rles[0], rles[-1]]


@pytest.mark.parametrize(
    "counts",
    [
        np.array([17, 8, 143]), np.array([17, 8, 143], np.uint32), np.array([17.0, 8, 143]), (17, 8, 143),
        [17.0, 8.0, 143.0], [np.int64(17), np.uint8(8), np.int16(143)], [168], [0, 168], [True, 167],
    ],
)  # fmt: skip
def test_lists_of_run_lengths(counts):
    """Whatever height and width are passed, the dictionary's own size is used."""
    plain = {"size": [12, 14], "counts": counts, "extra": None}
    rle = agree(lambda m: m.frPyObjects(plain, 12, 14))
    assert agree(lambda m: m.frPyObjects([plain, plain], 3, 4)) == [rle, rle]
    assert agree(lambda m: m.area(rle)) == sum(list(counts)[1::2])
    # Beyond pycocotools, every function reads them as they are.
    assert ours.merge([plain]) == rle
    same(ours.decode(plain), theirs.decode(rle))
    same(ours.toBbox([plain]), theirs.toBbox([rle]))


BOXES = [
    [0, 0, 10, 10],
    [4, 5, 10, 10],
    [50, 60, 4, 3.5],
    [4, 5, 10, 0],
    [4, 5, 0, 10],
    [0, 0, 400, 400],
    [-6, -7, 9, 9],
]
FORMS = {
    "lists": BOXES,
    "float64": np.array(BOXES),
    "float32": np.array(BOXES, np.float32),
    "float16": np.array(BOXES, np.float16),
    "integers": np.array(BOXES).astype(int),
    "arrays": [np.array(box) for box in BOXES],
    "every other": np.repeat(np.array(BOXES), 2, axis=0)[::2],
    "negative sides": [[0, 0, -5, -5], [0, 0, 5, -5], [3, 3, -1, 6]],
    "huge": [[-1e200, -1e200, 3e200, 3e200], [1e300, 1e300, 1e300, 1e300], [0, 0, 1e9, 1e9]],
    "not finite": [[0, 0, np.inf, 1], [0, 0, np.inf, 0], [-np.inf, 0, np.inf, 1], [0, 0, np.inf, np.inf]],
    "not numbers": [[np.nan, 0, 1, 1], [0, 0, 5, np.nan], [np.nan] * 4, [2, np.nan, 3, 3]],
    "small": [[0.1, 0.2, 1e-9, 1e-9], [0, 0, 5e-324, 1], [1, 1, 1e-200, 1e-200]],
}


@pytest.mark.parametrize("name", FORMS)
def test_iou_of_boxes_in_every_form(name):
    """Equal in every bit and without a warning, which would be an error here."""
    for other in (FORMS[name], BOXES, np.array(BOXES)):
        for a, b in ((FORMS[name], other), (other, FORMS[name])):
            for flag in (0, 1):
                agree(lambda m, a=a, b=b, flag=flag: m.iou(a, b, [flag] * len(b)))


def test_fortran_ordered_boxes_are_boxes():
    """pycocotools reads their memory as if rows lay in it."""
    same(ours.iou(np.asfortranarray(BOXES), BOXES, [0] * 7), theirs.iou(BOXES, BOXES, [0] * 7))
    same(ours.iou([tuple(box) for box in BOXES], BOXES, [1] * 7), theirs.iou(BOXES, BOXES, [1] * 7))


@pytest.mark.parametrize(
    ("dt", "gt"),
    [
        (BOXES, ours.frPyObjects(BOXES, 9, 9)),
        (ours.frPyObjects(BOXES, 9, 9), BOXES),
        (BOXES, [*BOXES[:6], {"size": [1, 1], "counts": b"1"}]),
        ([[1.0, 2.0]], BOXES),
        (np.zeros((2, 5)), BOXES),
        (np.zeros(4), BOXES),
        ([0, 0, 4, 4], BOXES),
        ({"size": [1, 1], "counts": b"1"}, BOXES),
        ("boxes", BOXES),
        (BOXES, None),
    ],
)
def test_iou_of_what_does_not_go_together(dt, gt):
    for module, error in ((theirs, Exception), (ours, ValueError)):
        with pytest.raises(error):
            module.iou(dt, gt, [0] * 7)


@pytest.mark.parametrize("empty", [[], np.zeros((0, 4)), np.zeros(0)])
def test_iou_with_no_boxes(empty):
    for a, b in ((empty, BOXES), (BOXES, empty), (empty, empty), (empty, ours.frPyObjects(BOXES, 9, 9))):
        agree(lambda m, a=a, b=b: m.iou(a, b, [0] * len(b)))
