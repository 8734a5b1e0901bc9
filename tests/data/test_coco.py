"""COCO instances with expressions: what is read, what is written, what is refused and named."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dpad_fast import coco_mask
from dpad_fast._mask_geometry import inscribed_points
from dpad_fast.data import coco
from dpad_fast.data.coco_file import POINTS_KEY
from dpad_fast.testing.data_forms import picture, target_of, told
from dpad_fast.types import Sample, Target

W, H = 20, 12
RING = [2.0, 1.0, 9.0, 1.0, 9.0, 6.0, 2.0, 6.0]
BOXES = st.tuples(*[st.floats(-50, 50)] * 2, *[st.floats(0.01, 80)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


def block(x1, y1, x2, y2):
    mask = np.zeros((H, W), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def rle(mask, plain=False):
    found = coco_mask.encode(mask)
    if not plain:
        return {"size": [H, W], "counts": found["counts"].decode()}
    flat = mask.T.ravel()
    starts = np.flatnonzero(np.diff(np.r_[0, flat, 0]))  # where it changes
    return {"size": [H, W], "counts": np.diff(np.r_[0, starts, flat.size]).tolist()}


def entry(number, **fields):
    return {"id": number, "image_id": 7, "category_id": 1, "iscrowd": 0, "bbox": [2, 1, 7, 5], **fields}


def written(folder, annotations, images=None, name="a.jpg", **more):
    picture(folder / "images" / name, W, H)
    images = [{"id": 7, "file_name": name, "width": W, "height": H}] if images is None else images
    file = folder / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, **more}))
    return file


def test_an_annotation_is_a_sample_for_each_expression(tmp_path):
    annotations = [
        entry(5, segmentation=[RING], expressions=["the left one", "it"]),
        entry(6, segmentation=rle(block(12, 2, 18, 9)), bbox=[12.5, 2, 5.25, 7], caption="the right one"),
        entry(8, segmentation=[RING], bbox=[0, 0, 3, 3]),
    ]
    samples = list(coco.load(written(tmp_path, annotations)))
    assert [(s.id, s.query) for s in samples] == [("5-0", "the left one"), ("5-1", "it"), ("6", "the right one")]
    assert {s.image for s in samples} == {str(tmp_path / "images" / "a.jpg")}
    left, right = samples[0].target, samples[2].target
    drawn = coco_mask.decode(coco_mask.frPyObjects([RING], H, W)[0]) != 0
    assert left.mask.tolist() == drawn.tolist()
    assert left.box == (2, 1, 9, 6)
    assert left.points == inscribed_points(drawn)
    assert [ring.tolist() for ring in left.polygons] == [[[2, 1], [9, 1], [9, 6], [2, 6]]]
    assert left.other_boxes == ((12.5, 2, 17.75, 9), (0, 0, 3, 3))
    assert right.box == (12.5, 2, 17.75, 9)
    assert right.mask.tolist() == block(12, 2, 18, 9).tolist()
    assert right.polygons is None
    assert samples[0].target is samples[1].target


@given(mask=arrays(np.bool_, (H, W)))
@settings(deadline=None, max_examples=30)
def test_run_lengths_of_both_kinds_are_the_mask(tmp_path_factory, mask):
    folder = tmp_path_factory.mktemp("coco")
    annotations = [entry(i, segmentation=rle(mask, plain), caption="it") for i, plain in enumerate((False, True))]
    for sample in coco.load(written(folder, annotations)):
        assert sample.target.mask.tolist() == mask.tolist()


def test_polygons_of_an_object_are_drawn_together_by_cocos_rule(tmp_path):
    other = [12.3, 2.2, 18.9, 2.2, 15.1, 9.7]
    (sample,) = coco.load(written(tmp_path, [entry(5, segmentation=[RING, other], caption="both")]))
    rles = coco_mask.frPyObjects([RING, other], H, W)
    assert sample.target.mask.tolist() == (coco_mask.decode(coco_mask.merge(rles)) != 0).tolist()
    assert len(sample.target.polygons) == 2


def test_crowds_and_ignored_regions(tmp_path):
    annotations = [
        entry(5, segmentation=[RING], caption="the left one"),
        entry(6, segmentation=rle(block(12, 2, 18, 9), plain=True), iscrowd=1, bbox=[12, 2, 6, 7]),
        entry(7, segmentation=rle(block(0, 9, 5, 12)), ignore=1, bbox=[0, 9, 5, 3], caption="none"),
        entry(8, segmentation=[], bbox=[1, 1, 0, 4]),  # no area, as COCO has some
    ]
    (sample,) = coco.load(written(tmp_path, annotations))
    assert sample.target.other_boxes == ()
    assert sample.target.ignore.tolist() == block(0, 9, 5, 12).tolist()
    annotations[1]["caption"] = "the people"
    _, crowd = coco.load(written(tmp_path, annotations))
    assert crowd.target.mask.tolist() == block(12, 2, 18, 9).tolist()
    assert crowd.target.other_boxes == ((2, 1, 9, 6),)


def test_what_is_missing_is_derived_from_the_mask(tmp_path):
    annotations = [entry(5, segmentation=rle(block(3, 2, 10, 7)), bbox=None, caption="it")]
    (sample,) = coco.load(written(tmp_path, annotations))
    assert sample.target.box == (3, 2, 10, 7)
    assert sample.target.points == inscribed_points(block(3, 2, 10, 7))
    (sample,) = coco.load(written(tmp_path, [entry(5, caption="it")]))
    assert (sample.target.box, sample.target.mask, sample.target.points) == ((2, 1, 9, 6), None, None)


def test_expressions_from_a_file_and_from_a_mapping(tmp_path):
    file = written(tmp_path, [entry(5, segmentation=[RING]), entry(6, segmentation=[RING])])
    (tmp_path / "expressions.json").write_text(json.dumps({"5": ["a", "b"], "6": "c"}))
    assert [(s.id, s.query) for s in coco.load(file)] == [("5-0", "a"), ("5-1", "b"), ("6", "c")]
    assert [s.query for s in coco.load(tmp_path)] == ["a", "b", "c"]
    assert [(s.id, s.query) for s in coco.load(file, expressions={6: "d"})] == [("6", "d")]
    said = []
    assert [s.query for s in coco.load(file, expressions={6: "d", 99: "e"}, on_error=said.append)] == ["d"]
    assert said == [f"expressions: id '99' is none of the annotations of {file}"]


def test_splits_are_files_of_a_folder_or_fields(tmp_path):
    written(tmp_path, [entry(5, caption="a", split="train"), entry(6, caption="b", split="val")])
    file = tmp_path / "instances.json"
    assert [s.query for s in coco.load(file, split="val")] == ["b"]
    with pytest.raises(ValueError, match="no annotation or image whose split is 'test'"):
        list(coco.load(file, split="test"))
    (tmp_path / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        content = file.read_text().replace('"a"', f'"{split}"')
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(content)
    file.unlink()
    assert [s.query for s in coco.load(tmp_path, split="val2017")] == ["val2017", "b"]
    with pytest.raises(ValueError, match=r"found instances_train2017\.json, instances_val2017\.json; give"):
        coco.load(tmp_path)


BAD = {
    "polygon 0 must be a flat list": {"segmentation": [[1, 2, 3, 4]]},
    "polygon 0 must be a flat list x0, y0, x1, y1, ... of 3 vertices or more, got [[1, 2], [3, 4], [5, 6]]": {
        "segmentation": [[[1, 2], [3, 4], [5, 6]]]
    },
    "polygon 1 must be a flat list": {"segmentation": [RING, RING[:7]]},
    "polygon 0 must hold finite numbers": {"segmentation": [[1, 2, 3, 4, 5, float("nan")]]},
    "polygon 0 must be a flat list x": {"segmentation": [["1", 2, 3, 4, 5, 6]]},
    "must be a list of polygons or run lengths, got 'mask.png'": {"segmentation": "mask.png"},
    "size is [20, 12], but the picture's [height, width] is [12, 20]": {
        "segmentation": {"size": [W, H], "counts": "0"}
    },
    "segmentation: rleObjs[0]": {"segmentation": {"size": [H, W], "counts": [5, 5]}},
    "rleObjs": {"segmentation": {"size": [H, W], "counts": "\u00ff~"}},
    "bbox must be [x, y, width, height] in pixels, got [1, 2, -3, 4]": {"bbox": [1, 2, -3, 4]},
    "bbox must be [x, y, width, height] in pixels, got [1, 2, nan, 4]": {"bbox": [1, 2, float("nan"), 4]},
    "bbox must be [x, y, width, height] in pixels, got '1234'": {"bbox": "1234"},
    "bbox has no area: [1, 2, 0, 4]": {"bbox": [1, 2, 0, 4]},
    "iscrowd must be 0 or 1, got 2": {"iscrowd": 2},
    "image_id 8 is none of the file's images": {"image_id": 8},
    "image_id must be a whole number or a string, got None": {"image_id": None},
    "id must be a whole number or a string, got 1.5": {"id": 1.5},
    "its id is that of another annotation": {"id": 4},
    "expressions must be a text or a list of texts, got 5": {"expressions": 5},
    "expressions[0] must be text, got ' '": {"expressions": [" "]},
    "expressions[0] must be text, got None": {"expressions": [None]},
    "polygons lie outside of the 20x12 picture": {"segmentation": [[30, 30, 40, 30, 40, 40]]},
    "dpad_points must be two [x, y], got [[1, 2]]": {POINTS_KEY: [[1, 2]]},
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_annotation_is_named_and_can_be_left_out(message, tmp_path):
    good = entry(4, segmentation=[RING], caption="good")
    bad = entry(5, **{"segmentation": [RING], "expressions": ["bad"], **BAD[message]})
    file = written(tmp_path, [good, bad])
    with pytest.raises(ValueError, match="annotations") as caught:
        list(coco.load(file))
    assert str(caught.value).startswith(f"{file}: annotations[1]")
    assert message in str(caught.value)
    said = []
    assert [s.query for s in coco.load(file, on_error=said.append)] == ["good"]
    assert said == [str(caught.value)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_name": "gone.jpg"}, "picture 'gone.jpg' is not in"),
        ({"file_name": None}, "file_name must be the name of a file, got None"),
        ({"width": 30}, "width x height is 30 x 12, but the picture"),
        ({"height": -1}, "height must be a number of pixels, got -1"),
        ({"height": None}, "height must be a number of pixels, got None"),
        ({"id": True}, "id must be a whole number or a string, got True"),
    ],
)
def test_a_bad_picture_is_named_and_its_samples_left_out(change, message, tmp_path):
    images = [{"id": 7, "file_name": "a.jpg", "width": W, "height": H}]
    images.append({"id": 9, "file_name": "a.jpg", "width": W, "height": H, **change})
    annotations = [entry(4, caption="good"), entry(5, image_id=9, caption="bad")]
    file = written(tmp_path, annotations, images)
    with pytest.raises(ValueError, match="images") as caught:
        list(coco.load(file))
    assert str(caught.value).startswith(f"{file}: images[1]")
    assert message in str(caught.value)
    said = []
    assert [s.query for s in coco.load(file, on_error=said.append)] == ["good"]
    assert str(caught.value) in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2", "not valid JSON"),
        ("[" * 100000, "not valid JSON"),
        ("[]", "expected an object with images and annotations, got list"),
        ('{"images": []}', "annotations must be a list, got None"),
        ('{"images": [], "annotations": []}', "no annotation has an expression; looked for expressions and caption"),
        (b"\xff\xfe\x00", "not valid JSON"),
    ],
)
def test_a_file_of_another_kind_is_named(content, message, tmp_path):
    file = tmp_path / "x.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        list(coco.load(file))
    assert str(caught.value).startswith(str(file))
    with pytest.raises(ValueError, match="path: no file or folder"):
        coco.load(tmp_path / "gone.json")


def test_pictures_without_sizes_are_measured(tmp_path):
    file = written(tmp_path, [entry(5, segmentation=[RING], caption="it")], [{"id": 7, "file_name": "a.jpg"}])
    (sample,) = coco.load(file)
    assert sample.target.image_size == (W, H)


@st.composite
def targets(draw):
    mask = draw(arrays(np.bool_, (H, W)).filter(np.any))
    fields = {"other_boxes": draw(st.lists(BOXES, max_size=3))}
    if draw(st.booleans()):
        fields["box"] = draw(BOXES)
    if draw(st.booleans()):
        fields["points"] = draw(st.tuples(*[st.tuples(st.floats(0, 12), st.floats(0, 12))] * 2))
    if draw(st.booleans()):
        fields["ignore"] = draw(arrays(np.bool_, (H, W)))
    return target_of(mask, **fields)


@given(found=st.lists(targets(), min_size=1, max_size=3), twice=st.booleans())
@settings(deadline=None, max_examples=30)
def test_what_was_written_is_read_again(tmp_path_factory, found, twice):
    folder = tmp_path_factory.mktemp("coco")
    image = str(picture(folder / "from" / "a.png", W, H))
    samples = [Sample(f"s{i}", image, f"query {i}", target) for i, target in enumerate(found)]
    if twice:
        samples.insert(1, Sample("again", image, "another query", found[0]))
    loaded = list(coco.load(coco.write(samples, folder / "to" / "x.json")))
    assert list(map(told, loaded)) == list(map(told, samples))
    again = list(coco.load(coco.write(loaded, folder / "again.json", images=folder / "to"), images=folder / "to"))
    assert list(map(told, again)) == list(map(told, samples))


def test_polygons_are_kept_where_they_draw_the_mask(tmp_path):
    (sample,) = coco.load(written(tmp_path / "a", [entry(5, segmentation=[RING], caption="it")]))
    (again,) = coco.load(coco.write([sample], tmp_path / "b" / "x.json"))
    assert told(again) == told(sample)
    only = Sample("p", sample.image, "q", Target(polygons=sample.target.polygons))
    (again,) = coco.load(coco.write([only], tmp_path / "c" / "x.json"))
    assert again.target.mask.tolist() == sample.target.mask.tolist()
    other = Sample("p", sample.image, "q", Target(polygons=sample.target.polygons, mask=block(0, 0, 2, 2)))
    (again,) = coco.load(coco.write([other], tmp_path / "d" / "x.json"))
    assert again.target.polygons is None
    assert again.target.mask.tolist() == block(0, 0, 2, 2).tolist()


def test_what_cannot_be_written_is_named(tmp_path):
    image = picture(tmp_path / "a.png", W, H)
    for target, message in (
        (Target(), "sample 's': its target has neither mask, polygons, box nor objects"),
        (Target(mask=np.zeros((H, W), bool)), "sample 's': its mask has no pixel"),
        (Target(mask=np.ones((5, 5), bool)), r"sample 's': image_size is \(5, 5\), but its picture is \(20, 12\)"),
    ):
        with pytest.raises(ValueError, match=message):
            coco.write([Sample("s", image, "q", target)], tmp_path / "out" / "x.json")
    with pytest.raises(ValueError, match="does not lie in images"):
        coco.write([Sample("s", image, "q", target_of(block(1, 1, 3, 3)))], tmp_path / "x.json", images=tmp_path / "o")


def test_loading_is_linear_in_time_of_samples_and_bounded_in_memory(tmp_path):
    """The whole file is held once, no more than a few times its size; no mask outlives its sample."""
    peaks = {}
    for count in (500, 2000):
        polygon = np.random.default_rng(0).uniform(0, 12, 60).round(2).tolist()
        folder = tmp_path / str(count)
        images = [{"id": i, "file_name": "a.jpg", "width": W, "height": H} for i in range(count)]
        annotations = [entry(i, image_id=i, segmentation=[polygon], caption="it") for i in range(count)]
        file = written(folder, annotations, images)
        tracemalloc.start()
        try:
            assert sum(1 for _ in coco.load(file)) == count
            peaks[count] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peaks[count] < 6 * file.stat().st_size + 2e6
    assert peaks[2000] < 4.6 * peaks[500]
