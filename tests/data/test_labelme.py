"""labelme's shapes: the pixels that labelme draws, which are Pillow's, or a refusal with file and index."""

import base64
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from dpad_fast.data import labelme, reasonseg

HEIGHT, WIDTH = 90, 120


def drawn_by_labelme(kind, points, height=HEIGHT, width=WIDTH):
    """What labelme 6.3 asks of Pillow."""
    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    xy = [tuple(point) for point in points]
    (x, y), (u, v) = xy[0], xy[-1]
    if kind == "rectangle":
        draw.rectangle([min(x, u), min(y, v), max(x, u), max(y, v)], fill=1, outline=1)
    elif kind in ("line", "linestrip"):
        draw.line(xy, fill=1, width=10)
    else:
        r = 5 if kind == "point" else math.hypot(u - x, v - y)
        draw.ellipse([x - r, y - r, x + r, y + r], fill=1, outline=1)
    return np.asarray(canvas) != 0


def png_of(mask, mode="L"):
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def load(folder, *shapes):
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "a.png")
    (folder / "a.json").write_text(json.dumps({"text": ["q"], "shapes": shapes}))
    (sample,) = reasonseg.load(folder)
    return sample.target


def shape(kind, points, label="target", **more):
    return {"label": label, "shape_type": kind, "points": points, **more}


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_shapes_are_labelmes(data):
    kind = data.draw(st.sampled_from(["rectangle", "circle", "line", "linestrip", "point"]))
    number = st.one_of(st.integers(-20, 130).map(float), st.floats(-20, 130, width=32))
    least, most = {"point": (1, 1), "linestrip": (2, 6)}.get(kind, (2, 2))
    points = [list(p) for p in data.draw(st.lists(st.tuples(number, number), min_size=least, max_size=most))]
    read = labelme.read(json.loads(json.dumps(shape(kind, points))), "a")
    ours = reasonseg.draw([("target", read.region(HEIGHT, WIDTH))], HEIGHT, WIDTH)
    assert np.array_equal(ours == 1, drawn_by_labelme(kind, points))


def test_a_rectangle_is_not_its_diagonal(tmp_path):
    target = load(tmp_path, shape("rectangle", [[10, 10], [50, 60]]))
    assert target.mask.sum() == 41 * 51 == 2091
    assert target.box == (10, 10, 51, 61)
    assert target.polygons[0].tolist() == [[10, 10], [50, 10], [50, 60], [10, 60]]
    for points in ([[50, 60], [10, 10]], [[10, 60], [50, 10]], [[10, 10], [50, 10], [50, 60], [10, 60]]):
        assert load(tmp_path, shape("rectangle", points)).mask.sum() == 2091
    assert load(tmp_path, shape("oriented_rectangle", [[10, 10], [50, 10], [50, 60], [10, 60]])).mask.sum() == 2091


def test_a_circle_is_a_disc(tmp_path):
    target = load(tmp_path, shape("circle", [[60, 45], [60, 65]]))
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    away = np.hypot(xs - 60, ys - 45)
    assert target.mask[away < 19.5].all()
    assert not target.mask[away > 20.8].any()
    assert target.polygons is None
    assert target.points[0] == (60, 45)


def test_lines_and_points_have_labelmes_width(tmp_path):
    assert load(tmp_path, shape("line", [[10, 30], [59, 30]])).mask.sum() == 50 * 10
    assert load(tmp_path, shape("linestrip", [[10, 30], [40, 30], [59, 30]])).mask.sum() == 50 * 10
    assert load(tmp_path, shape("point", [[30, 30]])).box == (25, 25, 36, 36)


@pytest.mark.parametrize("mode", ["L", "1"])
def test_a_mask_lies_in_its_box(tmp_path, mode):
    inside = np.random.default_rng(0).random((7, 13)) < 0.5
    target = load(tmp_path, shape("mask", [[20.6, 30.2], [32.6, 36.9]], mask=png_of(inside, mode)))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[30:37, 20:33] = inside
    assert np.array_equal(target.mask, expected)


