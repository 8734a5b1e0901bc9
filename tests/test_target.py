"""`Target`: what its fields take, what they refuse by name, and what `Target.parse` reads."""

import dataclasses
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import dpad_fast as df

BOX = (10.0, 20.0, 40.0, 60.0)
RIGHT = np.zeros((6, 8), bool)
RIGHT[1:4, 2:7] = True
LABELS = RIGHT.astype(np.uint8)
LABELS[5, 7] = 255


@pytest.mark.parametrize("name", ["mask", "ignore"])
@pytest.mark.parametrize(
    "given",
    [
        RIGHT,
        RIGHT.astype(np.uint8),
        RIGHT.astype(np.int64),
        RIGHT.astype(np.float32),
        RIGHT.tolist(),
        RIGHT.astype(int).tolist(),
        torch.from_numpy(RIGHT.copy()),
        torch.from_numpy(RIGHT.astype(np.float32)).to(torch.bfloat16).requires_grad_(),
        Image.fromarray(RIGHT),
        Image.fromarray(RIGHT.astype(np.uint8)),
        Image.fromarray(RIGHT.astype(np.uint8) * np.uint8(255)),
        np.asfortranarray(RIGHT),
        RIGHT[::-1].copy()[::-1],
        np.frombuffer(RIGHT.tobytes(), bool).reshape(RIGHT.shape),
    ],
    ids=lambda given: f"{type(given).__name__}-{getattr(given, 'dtype', getattr(given, 'mode', ''))}",
)
def test_masks_of_every_kind_hold_the_same_pixels(name, given):
    target = df.Target(box=(2, 1, 7, 4), **{name: given})
    found = getattr(target, name)
    assert (type(found), found.dtype) == (np.ndarray, bool)
    assert np.array_equal(found, RIGHT)
    assert target.image_size == (8, 6)  # no other field gives it
    torch.from_numpy(found)  # memory that torch takes without a warning


@pytest.mark.parametrize("name", ["mask", "ignore"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (LABELS, r"\[5, 7\] is 255.*mask=m == 1 and ignore=m == 255"),
        (Image.fromarray(LABELS), r"\[5, 7\] is 255.*mask=m == 1 and ignore=m == 255"),
        (torch.from_numpy(LABELS), r"\[5, 7\] is 255"),
        (RIGHT * np.uint8(255), r"\[1, 2\] is 255.*where it marks the object mask=m == 255"),
        (RIGHT * 2, r"\[1, 2\] is 2, expected booleans, or 0 and 1 alone"),
        (RIGHT * -1, r"\[1, 2\] is -1"),
        (np.where(RIGHT, 1.0, 1e-6), r"\[0, 0\] is 1e-06"),
        (np.where(RIGHT, 1.0, np.nan), r"\[0, 0\] is nan"),
        (torch.where(torch.from_numpy(RIGHT), 4.0, -4.0), r"\[0, 0\] is -4.0"),  # logits
        (Image.fromarray(RIGHT * np.uint8(200)), r"\[1, 2\] is 200, expected booleans, or 0 and 255 alone"),
        (Image.fromarray(LABELS).convert("RGB"), " is a picture of mode 'RGB'; a mask has mode '1' or 'L'"),
        (Image.fromarray(LABELS).convert("P"), " is a picture of mode 'P'"),
        (RIGHT.astype(str), " must hold booleans, or 0 and 1, got <U5 values"),
        (RIGHT.astype(complex), " must hold booleans"),
        ([["0", "1"]], " must hold booleans"),
        ([[0, 1], [1]], r" must be \[height, width\], got rows of several lengths"),
        (RIGHT[None], r" must be \[height, width\], got 3 dimensions"),
        ("mask.png", r" must be \[height, width\], got 0 dimensions"),
        (np.zeros((0, 8), bool), " has no pixel: 8x0"),
    ],
)
def test_masks_that_do_not_say_which_pixels_are_set(name, given, message):
    with pytest.raises(ValueError, match="^" + name + message):
        df.Target(**{name: given})


