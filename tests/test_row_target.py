"""`Target.from_row`: every way in which a row may hold its truth, and what is said where none can be read."""

import io
import json
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

import dpad_fast as df
from dpad_fast import coco_mask
from dpad_fast._mask_geometry import box_of, inscribed_points
from dpad_fast.ops.polygons import rasterize_polygons

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")

SIZE = (60, 40)
MASK = np.zeros((40, 60), bool)
MASK[5:20, 10:50] = True
MASK[15:35, 10:20] = True
BOX, POINTS = box_of(MASK), inscribed_points(MASK)
SOLUTION = "<box>(10,5),(50,35)</box><points>(15,12),(30,10)</points>"
RLE = coco_mask.encode(np.asfortranarray(MASK))
RUNS = {"size": [40, 60], "counts": RLE["counts"].decode()}
RING = [(10.0, 5.0), (50.0, 5.0), (50.0, 35.0), (10.0, 35.0)]
FLAT = [value for point in RING for value in point]
Named = namedtuple("Named", ["box", "points"])


def png(mask, mode="L"):
    out = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).convert(mode).save(out, "PNG")
    return out.getvalue()


def uncompressed(mask):
    flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
    ends = np.flatnonzero(np.diff(flat))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], ends])).tolist()}


def refused(row, columns=None, size=None):
    with pytest.raises(ValueError, match=r"\w") as told:
        df.Target.from_row(row, columns, size)
    return str(told.value)


@pytest.mark.parametrize(
    "box",
    [
        (10, 5, 50, 35),
        [10.0, 5, 50, 35],
        np.array([10, 5, 50, 35]),
        np.array([10, 5, 50, 35], object),
        torch.tensor([10, 5, 50, 35]),
        pa.scalar([10, 5, 50, 35]),
        "[10, 5, 50, 35]",
        "10,5,50,35",
        "(10, 5), (50, 35)".replace("), (", ", "),
        "10 5 50 35",
    ],
    ids=lambda box: type(box).__name__,
)
def test_a_box_in_every_dress(box):
    assert df.Target.from_row({"box": box}, image_size=SIZE).box == (10, 5, 50, 35)


@pytest.mark.parametrize(
    ("numbers", "box_format", "space"),
    [
        ((10, 5, 50, 35), "xyxy", "pixel"),
        ((10, 5, 40, 30), "xywh", "pixel"),
        ((30, 20, 40, 30), "cxcywh", "pixel"),
        ((10 / 60 * 1000, 5 / 40 * 1000, 50 / 60 * 1000, 35 / 40 * 1000), "xyxy", "0-1000"),
        ((10 / 60 * 1000, 5 / 40 * 1000, 40 / 60 * 1000, 30 / 40 * 1000), "xywh", "0-1000"),
        ((0.5, 0.5, 40 / 60, 30 / 40), "cxcywh", "0-1"),
    ],
)
@pytest.mark.parametrize("given", ["argument", "columns", "picture", "file"])
def test_formats_and_spaces_come_to_the_same_corners(numbers, box_format, space, given, tmp_path):
    columns = {"box": "b", "box_format": box_format, "space": space, "other_boxes": "o"}
    row = {"b": list(numbers), "o": [list(numbers)]}
    size = None
    if given == "argument":
        size = SIZE
    elif given == "columns":
        row |= {"w": "60", "h": 40.0}
        columns |= {"width": "w", "height": "h"}
    else:
        picture = Image.new("RGB", SIZE)
        picture.save(tmp_path / "p.png")
        row["i"], columns["image"] = picture if given == "picture" else str(tmp_path / "p.png"), "i"
    target = df.Target.from_row(row, df.Columns(**columns), size)
    assert target.box == pytest.approx((10, 5, 50, 35))
    assert target.other_boxes[0] == pytest.approx((10, 5, 50, 35))


def test_points_and_rings_are_in_the_space_too():
    row = {"p": [[500, 500], [250, 750]], "r": [[[0, 0], [1000, 0], [1000, 1000], [0, 1000]]]}
    target = df.Target.from_row(row, df.Columns(points="p", polygons="r", space="0-1000"), SIZE)
    assert target.points == ((30, 20), (15, 30))
    assert target.polygons[0].tolist() == [[0, 0], [60, 0], [60, 40], [0, 40]]
    assert target.box == (0, 0, 60, 40)