@pytest.mark.parametrize("kind", [None, "polygon"])
def test_polygons_stay_reasonsegs(tmp_path, kind):
    ring = [[10.6, 10.6], [50.9, 12.2], [33.3, 60.7]]
    target = load(tmp_path, shape(kind, ring))
    alone = {"label": "target", "points": ring}
    assert np.array_equal(target.mask, load(tmp_path, alone).mask)
    assert np.array_equal(target.polygons[0], np.array(ring))


def test_smaller_shapes_lie_on_larger_ones_of_any_kind(tmp_path):
    box, hole = shape("rectangle", [[10, 10], [80, 80]]), shape("circle", [[40, 40], [40, 50]], "ignore")
    for shapes in ((box, hole), (hole, box)):
        target = load(tmp_path, *shapes)
        disc = drawn_by_labelme("circle", hole["points"])
        assert np.array_equal(target.ignore, disc)
        assert target.mask.sum() == 71 * 71 - disc.sum()
    assert len(target.polygons) == 1


PNG = png_of(np.ones((7, 13)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (shape("points", [[1, 2], [3, 4]]), r"shape_type must be one of polygon, .*, got 'points'"),
        (shape("ellipse", [[1, 2], [3, 4]]), r"shape_type must be one of polygon, .*, got 'ellipse'"),
        (shape(5, [[1, 2], [3, 4]]), r"shape_type must be one of polygon, .*, got 5"),
        (shape(["polygon"], [[1, 2], [3, 4]]), r"shape_type must be one of polygon, .*, got \['polygon'\]"),
        (shape("rectangle", [[1, 2]]), r"points: a rectangle has 2 corners \(or 4\), got 1"),
        (shape("rectangle", [[1, 2]] * 3), r"points: a rectangle has 2 corners \(or 4\), got 3"),
        (shape("oriented_rectangle", [[1, 2]] * 2), "points: a oriented_rectangle has 4 corners, got 2"),
        (shape("circle", [[1, 2]] * 3), "points: a circle has 2 points, its centre and one of its rim, got 3"),
        (shape("circle", [[0, 0], [1e7, 0]]), "points: a circle of radius 1e[+]07 is larger than any picture"),
        (shape("line", [[1, 2]]), "points: a line has 2 points, got 1"),
        (shape("linestrip", [[1, 2]]), "points: a linestrip has at least 2 points, got 1"),
        (shape("point", [[1, 2]] * 2), "points: a point has 1 point, got 2"),
        (shape("mask", [[20, 30], [32, 36]]), "mask must be a PNG in base64, got None"),
        (shape("mask", [[20, 30], [32, 36]], mask="\u00e9"), "mask must be a PNG in base64"),
        (shape("mask", [[20, 30], [32, 36]], mask="abcd"), "mask is not a readable PNG"),
        (shape("mask", [[20, 30], [32, 36]], mask=PNG[:60]), "mask is not a readable PNG"),
        (shape("mask", [[20, 30], [31, 36]], mask=PNG), r"mask is L of 13 x 7, expected .* 12 x 7"),
        (shape("mask", [[20, 30], [32, 36]], mask=png_of(np.ones((7, 13)), "RGB")), "mask is RGB of 13 x 7"),
        (
            shape("mask", [[110, 30], [122, 36]], mask=PNG),
            r"points: .*\[110.0, 30.0\], .* not in the picture, 120 x 90",
        ),
        (shape("mask", [[-2, 30], [10, 36]], mask=PNG), "points: .* is not in the picture"),
        (shape("mask", [[32, 36], [20, 30]], mask=PNG), "points: .* is not in the picture"),
    ],
)
def test_what_labelme_does_not_draw_is_named(tmp_path, bad, message):
    with pytest.raises(ValueError, match=r"a\.json: shapes\[1\]\." + message):
        load(tmp_path, shape("polygon", [[1, 1], [9, 1], [9, 9]]), bad)


def test_far_and_huge_shapes_end():
    for kind, points in (
        ("circle", [[0, 0], [60000, 0]]),
        ("line", [[-1e7, -1e7], [1e7, 1e7]]),
        ("point", [[-1e7, 5]]),
    ):
        region = labelme.read(shape(kind, points), "a").region(HEIGHT, WIDTH)
        assert region.shape == (HEIGHT, WIDTH)