RING = np.array([[1, 1], [6, 1], [6, 4.5]])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask": RIGHT, "image_size": (6, 8)}, r"mask is 8x6 but image_size is 6x8 .*image_size is \(width, height\)"),
        ({"mask": RIGHT, "image_size": (100, 60)}, r"mask is 8x6 but image_size is 100x60 \(width x height\)$"),
        ({"ignore": RIGHT, "image_size": (8, 7)}, "ignore is 8x6 but image_size is 8x7"),
        ({"mask": RIGHT, "ignore": RIGHT.T}, "ignore is 6x8 but mask is 8x6"),
        ({"mask": RIGHT, "polygons": [RING + 50]}, "polygons lie outside of the 8x6 picture that mask says: .*x 51 to"),
        (
            {"image_size": (8, 6), "polygons": [RING - 9]},
            "polygons lie outside of the 8x6 picture that image",
        ),
        ({"image_size": (8, 6), "polygons": [RING / 8]}, "polygons lie within one pixel of the 8x6 picture"),
        ({"polygons": [RING, [[1, 2], [3, float("nan")]]]}, r"polygons\[1\] must hold finite numbers"),
        ({"polygons": [RING, [["1", "2"], ["3", "4"], ["5", "6"]]]}, r"polygons\[1\] must hold finite numbers"),
        ({"polygons": [[1, 2, 3, 4, 5, 6]]}, r"polygons\[0\] must be a ring \[n, 2\]"),
        ({"polygons": [[[1, 2], [3]]]}, r"polygons\[0\] must be a ring"),
        ({"polygons": RING}, r"polygons\[0\] must be a ring"),
        ({"polygons": "1234"}, "polygons must be a sequence of rings, got '1234'"),
        ({"polygons": 7}, "polygons must be a sequence of rings, got 7"),
    ],
)
def test_fields_that_contradict_each_other(fields, message):
    with pytest.raises(ValueError, match="^" + message):
        df.Target(**fields)


def test_polygons_may_hang_over_the_edge_and_take_tensors():
    rings = df.Target(polygons=[(RING * 2).tolist(), torch.from_numpy(RING - 2)], image_size=(8, 6)).polygons
    assert [ring.tolist() for ring in rings] == [(RING * 2).tolist(), (RING - 2).tolist()]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"box": "1234"}, "box must hold 4 numbers, got '1234'"),
        ({"box": b"1234"}, "box must hold 4 numbers"),
        ({"box": ["10", "20", "40", "60"]}, "box must hold 4 numbers"),
        ({"box": np.array(["10", "20", "40", "60"])}, "box must hold 4 numbers"),
        ({"box": [10, 20, 40, True]}, "box must hold 4 numbers"),
        ({"box": np.array([False, False, True, True])}, "box must hold 4 numbers"),
        ({"box": {10: 0, 20: 0, 40: 0, 60: 0}}, "box must hold 4 numbers"),
        ({"box": {10, 20, 40, 60}}, "box must hold 4 numbers"),
        ({"box": torch.zeros(4, 4)}, "box must hold 4 numbers"),
        ({"box": [10, 20, 40, float("nan")]}, "box must hold 4 finite numbers"),
        ({"points": ["12", "34"]}, r"points\[0\] must hold 2 numbers, got '12'"),
        ({"points": "12"}, r"points must be a sequence of two \(x, y\) points, got '12'"),
        ({"points": 7}, "points must be a sequence"),
        ({"points": [(1, 2)]}, r"points must hold two \(x, y\) points, got 1"),
        ({"image_size": "86"}, "image_size must hold 2 numbers, got '86'"),
        ({"image_size": (True, True)}, "image_size must hold 2 numbers"),
        ({"objects": [(BOX, (20, 30)), ((40, 20, 10, 60), (20, 30))]}, r"objects\[1\].box has no area .*\(40.0, 20.0"),
        ({"objects": [(BOX, (20, 30)), ((10, 20, 40, 20), (20, 30))]}, r"objects\[1\].box has no area"),
        ({"objects": [("1234", (20, 30))]}, r"objects\[0\].box must hold 4 numbers, got '1234'"),
        ({"objects": [(BOX, "12")]}, r"objects\[0\].point must hold 2 numbers, got '12'"),
        ({"objects": [(BOX,)]}, r"objects\[0\] must be \(box, point\), got"),
        ({"objects": [{"bbox_2d": BOX, "point_2d": (1, 2)}]}, r"objects\[0\] must be a sequence of a box and a point"),
        ({"objects": "ab"}, r"objects must be a sequence of \(box, point\) pairs"),
        ({"other_boxes": [BOX, (40, 20, 10, 60)]}, r"other_boxes\[1\] has no area"),
        ({"other_boxes": ["1234"]}, r"other_boxes\[0\] must hold 4 numbers, got '1234'"),
        ({"other_boxes": 7}, "other_boxes must be a sequence of boxes, got 7"),
        ({"text": 7}, "text must be a string, got 7"),
        ({"box": BOX, "box_format": "coco"}, "box_format must be one of xyxy, xywh, cxcywh, got 'coco'"),
    ],
)
def test_what_is_no_box_point_or_size(fields, message):
    with pytest.raises(ValueError, match="^" + message):
        df.Target(**fields)