def test_the_numbers_of_a_solution_in_another_space_become_pixels_and_its_text_is_dropped():
    row = {"solution": "<box>(100,200),(500,800)</box><points>(300,400),(400,600)</points>"}
    target = df.Target.from_row(row, df.Columns(solution="solution", space="0-1000"), SIZE)
    assert (target.box, target.points, target.text) == ((6, 8, 30, 32), ((18, 16), (24, 24)), "")
    row = {"solution": '[{"bbox_2d": [100, 200, 500, 800], "point_2d": [300, 400]}]'}
    target = df.Target.from_row(row, df.Columns(solution="solution", space="0-1000"), SIZE)
    assert (target.objects, target.text) == ((((6, 8, 30, 32), (18, 16)),), "")


@pytest.mark.parametrize(
    "mask",
    [
        MASK,
        MASK.astype(np.uint8),
        MASK.astype(int).tolist(),
        torch.from_numpy(MASK),
        np.array([list(row) for row in MASK] + [None], object)[:-1],
        Image.fromarray(MASK.astype(np.uint8) * 255),
        png(MASK),
        png(MASK, "1"),
        memoryview(png(MASK)),
        {"bytes": png(MASK), "path": None},
        RLE,
        RUNS,
        json.dumps(RUNS),
        uncompressed(MASK),
        json.dumps(uncompressed(MASK)),
        {"size": np.array([40, 60]), "counts": np.array(uncompressed(MASK)["counts"])},
    ],
    ids=lambda mask: type(mask).__name__,
)
def test_a_mask_in_every_dress_gives_box_and_points(mask):
    target = df.Target.from_row({"mask": mask})
    assert target.mask.dtype == bool
    assert np.array_equal(target.mask, MASK)
    assert (target.box, target.points, target.image_size) == (BOX, POINTS, SIZE)
    ignored = df.Target.from_row({"box": [1, 2, 3, 4], "ignore": mask})
    assert np.array_equal(ignored.ignore, MASK)


def test_a_mask_is_read_from_a_file(tmp_path):
    (tmp_path / "m.png").write_bytes(png(MASK))
    for path in (tmp_path / "m.png", str(tmp_path / "m.png"), {"bytes": None, "path": str(tmp_path / "m.png")}):
        assert np.array_equal(df.Target.from_row({"mask": path}).mask, MASK)


def test_an_empty_mask_has_neither_box_nor_points():
    target = df.Target.from_row({"mask": np.zeros((4, 5), bool)})
    assert (target.box, target.points, target.image_size) == (None, None, (5, 4))


@pytest.mark.parametrize(
    "polygons",
    [
        [RING],
        RING,
        [FLAT],
        FLAT,
        np.array([RING]),
        np.array(RING),
        json.dumps([FLAT]),
        [np.array(FLAT)],
        np.array([np.array([np.array(point) for point in RING] + [None], object)[:-1], None], object)[:-1],
    ],
)
def test_rings_in_every_dress_give_box_and_points(polygons):
    target = df.Target.from_row({"polygons": polygons}, image_size=SIZE)
    assert [ring.tolist() for ring in target.polygons] == [list(map(list, RING))]
    whole = np.zeros((40, 60), bool)
    whole[5:35, 10:50] = True
    assert (target.box, target.points) == (box_of(whole), inscribed_points(whole))


def test_what_is_derived_of_rings_is_of_what_the_scorer_draws():
    rings = [np.array([[3, 4], [30.5, 8.2], [12, 33.3]]), np.array([[25, 20], [55, 22], [40, 39.9], [20, 30]])]
    target = df.Target.from_row({"polygons": rings}, image_size=SIZE)
    drawn = rasterize_polygons([rings], 40, 60, rule="coco", out="dense")[0].numpy()
    assert (target.box, target.points) == (box_of(drawn), inscribed_points(drawn))


def test_coco_segmentation_is_rings_or_run_lengths_and_its_bbox_corner_and_size():
    row = {"segmentation": [FLAT], "bbox": [10, 5, 40, 30], "iscrowd": 0}
    target = df.Target.from_row(row, image_size=SIZE)
    assert (target.box, len(target.polygons), target.mask) == ((10, 5, 50, 35), 1, None)
    target = df.Target.from_row({"segmentation": RUNS, "bbox": [10, 5, 40, 30]})
    assert np.array_equal(target.mask, MASK)
    assert target.polygons is None


@pytest.mark.parametrize(
    "objects",
    [
        [{"bbox_2d": [1, 2, 3, 4], "point_2d": [2, 3]}, {"bbox_2d": [5, 6, 9, 9], "point_2d": [7, 7]}],
        (((1, 2, 3, 4), (2, 3)), ((5, 6, 9, 9), (7, 7))),
        {"bbox_2d": [[1, 2, 3, 4], [5, 6, 9, 9]], "point_2d": [[2, 3], [7, 7]]},
        '[{"bbox_2d": [1, 2, 3, 4], "point_2d": [2, 3]}, {"bbox_2d": [5, 6, 9, 9], "point_2d": [7, 7]}]',
    ],
)
def test_several_objects(objects):
    target = df.Target.from_row({"objects": objects})
    assert target.objects == (((1, 2, 3, 4), (2, 3)), ((5, 6, 9, 9), (7, 7)))
    with_mask = df.Target.from_row({"objects": objects, "mask": MASK})
    assert (with_mask.box, with_mask.points) == (None, None)


