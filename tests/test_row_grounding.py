"""ms-swift's `objects` column as a ground truth: boxes and points, in pixels or fractions, or refused with a word."""

import numpy as np
import pytest
from PIL import Image

import dpad_fast as df

BOX, POINTS = [20, 12, 64, 52], ([30, 24], [50, 40])
OTHER, POINT = [0, 0, 10, 10], [4, 5]
SIZE = (96, 72)


def read(objects, **row):
    return df.Target.from_row({"objects": objects, **row})


def test_one_box_with_and_without_points():
    assert read({"ref": ["cat"], "bbox": [BOX]}).box == (20, 12, 64, 52)
    found = read({"ref": ["cat"], "bbox": [BOX, *POINTS], "bbox_type": "real", "image_id": [0, 0, 0]})
    assert (found.box, found.points, found.objects) == ((20, 12, 64, 52), ((30, 24), (50, 40)), ())
    assert read({"bbox": list(POINTS)}).points == ((30, 24), (50, 40))
    assert read({"bbox": [[20.5, 12.0, 64.0, 52.0]], "bbox_type": None}).box == (20.5, 12, 64, 52)


def test_a_point_for_each_box_is_the_list_of_objects():
    pairs = (((20, 12, 64, 52), (30, 24)), ((0, 0, 10, 10), (4, 5)))
    assert read({"bbox": [BOX, OTHER, POINTS[0], POINT]}).objects == pairs
    assert read({"bbox": [BOX, POINTS[0], OTHER, POINT]}).objects == pairs
    assert read({"bbox": [BOX, POINTS[0]]}).objects == pairs[:1]


def test_fractions_are_of_the_picture():
    fractions = {"bbox": [[0.25, 0.5, 0.75, 1.0], [0.5, 0.5], [0.5, 0.75]], "bbox_type": "norm1"}
    for row in ({"image": Image.new("RGB", SIZE)}, {"width": 96, "height": 72}):
        found = read(fractions, **row)
        assert (found.box, found.points) == ((24, 36, 72, 72), ((48, 36), (48, 54)))
        assert found.image_size == SIZE
    with pytest.raises(ValueError, match="image_size is needed"):
        read(fractions)


def test_the_columns_say_what_it_leaves_open():
    columns = df.Columns(objects="objects", space="0-1000", box_format="xywh")
    row = {"objects": {"bbox": [[250, 500, 500, 500]]}}
    assert df.Target.from_row(row, columns, image_size=SIZE).box == (24, 36, 72, 72)
    row["objects"]["bbox_type"] = "real"
    assert df.Target.from_row(row, columns, image_size=SIZE).box == (250, 500, 500, 500)


def test_json_text_and_arrays():
    assert read('{"ref": ["cat"], "bbox": [[20, 12, 64, 52]]}').box == (20, 12, 64, 52)
    assert read({"bbox": np.array([BOX], np.float32)}).box == (20, 12, 64, 52)


def test_beside_a_solution_it_may_repeat_but_not_contradict():
    solution = "<box>(20,12),(64,52)</box><points>(30,24),(50,40)</points>"
    assert read({"bbox": [BOX]}, solution=solution).text == solution
    with pytest.raises(ValueError, match=r"^box is .* \(column 'objects'\) but the solution's text says"):
        read({"bbox": [OTHER]}, solution=solution)


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ({"bbox": []}, "objects.bbox is empty"),
        ({"bbox": [BOX, OTHER]}, "objects.bbox holds 2 boxes and 0 points"),
        ({"bbox": [BOX, OTHER, POINT]}, "objects.bbox holds 2 boxes and 1 points"),
        ({"bbox": [[1, 2, 3]]}, r"objects.bbox\[0\] must hold four numbers or two"),
        ({"bbox": [[1, 2, 3, "4"]]}, r"objects.bbox\[0\] must hold 4 numbers"),
        ({"bbox": [BOX, [float("nan"), 1]]}, r"objects.bbox\[1\] must hold 2 finite numbers"),
        ({"bbox": 5}, "objects.bbox must be a sequence"),
        ({"bbox": [BOX], "bbox_type": "norm1000"}, "objects.bbox_type must be one of real, norm1, got 'norm1000'"),
        ({"bbox": [BOX], "image_id": [1]}, r"objects.image_id\[0\] is 1"),
    ],
)
def test_what_cannot_be_read_is_named(objects, words):
    with pytest.raises(ValueError, match=words):
        read(objects)