@pytest.mark.parametrize(
    ("box_format", "written"), [("xyxy", (10, 20, 40, 60)), ("xywh", (10, 20, 30, 40)), ("cxcywh", (25, 40, 30, 40))]
)
def test_box_formats(box_format, written):
    target = df.Target(box=written, objects=[(written, (20, 30))], other_boxes=[written], box_format=box_format)
    assert (target.box, target.objects, target.other_boxes) == (BOX, ((BOX, (20, 30)),), (BOX,))
    assert dataclasses.replace(target, points=((1, 2), (3, 4))).box == BOX  # the fields are corners by now
    text = "<box>({},{}),({},{})</box><points>(20,30),(25,40)</points>".format(*written)
    target = df.Target.parse(text, (80, 80), box_format=box_format)
    assert (target.box, target.points, target.image_size) == (BOX, ((20, 30), (25, 40)), (80, 80))
    # `dpad-released` reads corners from the text where there is one.
    assert target.text == (text if box_format == "xyxy" else "")
    text = json.dumps([{"bbox_2d": written, "point_2d": [20, 30]}])
    assert df.Target.parse(text, box_format=box_format).objects == ((BOX, (20, 30)),)


@pytest.mark.parametrize("box_format", ["xywh", "cxcywh"])
def test_sizes_of_boxes_are_positive(box_format):
    for fields, name in [
        ({"box": (10, 20, 0, 4)}, "box"),
        ({"objects": [((10, 20, 3, -4), (1, 1))]}, r"objects\[0\].box"),
        ({"other_boxes": [(10, 20, 3, -4)]}, r"other_boxes\[0\]"),
    ]:
        with pytest.raises(ValueError, match=rf"^{name} has no area \(width and height .* box_format='{box_format}'"):
            df.Target(box_format=box_format, **fields)
    with pytest.raises(ValueError, match="box_format must be one of xyxy, xywh, cxcywh, got 'yolo'"):
        df.Target.parse("<box>(1,2),(3,4)</box>", box_format="yolo")


TAGS = "<box>(10,20),(40,60)</box>"