@pytest.mark.parametrize(
    "row",
    [
        {"solution": SOLUTION},
        {"problem": "x", "solution": SOLUTION, "ground_truth": SOLUTION},
        {"data_source": "d", "reward_model": {"style": "rule", "ground_truth": SOLUTION}},
        {"extra_info": {"solution": SOLUTION, "index": 3}},
        {"label": SOLUTION},
        {"solution": SOLUTION, "box": (10, 5, 50, 35), "points": [[15, 12], [30, 10]], "mask": None},
        pd.Series({"solution": SOLUTION, "mask": float("nan"), "box": pd.NA, "points": pd.NaT}),
    ],
)
def test_the_solution_of_every_trainer(row):
    target = df.Target.from_row(row, image_size=SIZE)
    parsed = df.Target.parse(SOLUTION, SIZE)
    assert (target.box, target.points, target.text) == (parsed.box, parsed.points, SOLUTION)
    assert (target.mask, target.objects, target.image_size) == (None, (), SIZE)


def test_rows_that_are_no_dictionaries():
    assert df.Target.from_row(Named((1, 2, 3, 4), None)).box == (1, 2, 3, 4)
    frame = pd.DataFrame({"x1": [1], "y1": [2], "x2": [3], "y2": [4.5]})
    assert df.Target.from_row(frame.iloc[0]).box == (1, 2, 3, 4.5)
    row = {"left": "1", "top": "2", "w": "3", "h": "4"}
    four = df.Columns(box=("left", "top", "w", "h"), box_format="xywh")
    assert df.Target.from_row(row, four).box == (1, 2, 4, 6)


def test_points_flat_or_as_text():
    for points in ([1, 2, 3, 4], "(1,2),(3,4)", "[[1, 2], [3, 4]]", np.array([[1, 2], [3, 4]]), np.arange(1, 5)):
        assert df.Target.from_row({"points": points}).points == ((1, 2), (3, 4))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "row has no ground truth under a known name (solution: solution, ground_truth"),
        ({"a": 1, "b": 2}, "it has 'a', 'b'. Name its columns"),
        ({"box": None, "mask": float("nan")}, "row has no ground truth under a known name"),
        ({"box": [1, 2, 3, 4], "bbox_2d": [1, 2, 3, 4]}, "'box' and 'bbox_2d', which may both be the box"),
        ({"bbox": [1, 2, 3, 4]}, "'bbox', which may be two corners or COCO's corner and size"),
        ({"solution": SOLUTION, "ground_truth": "<box>(1,2),(3,4)</box>"}, "which may both be the solution"),
        ({"solution": SOLUTION, "box": (10, 5, 50, 36)}, "box is (10.0, 5.0, 50.0, 36.0) (column 'box') but the"),
        ({"box": "1234"}, "box must hold 4 finite numbers, got [1234]"),
        ({"box": "one"}, "box is text that is neither JSON nor numbers: 'one'"),
        ({"box": [1, 2, float("nan"), 4]}, "box must hold 4 finite numbers"),
        ({"box": [[1, 2, 3, 4]]}, "box must hold 4 numbers"),
        ({"points": [[1, 2]]}, "points must hold two (x, y) points, got 1"),
        ({"points": [1, 2, 3]}, "points must hold 4 finite numbers"),
        ({"points": [[1, 2], None]}, "points[1] must hold 2 numbers"),
        ({"mask": "gone.png"}, "mask cannot be opened as an image: No such file"),
        ({"mask": b"noise"}, "mask cannot be opened as an image"),
        ({"mask": {}}, "mask is a dictionary with neither counts, bytes nor path"),
        ({"mask": "{not json"}, "mask is text that is neither JSON nor numbers"),
        ({"mask": {"size": [40, 60], "counts": "zz"}}, "mask has run lengths that cannot be read"),
        ({"mask": {"size": [4, 6], "counts": [3]}}, "mask has run lengths that cannot be read: counts add up to 3"),
        ({"mask": {"size": [60000, 60000], "counts": [3600000000]}}, "size is too large: at most 2^28 pixels"),
        ({"mask": {"size": "4x6", "counts": [24]}}, "size must hold 2 numbers"),
        ({"mask": {"counts": "1"}}, "size must hold 2 numbers, got None"),
        ({"mask": 3}, "mask must be [height, width], got 0 dimensions"),
        ({"mask": np.full((2, 2), 0.5)}, "mask[0, 0] is 0.5"),
        ({"polygons": []}, "polygons holds no ring"),
        ({"polygons": [[1, 2, 3]], "width": 9, "height": 9}, "polygons[0] holds 3 numbers"),
        ({"polygons": [RING]}, "image_size is needed, or columns width and height, or one picture"),
        ({"polygons": [[(900, 900), (910, 900), (910, 910)]], "width": 9, "height": 9}, "polygons lie outside"),
        ({"polygons": "x"}, "polygons is text"),
        ({"objects": [{"bbox": [1, 2, 3, 4]}]}, "objects[0] must have bbox_2d and point_2d"),
        ({"objects": {"bbox_2d": [[1, 2, 3, 4]], "point_2d": []}}, "objects has 1 bbox_2d but 0 point_2d"),
        ({"objects": {"box": [[1, 2, 3, 4]]}}, "objects must have bbox_2d and point_2d"),
        ({"objects": [3]}, "objects[0] must be a sequence of a box and a point"),
        ({"solution": 3}, "text must be a string, got int"),
        ({"solution": "left of it"}, "text holds no <box>"),
        ({"box": [1, 2, 3, 4], "width": "wide", "height": 3}, "width must hold 1 numbers"),
        ({"box": [1, 2, 3, 4], "width": 0, "height": 3}, "image_size must be (width, height) in whole pixels"),
        ({"box": [1, 2, 3, 4], "other_boxes": [[1, 2, 1, 4]]}, "other_boxes[0] has no area"),
        ({"mask": MASK, "width": 40, "height": 60}, "mask is 60x40 but image_size is 40x60"),
        ([1], "row must be a mapping from column names to values, got list"),
        (pd.DataFrame({"box": [1]}), "row must be a mapping from column names to values, got DataFrame"),
    ],
)
def test_what_cannot_be_read_is_named(row, message):
    said = refused(row)
    assert message in said
    assert "\n" not in said
    assert len(said) < 900


