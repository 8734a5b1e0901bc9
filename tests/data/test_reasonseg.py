"""ReasonSeg folders: what is drawn, how text is read, and what is refused by file and field."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpad_fast._mask_geometry import box_of, inscribed_points
from dpad_fast.clip.images import Picture
from dpad_fast.data import reasonseg

cv2 = pytest.importorskip("cv2")

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
OBJECT = {"label": "target", "points": SQUARE}


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


@pytest.mark.parametrize(
    ("shapes", "why"),
    [
        ([{"label": "ignore", "points": SQUARE}], "it labels none"),
        ([], "it labels none"),
        ([{"label": "target", "points": [[50, 2], [60, 2], [60, 9]]}], "its 1 target shapes lie off the picture"),
        ([{"label": label, "points": SQUARE} for label in ("ignore", "target")], "its 1 target shapes"),
    ],
)
def test_no_target_pixel_leaves_no_box_and_names_the_file(tmp_path, shapes, why):
    write(tmp_path, text=["a"], shapes=shapes)
    with pytest.warns(UserWarning, match=r"a\.json: no pixel is target \(" + why):
        (sample,) = reasonseg.load(tmp_path)
    assert sample.target.box is None
    assert sample.target.points is None
    ignored = sum(s["label"] == "ignore" for s in shapes)
    assert (0 if sample.target.ignore is None else sample.target.ignore.sum()) == 49 * ignored


def test_exif_orientation_turns_the_picture(tmp_path):
    write(tmp_path, size=(20, 10), text=["a"], shapes=[{"label": "target", "points": SQUARE}])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    (sample,) = reasonseg.load(tmp_path)
    assert sample.target.image_size == (10, 20)
    assert Picture(sample.image, "a").pixels().shape == (20, 10, 3)


def stored(folder, query, encoding, mark=b""):
    write(folder)
    raw = mark + json.dumps({"text": [query], "shapes": [OBJECT]}, ensure_ascii=False).encode(encoding)
    (folder / "a.json").write_bytes(raw)
    return raw


@pytest.mark.parametrize(
    ("query", "encoding"),
    [
        ("caf\u00e9 \u7ea2\u8272", "utf-8"),
        ("caf\u00e9 \u7ea2\u8272", "utf-8-sig"),
        ("caf\u00e9 \u7ea2\u8272", "utf-16"),
        ("caf\u00e9 \u7ea2\u8272", "utf-32"),
        # Some published files are like this: only punctuation depends on the encoding.
        ("the dog\u2019s \u201cbed\u201d \u2013 or not\u2026", "cp1252"),
    ],
)
def test_text_is_read_as_it_was_written(tmp_path, query, encoding):
    stored(tmp_path, query, encoding)
    assert next(iter(reasonseg.load(tmp_path))).query == query


@pytest.mark.parametrize(
    ("query", "encoding"),
    [
        ("\u6905\u5b50", "gbk"),
        ("a \u7ea2 chair", "gbk"),
        ("\u6905\u5b50", "big5"),
        ("\u3044\u3059", "shift-jis"),
        ("\u0441\u0442\u0443\u043b", "cp1251"),
        ("caf\u00e9", "cp1252"),
    ],
)
def test_text_that_may_be_anything_is_refused_with_its_place(tmp_path, query, encoding):
    raw = stored(tmp_path, query, encoding)
    offset = next(i for i, byte in enumerate(raw) if byte >= 0x80)
    with pytest.raises(ValueError, match=rf"a\.json: not valid UTF-8: byte 0x{raw[offset]:02x} at offset {offset};"):
        list(reasonseg.load(tmp_path))
    assert next(iter(reasonseg.load(tmp_path, encoding=encoding))).query == query


def test_one_bad_byte_is_refused_with_its_place(tmp_path):
    raw = stored(tmp_path, "\u6905\u5b50 x", "utf-8")
    at = raw.index(b" x")
    for bad in (b"\xff", b"\x92"):  # the second alone would pass for a quote of cp1252
        (tmp_path / "a.json").write_bytes(raw[:at] + bad + raw[at:])
        with pytest.raises(ValueError, match=rf"a\.json: not valid UTF-8: byte 0x{bad[0]:02x} at offset {at};"):
            list(reasonseg.load(tmp_path))


def test_encodings_that_do_not_fit_are_named(tmp_path):
    stored(tmp_path, "\u6905\u5b50", "gbk")
    with pytest.raises(ValueError, match=r"a\.json: cannot be read as ascii: .* position"):
        list(reasonseg.load(tmp_path, encoding="ascii"))
    with pytest.raises(ValueError, match="encoding must be the name of a text encoding, got 'klingon'"):
        reasonseg.load(tmp_path, encoding="klingon")
    stored(tmp_path, "x", "utf-8", mark=b"\xff\xfe")
    with pytest.raises(ValueError, match=r"a\.json: (cannot be read as utf-16|not valid JSON)"):
        list(reasonseg.load(tmp_path))


@pytest.mark.parametrize("size", [(20, 10), (20.0, 10.0), (None, None), (20, None), ()])
def test_sizes_that_are_the_pictures_or_absent(tmp_path, size):
    write(tmp_path, text=["a"], shapes=[OBJECT], **dict(zip(("imageWidth", "imageHeight"), size, strict=False)))
    assert next(iter(reasonseg.load(tmp_path))).target.image_size == (20, 10)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((40, 20), r"a\.json: imageWidth x imageHeight is 40 x 20, but the picture beside it is 20 x 10$"),
        ((20, 11), r"imageWidth x imageHeight is 20 x 11, but the picture beside it is 20 x 10$"),
        ((10, 20), r"is 10 x 20, but the picture beside it is 20 x 10 \(turned as its EXIF orientation says\)"),
        (("20", 10), r"a\.json: imageWidth must be a number or null, got '20'"),
        ((20, True), r"a\.json: imageHeight must be a number or null, got True"),
    ],
)
def test_sizes_that_are_not_the_pictures_are_named(tmp_path, size, message):
    write(tmp_path, text=["a"], shapes=[OBJECT], imageWidth=size[0], imageHeight=size[1])
    with pytest.raises(ValueError, match=message):
        list(reasonseg.load(tmp_path))


def test_sizes_of_turned_pictures_are_those_after_turning(tmp_path):
    """labelme writes sizes of the turned picture; the unturned size would mean shapes of the unturned picture."""
    write(tmp_path, text=["a"], shapes=[OBJECT], imageWidth=10, imageHeight=20)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert next(iter(reasonseg.load(tmp_path))).target.image_size == (10, 20)
    content = {"text": ["a"], "shapes": [OBJECT], "imageWidth": 20, "imageHeight": 10}
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"is 20 x 10, but the picture beside it is 10 x 20 \(turned as its EXIF"):
        list(reasonseg.load(tmp_path))


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


def test_coordinates_in_0_to_1_name_the_file(tmp_path):
    write(tmp_path, text=["a"], shapes=[{"label": "target", "points": [[0, 0], [1, 0], [1, 1], [0, 1]]}])
    with pytest.raises(ValueError, match=r"a\.json: polygons lie within one pixel of the 20x10 picture"):
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


def test_samples_by_id_read_only_what_they_need(tmp_path):
    from dpad_fast.data import shapes

    shapes.export_reasonseg(tmp_path, seed=4, count=3)
    several = json.loads((tmp_path / "shapes-4-1.json").read_text())
    (tmp_path / "shapes-4-1.json").write_text(json.dumps({**several, "text": ["first", "second", "third"]}))
    (tmp_path / "broken.json").write_text("{")
    whole = ["shapes-4-0", "shapes-4-1-0", "shapes-4-1-1", "shapes-4-1-2", "shapes-4-2"]
    names, broken = reasonseg.list_ids(tmp_path)
    assert names == whole
    assert len(broken) == 1
    assert "broken.json: not valid JSON" in broken[0]
    wanted = ["shapes-4-2", "shapes-4-1-2", "no-such", "../shapes-4-0", "shapes-4-2"]
    found = reasonseg.find(tmp_path, wanted)
    assert list(found) == ["shapes-4-2", "shapes-4-1-2"]
    assert found["shapes-4-1-2"].query == "third"
    (tmp_path / "broken.json").unlink()
    for sample in reasonseg.load(tmp_path):
        (same,) = reasonseg.find(tmp_path, [sample.id]).values()
        assert (same.id, same.query, same.image) == (sample.id, sample.query, sample.image)
        assert np.array_equal(same.target.mask, sample.target.mask)
    (tmp_path / "shapes-4-2.png").write_bytes(b"x")
    assert list(reasonseg.find(tmp_path, ["shapes-4-0"])) == ["shapes-4-0"]
    with pytest.raises(ValueError, match=r"shapes-4-2\.png"):
        reasonseg.find(tmp_path, ["shapes-4-2"])