@pytest.mark.parametrize(
    ("text", "box", "points"),
    [
        (TAGS, BOX, None),
        ("<points>(1,2),(3,4)</points>", None, ((1, 2), (3, 4))),
        ("It is <box>( 10.0,20 ) , (40, 60)</box> and <points>(-1,+2),(3.5,4)</points>.", BOX, ((-1, 2), (3.5, 4))),
    ],
)
def test_solutions(text, box, points):
    target = df.Target.parse(text)
    assert (target.box, target.points, target.text) == (box, points, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TAGS + "<box>(1,2),(3,4)</box>", "text holds 2 <box>, expected one; several objects are a JSON list of"),
        (TAGS + TAGS, "text holds 2 <box>"),
        (TAGS + "<points>(1,2),(3,4)</points><points>(5,6),(7,8)</points>", "text holds 2 <points>"),
        (TAGS + "<points>(1,2)</points>", r"text holds a <points> that is not <points>\(x,y\),\(x,y\)</points>"),
        (TAGS + "<points>(1,2),(3,4),(5,6)</points>", "text holds a <points> that is not"),
        (TAGS + "<points></points>", "text holds a <points> that is not"),
        (TAGS + "<points>(1,2),(3,4)", "text holds a <points> that is not"),
        (TAGS + "(1,2),(3,4)</points>", "text holds a <points> that is not"),
        (TAGS + "</box>", "text holds a <box> that is not"),
        ("<box>(1,2),(3,4)<points>(1,2),(3,4)</points>", r"text holds a <box> that is not <box>\(x1,y1\),\(x2,y2\)"),
        ("<box>[1,2,3,4]</box>", "text holds a <box> that is not"),
        ("<box>(1,2),(3,1e3)</box><points>(1,2),(3,4)</points>", "text holds a <box> that is not"),
        ("<box>(1,2),(3,nan)</box><points>(1,2),(3,4)</points>", "text holds a <box> that is not"),
        ("<box>(1,2),(3," + "9" * 400 + ")</box>", "box must hold 4 finite numbers"),
        ("[]", "text holds an empty list of objects"),
        ('[{"bbox_2d": "1234", "point_2d": [1, 2]}]', r"objects\[0\].box must hold 4 numbers, got '1234'"),
        ('[{"bbox_2d": [1, 2, "3", 4], "point_2d": [1, 2]}]', r"objects\[0\].box must hold 4 numbers"),
        ('[{"bbox_2d": [3, 2, 1, 4], "point_2d": [1, 2]}]', r"objects\[0\].box has no area"),
        ('[{"bbox_2d": [1, 2, 3, 4], "point_2d": [1, 2]}, {"bbox_2d": [1, 2, 3, 4]}]', r"objects\[1\] must have"),
        ("nothing", "text holds no <box>, no <points> and no JSON list"),
    ],
)
def test_solutions_that_are_not_read_in_part(text, message):
    with pytest.raises(ValueError, match="^" + message):
        df.Target.parse(text)


@pytest.mark.parametrize(
    "box",
    [
        np.array([1, 2, 3, 4j]),
        torch.tensor([1, 2, 3, 4j]),
        torch.tensor([True, False, True, True]),
        [torch.tensor(True), 2, 3, 4],
        np.ma.array([1, 2, 3, 4], mask=[0, 0, 0, 1]),
        torch.empty(4, device="meta"),
        bytearray(b"\x01\x02\x03\x04"),
        memoryview(b"\x01\x02\x03\x04"),
    ],
)
def test_a_box_that_is_no_four_numbers_in_any_library(box):
    with pytest.raises(ValueError, match=r"^box must hold 4 numbers"):
        df.Target(box=box)


def test_a_box_of_a_tensor_with_a_gradient_warns_of_nothing():
    values = torch.tensor([1.0, 2, 3, 4], requires_grad=True)
    assert df.Target(box=values).box == df.Target(box=list(values)).box == (1, 2, 3, 4)
    assert df.Target(box=torch.tensor([1, 2, 3, 4], dtype=torch.bfloat16)).box == (1, 2, 3, 4)


@pytest.mark.parametrize("box_format", ["xywh", "cxcywh"])
@pytest.mark.parametrize("field", ["box", "other_boxes[0]", "objects[0].box"])
def test_corners_beyond_any_number(box_format, field):
    box = (1.7e308, 2, 1.7e308, 5)
    given = {"box": box, "other_boxes[0]": [box], "objects[0].box": [(box, (1, 2))]}[field]
    with pytest.raises(ValueError, match=f"^{re.escape(field)} has corners beyond any number"):
        df.Target(**{field.split("[")[0]: given}, box_format=box_format)


