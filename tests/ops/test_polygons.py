"""Polygons against pycocotools, OpenCV and the reference, pixel for pixel."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpad_fast.ops import PackedMasks, polygon_iou, rasterize_polygons
from dpad_fast.ops import _mask_ops as ops
from dpad_fast.ops.polygons import RULES, gather
from dpad_fast.reference import masks as reference
from dpad_fast.reference.polygons import rasterize
from dpad_fast.testing import cases

cv2 = pytest.importorskip("cv2")
coco = pytest.importorskip("pycocotools.mask")

# pycocotools 2.0.11 raises this warning with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIDE = st.one_of(st.integers(1, 12), st.integers(1, 90), st.sampled_from([63, 64, 65, 128, 129]))


KINDS = ["as it is", "as it is", "collinear", "repeated", "flat", "upright", "point"]


def ring_of(rng, height, width, spreads):
    """One ring: random, on a grid, collinear, repeated, axis-parallel, self-crossing, inside the image or far out."""
    ring = (rng.random((rng.integers(3, 10), 2)) - 0.5) * (width, height) * rng.choice(spreads) + (
        width / 2,
        height / 2,
    )
    step = rng.choice([0.0, 0.0, 0.5, 1.0, 3.0])
    if step:
        ring = np.round(ring / step) * step
    kind = rng.choice(KINDS)
    if kind == "collinear":
        ring = ring[0] + np.linspace(0, 1, len(ring))[:, None] * (ring[1] - ring[0])
    elif kind == "repeated":
        ring = np.repeat(ring, 2, axis=0)
    elif kind == "flat":
        ring[:, 1] = ring[0, 1]
    elif kind == "upright":
        ring[:, 0] = ring[0, 0]
    elif kind == "point":
        ring[:] = ring[0]
    return ring


@st.composite
def scenes(draw, far=True):
    """Height, width and up to 3 objects of up to 3 rings; from one seed, because drawing each number is slow."""
    height, width = draw(SIDE), draw(SIDE)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spreads = [1.0, 1.0, 1.3, 3.0, 30.0] + ([1e4] if far else [])
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    return height, width, [[ring_of(rng, height, width, spreads) for _ in range(count)] for count in shape]


def check(objects, height, width, rule, expected):
    dense = rasterize_polygons(objects, height, width, rule=rule, out="dense").numpy()
    assert np.array_equal(dense, expected)
    packed = rasterize_polygons(objects, height, width, rule=rule)
    assert np.array_equal(packed.words.numpy(), reference.pack(expected))
    assert np.array_equal(packed.area.numpy(), reference.area(expected))
    assert np.array_equal(packed.box.numpy(), reference.boxes(expected))
    rles = rasterize_polygons(objects, height, width, rule=rule, out="rle")
    assert rles == [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in expected]


@given(scenes(far=False))
@settings(max_examples=cases(700), deadline=None)
def test_coco_is_pycocotools(scene):
    height, width, objects = scene
    merged = [coco.merge(coco.frPyObjects([ring.ravel().tolist() for ring in item], height, width)) for item in objects]
    check(objects, height, width, "coco", np.stack([coco.decode(rle) for rle in merged]).astype(bool))


@given(scenes())
@settings(max_examples=cases(700), deadline=None)
def test_opencv_is_fillpoly_with_or_without_polylines(scene):
    height, width, objects = scene
    expected = np.zeros((len(objects), height, width), np.uint8)
    for canvas, item in zip(expected, objects, strict=True):
        cv2.fillPoly(canvas, [ring.astype(np.int32) for ring in item], 1)
    check(objects, height, width, "opencv", expected.astype(bool))
    for canvas, item in zip(expected, objects, strict=True):
        cv2.polylines(canvas, [ring.astype(np.int32) for ring in item], True, 1, 1)
    outlined = rasterize_polygons(objects, height, width, rule="opencv", outline=True, out="dense")
    assert np.array_equal(outlined.numpy(), expected.astype(bool))


@given(scenes())
@settings(max_examples=cases(300), deadline=None)
def test_center_is_the_reference(scene):
    height, width, objects = scene
    expected = np.stack([rasterize(item, height, width, "center") for item in objects])
    check(objects, height, width, "center", expected)


@given(scenes(far=False), st.sampled_from(RULES), st.sampled_from([None, "shared", "each"]), st.data())
@settings(max_examples=cases(300), deadline=None)
def test_iou_is_that_of_the_drawn_mask(scene, rule, ignoring, data):
    height, width, objects = scene
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    truth = rng.random((2, height, width)) < 0.5
    index = data.draw(st.lists(st.integers(0, 1), min_size=len(objects), max_size=len(objects)))
    ignore = None if ignoring is None else rng.random((2, height, width)) < 0.3
    ignore = ignore[0] if ignoring == "shared" else ignore
    drawn = np.stack([rasterize(item, height, width, rule) for item in objects])
    chosen = ignore[index] if ignoring == "each" else ignore
    expected = reference.mask_iou(drawn, truth[index], chosen, empty=0.5)
    for masks in (truth, PackedMasks.from_dense(truth)):
        got = polygon_iou(objects, masks, rule=rule, mask_index=index, ignore=ignore, empty=0.5)
        assert np.array_equal(got.numpy(), expected)


@given(scenes(far=False))
@settings(max_examples=cases(100), deadline=None)
def test_references_are_the_peers(scene):
    height, width, objects = scene
    for item in objects:
        canvas = np.zeros((height, width), np.uint8)
        cv2.fillPoly(canvas, [ring.astype(np.int32) for ring in item], 1)
        assert np.array_equal(rasterize(item, height, width, "opencv"), canvas.astype(bool))
        flat = [ring.ravel().tolist() for ring in item]
        decoded = coco.decode(coco.merge(coco.frPyObjects(flat, height, width)))
        assert np.array_equal(rasterize(item, height, width, "coco"), decoded.astype(bool))


@given(st.integers(1, 40), st.sampled_from([511, 513, 640, 1025, 1100]), st.integers(0, 2**32))
@settings(max_examples=cases(100), deadline=None)
def test_wide_images(height, width, seed):
    """Windows of more words than a vector holds."""
    rng = np.random.default_rng(seed)
    rings = [ring_of(rng, height, width, [0.3, 1.0, 1.3]) for _ in range(3)]
    canvas = np.zeros((3, height, width), np.uint8)
    for mask, ring in zip(canvas, rings, strict=True):
        cv2.fillPoly(mask, [ring.astype(np.int32)], 1)
    check([ring.astype(np.int32) for ring in rings], height, width, "opencv", canvas.astype(bool))
    flat = [ring.ravel().tolist() for ring in rings]
    drawn = coco.decode(coco.frPyObjects(flat, height, width)).transpose(2, 0, 1).astype(bool)
    check(flat, height, width, "coco", drawn)
    truth = rng.random((3, height, width)) < 0.5
    for rule, expected in (("opencv", canvas.astype(bool)), ("coco", drawn)):
        given_rings = [ring.astype(np.int32) for ring in rings] if rule == "opencv" else flat
        assert np.array_equal(polygon_iou(given_rings, truth, rule=rule), reference.mask_iou(expected, truth))


@pytest.mark.parametrize(("height", "width"), [(41, 41), (41, 30000), (30000, 41)])
def test_every_line_is_opencvs(height, width):
    # A ring of two points is a line there and back, here of every slope and from every corner.
    rng = np.random.default_rng(height)
    ends = [(x, y) for x in np.linspace(0, width - 1, 41) for y in np.linspace(0, height - 1, 41)]
    if max(height, width) > 41:
        ends = [ends[i] for i in rng.choice(len(ends), 40, replace=False)]
    rings = []
    for x, y in ends:
        ring = np.array([[0, 0], [x, y], [0, 0]]).astype(np.int32)
        for across, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
            turned = np.abs(ring - (across * (width - 1), down * (height - 1)))
            rings += [turned, np.ascontiguousarray(turned[[1, 0, 1]])]
    found = rasterize_polygons([ring.astype(float) for ring in rings], height, width, rule="opencv")
    for ring, mine in zip(rings, found, strict=True):
        canvas = np.zeros((height, width), np.uint8)
        cv2.fillPoly(canvas, [ring], 1)
        assert np.array_equal(mine.to_dense()[0].numpy(), canvas), ring


def test_neighbours_share_no_centre_and_leave_none_out():
    rng = np.random.default_rng(0)
    middle = rng.random((5, 2)) * (30, 20)
    corners = np.array([(0, 0), (30, 0), (30, 20), (0, 20)], float)
    for point in [*middle, (15.5, 10.5), (15, 10)]:
        triangles = [np.stack([corners[i], corners[(i + 1) % 4], point]) for i in range(4)]
        drawn = rasterize_polygons(triangles, 20, 30, rule="center", out="dense").sum(0)
        assert drawn.eq(1).all()


def test_rings_in_every_form():
    ring = np.array([[2.0, 1.0], [9.0, 3.0], [4.0, 8.0]])
    hole = ring * 0.5 + 2
    forms = [
        ring,
        ring.tolist(),
        [tuple(p) for p in ring],
        ring.ravel(),
        ring.ravel().tolist(),
        [ring],
        [ring.ravel().tolist()],
        torch.from_numpy(ring),
        [torch.from_numpy(ring)],
        ring.astype(np.float32),
        list(ring),
        np.asfortranarray(ring),
    ]
    drawn = rasterize_polygons(forms, 10, 12)
    assert all(torch.equal(mask, drawn.words[0]) for mask in drawn.words)
    assert drawn.area[0] > 0
    pair = rasterize_polygons([[ring, hole], (ring.tolist(), hole.tolist())], 10, 12, rule="center")
    assert torch.equal(pair.words[0], pair.words[1])
    assert pair.area[0] < rasterize_polygons([ring], 10, 12, rule="center").area[0]
    assert rasterize_polygons(np.stack([ring, ring]), 10, 12).area.tolist() == [int(drawn.area[0])] * 2


def test_objects_without_rings_and_batches_without_objects():
    assert rasterize_polygons([], 4, 5).words.shape == (0, 4, 1)
    assert rasterize_polygons([], 4, 5, out="dense").shape == (0, 4, 5)
    assert rasterize_polygons([], 4, 5, out="rle") == []
    assert polygon_iou([], np.zeros((0, 4, 5), bool)).shape == (0,)
    ring = [(0, 0), (5, 0), (5, 4), (0, 4)]
    assert rasterize_polygons([ring], 0, 5).words.shape == (1, 0, 1)
    assert rasterize_polygons([ring], 4, 0, rule="opencv", out="dense").shape == (1, 4, 0)


@pytest.mark.parametrize("rule", RULES)
def test_a_hundred_thousand_vertices(rule):
    rng = np.random.default_rng(1)
    turn = np.linspace(0, 2 * np.pi, 100_000, endpoint=False)
    star = np.stack([np.cos(turn), np.sin(turn)], 1) * (100 + 90 * rng.random((len(turn), 1))) + (320, 240)
    start = time.perf_counter()
    packed = rasterize_polygons([star], 480, 640, rule=rule)
    assert time.perf_counter() - start < 5
    assert 100 * 100 < int(packed.area[0]) < 400 * 400
    if rule == "opencv":
        canvas = np.zeros((480, 640), np.uint8)
        cv2.fillPoly(canvas, [star.astype(np.int32)], 1)
        assert np.array_equal(packed.to_dense().numpy()[0], canvas.astype(bool))
    if rule == "coco":
        decoded = coco.decode(coco.frPyObjects([star.ravel().tolist()], 480, 640))[:, :, 0]
        assert np.array_equal(packed.to_dense().numpy()[0], decoded.astype(bool))


def test_registration():
    rng = np.random.default_rng(2)
    flat = gather([rng.random((5, 2)) * 30, [rng.random((4, 2)) * 30, rng.random((3, 2)) * 30]])
    truth = PackedMasks.from_dense(rng.random((3, 20, 30)) < 0.5)
    torch.library.opcheck(ops.draw, (*flat, 20, 30, "coco"))
    torch.library.opcheck(ops.draw_dense, (*flat, 20, 30, "opencv"))
    for index, skip in ((None, []), (torch.tensor([2, 0]), truth.parts)):
        masks = truth if index is not None else truth[:2]
        torch.library.opcheck(ops.polygon_counts, (*flat, masks.parts, index, skip, 30, "center"))
    apart = torch.stack([flat[0], flat[0]], dim=2)[:, :, 0]
    assert not apart.is_contiguous()
    assert torch.equal(ops.draw_dense(apart, *flat[1:], 20, 30, "coco"), ops.draw_dense(*flat, 20, 30, "coco"))


def test_compiles_into_one_graph():
    rng = np.random.default_rng(3)
    polygons = [torch.from_numpy(rng.random((5, 2)) * 30), [torch.from_numpy(rng.random((4, 2)) * 30)] * 2]
    truth = torch.from_numpy(rng.random((2, 20, 30)) < 0.5)

    def both(first, second, masks):
        objects = [first, [second, second]]
        return rasterize_polygons(objects, 20, 30, rule="center", out="dense"), polygon_iou(objects, masks)

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    arguments = (polygons[0], polygons[1][0], truth)
    for got, expected in zip(compiled(*arguments), both(*arguments), strict=True):
        assert torch.equal(got, expected)


GOOD = [(0, 0), (5, 0), (5, 4)]


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ([GOOD, [(0, 0), (1, 1)]], r"polygons\[1\], ring 0 has 2 vertices, expected at least 3"),
        ([GOOD, []], r"polygons\[1\], ring 0 has 0 vertices"),
        ([[GOOD, [0.0, 1.0, 2.0, 3.0]]], r"polygons\[0\], ring 1 has 2 vertices"),
        ([GOOD, [(0, 0), (1, float("nan")), (2, 2)]], r"polygons\[1\], ring 0: vertex 1 has the coordinate -?nan"),
        ([[(0, 0), (1, 1), (float("inf"), 2)]], r"polygons\[0\], ring 0: vertex 2 has the coordinate inf"),
        ([[(0, 0), (1e9, 1), (2, 2)]], r"polygons\[0\], ring 0: vertex 1 has the coordinate 1000000000"),
        ([[(0, 0), (1, 1), (2, 2, 2)]], r"polygons\[0\], ring 0 does not hold numbers"),
        ([GOOD, "abc"], r"polygons\[1\], ring 0 does not hold numbers"),
        ([GOOD, None], r"polygons\[1\], ring 0"),
        ([[1.0, 2.0, 3.0, 4.0, 5.0]], r"polygons\[0\], ring 0 must be \[n, 2\] or flat \[2 n\]"),
        ([np.zeros((3, 3))], r"polygons\[0\], ring 0 must be \[n, 2\] or flat \[2 n\], got \(3, 3\)"),
        (5, "polygons must be a list of objects, got int"),
    ],
)
def test_bad_polygons_are_named(polygons, message):
    for call in (
        lambda: rasterize_polygons(polygons, 8, 8),
        lambda: rasterize_polygons(polygons, 8, 8, out="dense", rule="opencv"),
        lambda: rasterize_polygons(polygons, 8, 8, out="rle", rule="center"),
        lambda: polygon_iou(
            polygons, np.zeros((1, 8, 8), bool), mask_index=[0] * (len(polygons) if polygons != 5 else 1)
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rasterize_polygons([GOOD], -1, 8), "height and width must not be negative, got -1 x 8"),
        (lambda: rasterize_polygons([GOOD], 10**6, 8), "height and width is too large"),
        (lambda: rasterize_polygons([GOOD], 8, 8.0), "height and width must be whole numbers, got 8 and 8.0"),
        (lambda: rasterize_polygons([GOOD], 8, 8, rule="svg"), "rule must be one of coco, opencv, center, got 'svg'"),
        (lambda: rasterize_polygons([GOOD], 8, 8, out="png"), "out must be one of packed, dense, rle, got 'png'"),
        (lambda: rasterize_polygons([GOOD], 8, 8, outline=True), 'outline=True needs rule="opencv"'),
        (lambda: polygon_iou([GOOD], np.zeros((2, 8, 8), bool)), "polygons and masks must be as many"),
        (lambda: polygon_iou([GOOD], np.zeros((2, 8, 8), bool), mask_index=[2]), r"mask_index\[0\] is 2"),
        (lambda: polygon_iou([GOOD], np.zeros((2, 8, 8), bool), mask_index=[-1]), r"mask_index\[0\] is -1"),
        (lambda: polygon_iou([GOOD], np.zeros((2, 8, 8), bool), mask_index=[0, 1]), r"mask_index must be \[N\]"),
        (lambda: polygon_iou([GOOD], np.zeros((2, 8, 8), bool), mask_index=[0.7]), "mask_index must be integers"),
        (lambda: polygon_iou([GOOD], np.zeros((2, 8, 8), bool), mask_index=[True]), "mask_index must be integers"),
        (lambda: polygon_iou([GOOD], np.zeros((1, 8, 8), bool), rule="x"), "rule must be one of"),
        (
            lambda: polygon_iou([GOOD], np.zeros((1, 8, 8), bool), ignore=np.zeros((1, 8, 9), bool)),
            "ignore must be one",
        ),
        (
            lambda: ops.draw(torch.zeros(4, 2).double(), torch.tensor([0, 9]), torch.tensor([0, 1]), 8, 8, "coco"),
            "ring_",
        ),
        (lambda: ops.draw(torch.zeros(4, 2).double(), torch.tensor([0, 4]), torch.tensor([0, 7]), 8, 8, "coco"), "obj"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rings_with_a_gradient_and_of_types_that_numpy_lacks():
    ring = torch.tensor(GOOD, dtype=torch.float64)
    expected = rasterize_polygons([ring], 8, 8, out="dense")
    for other in (ring.clone().requires_grad_(), ring.to(torch.bfloat16)):
        assert torch.equal(rasterize_polygons([other], 8, 8, out="dense"), expected)


def test_a_huge_image_and_a_far_polygon_cost_little():
    far = [(-9e6, -9e6), (9e6, -9e6), (9e6, 9e6), (-9e6, 9e6)]
    start = time.perf_counter()
    for rule in RULES:
        assert int(rasterize_polygons([far], 6000, 8000, rule=rule).area[0]) == 48_000_000
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("out", ["packed", "dense", "rle"])
def test_an_object_without_rings_is_refused_on_the_host(out):
    ring = [1.0, 1.0, 5.0, 1.0, 5.0, 5.0]
    with pytest.raises(ValueError, match=r"^polygons\[1\]"):
        rasterize_polygons([[ring], []], 8, 8, out=out)