def test_columns_that_are_named_must_be_there():
    assert "row has no column 'b' (columns.box); it has 'a'" in refused({"a": 1}, df.Columns(box="b"))
    assert "row has no ground truth: columns names box='b'" in refused({"b": None}, df.Columns(box="b"))
    assert "columns names none of solution" in refused({"box": [1, 2, 3, 4]}, df.Columns(query="box"))
    nothing_guessed = df.Target.from_row({"b": [1, 2, 3, 4], "box": [5, 6, 7, 8]}, df.Columns(box="b"))
    assert nothing_guessed.box == (1, 2, 3, 4)
    assert "coordinates are in 0-1" in refused({"b": [0, 0, 1, 1]}, df.Columns(box="b", space="0-1"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"box_format": "yxyx"}, "box_format must be one of xyxy, xywh, cxcywh, got 'yxyx'"),
        ({"space": "norm"}, "space must be one of pixel, 0-1000, 0-1, got 'norm'"),
        ({"box": ("a", "b")}, "columns.box must be a column's name or four of them"),
        ({"mask": 3}, "columns.mask must be a column's name, got 3"),
    ],
)
def test_columns_are_checked(settings, message):
    with pytest.raises(ValueError, match=message.replace("'", ".")):
        df.Columns(**settings)


@pytest.mark.parametrize("columns", [{"box": "b"}, "b", ["b"]])
def test_columns_of_another_kind_are_refused_in_words(columns):
    row = {"image": "a.png", "query": "q", "b": [1, 2, 3, 4]}
    with pytest.raises(ValueError, match=r"columns must be Columns, such as Columns\(box='bbox'\), or None, got"):
        df.Target.from_row(row, columns)
    with pytest.raises(ValueError, match="columns must be Columns"):
        df.data.rows.load([row], columns=columns)


def test_a_truth_that_is_written_twice_counts_once_as_numpy_s_text_too():
    """verl makes an array of each column's value: the text in `reward_model` stays Python's, the column's does not."""
    text = "<box>(1,2),(30,40)</box><points>(3,4),(5,6)</points>"
    row = {"solution": np.array([text])[0], "reward_model": {"ground_truth": text}}
    assert type(row["solution"]) is np.str_
    assert df.Target.from_row(row).box == (1, 2, 30, 40)
    with pytest.raises(ValueError, match="may both be the solution"):
        df.Target.from_row(row | {"reward_model": {"ground_truth": text.replace("30", "31")}})