@pytest.mark.parametrize("name", ["mask", "ignore"])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.eye(3).to_sparse(), "must be a dense tensor of plain numbers, got a sparse_coo tensor"),
        (torch.empty(3, 3, device="meta"), "must be a dense tensor of plain numbers, got a strided tensor .* on meta"),
        (np.ma.array(np.eye(2), mask=np.eye(2)), "is a masked array with entries left out"),
    ],
)
def test_masks_without_plain_values(name, value, message):
    with pytest.raises(ValueError, match=f"^{name} {message}"):
        df.Target(**{name: value})


def _png(image, **options):
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["mask", "ignore"])
def test_a_picture_of_a_mask_that_breaks_is_named(name):
    content = _png(Image.fromarray((np.random.default_rng(0).random((200, 200)) > 0.5).astype(np.uint8) * 255))
    closed = Image.new("L", (3, 3))
    closed.close()
    for picture in (Image.open(io.BytesIO(content[: len(content) // 2])), closed):
        with pytest.raises(ValueError, match=f"^{name} cannot be decoded: "):
            df.Target(**{name: picture})


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_of_a_mask_is_turned_as_its_picture_is(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.eye(3, 5, 1, dtype=np.uint8) * 255)
    given = Image.open(io.BytesIO(_png(image, exif=exif)))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(_png(image, exif=exif))))) == 255
    target = df.Target(mask=given)
    np.testing.assert_array_equal(target.mask, expected)
    assert target.image_size == expected.shape[::-1]


def test_rings_of_bfloat16():
    ring = torch.tensor([[1, 2], [3, 4], [5, 7]], dtype=torch.bfloat16, requires_grad=True)
    np.testing.assert_array_equal(df.Target(polygons=[ring]).polygons[0], [[1, 2], [3, 4], [5, 7]])


def test_only_image_size_is_said_to_be_width_and_height():
    with pytest.raises(ValueError, match=r"^ignore is 3x4 but mask is 4x3 \(width x height\)$"):
        df.Target(mask=np.zeros((3, 4), bool), ignore=np.zeros((4, 3), bool))


@pytest.mark.parametrize(("power", "got"), [(400, r"\(1000+\.\.\."), (5000, "a number of thousands of digits")])
def test_a_size_of_many_digits_is_refused_by_name(power, got):
    with pytest.raises(ValueError, match=f"^image_size must hold 2 numbers, got {got}$"):
        df.Target(box=(1, 1, 2, 2), image_size=(10**power, 5))


def test_a_solution_is_read_once():
    text = "<box>(1,2),(30,40)</box><points>(3,4),(5,6)</points>"
    one = df.Target.parse(text, image_size=(64, 48))
    assert df.Target.parse(text, image_size=(64, 48)) is one
    assert df.Target.parse(text, image_size=[64, 48]).image_size == one.image_size
    assert df.Target.parse(text).image_size is None
    assert df.Target.parse(text, image_size=(64, 48), box_format="xywh").box == (1, 2, 31, 42)
    df.Target.parse("<box>(0,0),(1,1)</box>", image_size=(1, 1))
    for size in ((True, 1), ("1", 1), (1.5, 1), (0, 1)):
        for _ in range(2):
            with pytest.raises(ValueError, match="image_size must"):
                df.Target.parse("<box>(0,0),(1,1)</box>", image_size=size)
    for _ in range(2):
        with pytest.raises(ValueError, match="text holds no <box>"):
            df.Target.parse("nothing")
    for box_format in (["xyxy"], {}):
        with pytest.raises(ValueError, match="box_format must be one of"):
            df.Target.parse(text, box_format=box_format)

    class Mine(df.Target):
        pass

    assert type(Mine.parse(text, image_size=(64, 48))) is Mine
