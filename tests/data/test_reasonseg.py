import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpad_fast.data import reasonseg
from dpad_fast.data.geometry import box_of, inscribed_points
from dpad_fast.rewards.images import Picture

MINI = Path(__file__).parents[2].parent / "shared" / "data" / "reasonseg-mini"


def drawn_by_opencv(shapes, height, width):
    """The data set's own procedure, with OpenCV: larger areas first, ties in reverse order of the file."""

    def paint(canvas, points, value):
        cv2.polylines(canvas, np.array([points], np.int32), True, value, 1)
        cv2.fillPoly(canvas, np.array([points], np.int32), value)

    kept = [(label, points) for label, points in shapes if label.lower() != "flag"]
    areas = []
    for _, points in kept:
        canvas = np.zeros((height, width), np.uint8)
        paint(canvas, points, 1)
        areas.append(int(canvas.sum()))
    out = np.zeros((height, width), np.uint8)
    for i in np.argsort(areas, kind="stable")[::-1]:
        paint(out, kept[i][1], 255 if "ignore" in kept[i][0].lower() else 1)
    return out


def write(folder, name="a", size=(20, 10), **content):
    Image.new("RGB", size).save(folder / f"{name}.jpg")
    (folder / f"{name}.json").write_text(json.dumps(content))


SQUARE = [[2, 2], [8, 2], [8, 8], [2, 8]]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_drawing_is_that_of_the_data_set(data):
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    number = st.one_of(st.integers(-10, 50).map(float), st.floats(-10, 50, width=32))
    points = st.lists(st.tuples(number, number), min_size=1, max_size=8)
    label = st.sampled_from(["target", "ignore", "Ignore_2", "flag", "Flag"])
    shapes = data.draw(st.lists(st.tuples(label, points), max_size=4))
    ours = reasonseg.draw([(name, np.array(ring)) for name, ring in shapes], height, width)
    assert np.array_equal(ours, drawn_by_opencv(shapes, height, width))


@pytest.mark.skipif(not MINI.is_dir(), reason="the shared sample data is not beside this checkout")
def test_mini_set():
    samples = list(reasonseg.load(MINI))
    assert [s.id for s in samples] == sorted(p.stem for p in MINI.glob("*.json"))
    for sample in samples:
        content = json.loads((MINI / f"{sample.id}.json").read_text())
        width, height = sample.target.image_size
        expected = drawn_by_opencv([(s["label"], s["points"]) for s in content["shapes"]], height, width)
        assert np.array_equal(sample.target.mask, expected == 1)
        has_ignore = any("ignore" in s["label"] for s in content["shapes"])
        assert (sample.target.ignore is not None) == has_ignore
        assert not has_ignore or np.array_equal(sample.target.ignore, expected == 255)
        assert sample.query == content["text"][0]
        ys, xs = np.nonzero(sample.target.mask)
        assert sample.target.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        for x, y in sample.target.points:
            assert sample.target.mask[int(y), int(x)]


def test_several_queries_share_one_target(tmp_path):
    write(tmp_path, text=["a", "b"], is_sentence=False, shapes=[{"label": "target", "points": SQUARE}])
    first, second = reasonseg.load(tmp_path)
    assert (first.id, first.query, second.id, second.query) == ("a-0", "a", "a-1", "b")
    assert first.target is second.target
    assert first.target.box == (2, 2, 9, 9)
    assert first.target.ignore is None


def test_only_ignored_pixels_leave_no_box(tmp_path):
    write(tmp_path, text=["a"], shapes=[{"label": "ignore", "points": SQUARE}])
    (sample,) = reasonseg.load(tmp_path)
    assert sample.target.box is None
    assert sample.target.points is None
    assert sample.target.ignore.sum() == 49


def test_exif_orientation_turns_the_picture(tmp_path):
    write(tmp_path, size=(20, 10), text=["a"], shapes=[{"label": "target", "points": SQUARE}])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    (sample,) = reasonseg.load(tmp_path)
    assert sample.target.image_size == (10, 20)
    assert Picture(sample.image, "a").pixels().shape == (20, 10, 3)


def test_cp1252_files_are_read(tmp_path):
    write(tmp_path, text=["x"], shapes=[{"label": "target", "points": SQUARE}])
    raw = json.dumps({"text": ["caf\u00e9"], "shapes": []}, ensure_ascii=False).encode("cp1252")
    (tmp_path / "a.json").write_bytes(raw)
    assert next(iter(reasonseg.load(tmp_path))).query == "caf\u00e9"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"a\.json: expected an object"),
        ("{", r"a\.json: not valid JSON"),
        ("[" * 100_000, r"a\.json: not valid JSON"),
        ('{"shapes": []}', r"a\.json: text must be"),
        ('{"text": [], "shapes": []}', r"a\.json: text must be"),
        ('{"text": [1], "shapes": []}', r"a\.json: text must be"),
        ('{"text": ["q"]}', r"a\.json: shapes must be a list"),
        ('{"text": ["q"], "shapes": [{}]}', r"shapes\[0\]\.label"),
        ('{"text": ["q"], "shapes": [{"label": "target", "points": []}]}', r"shapes\[0\]\.points must"),
        ('{"text": ["q"], "shapes": [{"label": "target", "points": [[1, 2], [1]]}]}', r"shapes\[0\]\.points\[1\]"),
        ('{"text": ["q"], "shapes": [{"label": "target", "points": [[NaN, 2]]}]}', r"shapes\[0\]\.points\[0\]"),
        ('{"text": ["q"], "shapes": [{"label": "target", "points": [[1e99, 2]]}]}', r"shapes\[0\]\.points\[0\]"),
        ('{"text": ["q"], "shapes": [{"label": "target", "points": [["1", 2]]}]}', r"shapes\[0\]\.points\[0\]"),
    ],
)
def test_bad_files_are_named(tmp_path, content, message):
    write(tmp_path)
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        list(reasonseg.load(tmp_path))


def test_missing_things_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no \.json"):
        reasonseg.load(tmp_path)
    with pytest.raises(ValueError, match="not a directory"):
        reasonseg.load(tmp_path / "nowhere")
    (tmp_path / "a.json").write_text('{"text": ["q"], "shapes": []}')
    with pytest.raises(ValueError, match=r"a\.json: no picture"):
        list(reasonseg.load(tmp_path))
    (tmp_path / "a.jpg").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"a\.jpg cannot be opened as an image"):
        list(reasonseg.load(tmp_path))


def test_points_of_a_dumbbell_lie_in_its_two_ends():
    mask = np.zeros((21, 60), bool)
    mask[0:21, 0:21] = mask[8:12, 20:45] = True
    mask[3:17, 44:59] = True
    assert inscribed_points(mask) == ((10.0, 10.0), (50.0, 9.0))
    assert box_of(mask) == (0.0, 0.0, 59.0, 21.0)


def test_points_of_a_single_pixel_and_of_nothing():
    mask = np.zeros((5, 5), bool)
    assert inscribed_points(mask) is None
    assert box_of(mask) is None
    mask[2, 3] = True
    assert inscribed_points(mask) == ((3.0, 2.0), (3.0, 2.0))
