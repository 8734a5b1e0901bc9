"""ReasonSeg folders that are written: read again they are the same, and what the form cannot say is refused."""

import json
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from dpad_fast.data import reasonseg, shapes
from dpad_fast.testing import cases
from dpad_fast.testing.data_forms import picture, target_of
from dpad_fast.types import Sample, Target

WIDTH, HEIGHT = 13, 9
COORDINATES = st.tuples(st.floats(-3, WIDTH + 3, width=32), st.floats(-3, HEIGHT + 3, width=32))
RINGS = st.lists(st.lists(COORDINATES, min_size=1, max_size=6), min_size=1, max_size=3)
MASKS = arrays(np.bool_, (HEIGHT, WIDTH))
PLAIN = np.zeros((HEIGHT, WIDTH), bool)
PLAIN[2:5, 3:9] = True


def image():
    return Image.new("RGB", (WIDTH, HEIGHT), (9, 99, 199))


def write_and_load(samples):
    with tempfile.TemporaryDirectory() as folder:
        assert str(reasonseg.write(samples, folder)) == folder
        return {sample.id: sample for sample in reasonseg.load(folder)}


def lists(rings):
    return None if rings is None else [ring.tolist() for ring in rings]


@given(st.lists(st.tuples(MASKS, st.none() | MASKS), min_size=1, max_size=3), st.text(min_size=1))
@settings(max_examples=cases(60), deadline=None)
@pytest.mark.filterwarnings("ignore:.*no pixel is target")
def test_masks_and_ignored_pixels_are_read_again(masks, query):
    targets = [target_of(mask, ignore=None if ignore is None else ignore & ~mask) for mask, ignore in masks]
    found = write_and_load(Sample(f"s{i}", image(), f"{query}{i}", target) for i, target in enumerate(targets))
    assert list(found) == [f"s{i}" for i in range(len(targets))]
    for i, target in enumerate(targets):
        again = found[f"s{i}"]
        assert again.query == f"{query}{i}"
        assert np.array_equal(again.target.mask, target.mask)
        ignored = np.zeros_like(target.mask) if target.ignore is None else target.ignore
        assert again.target.ignore is None if not ignored.any() else np.array_equal(again.target.ignore, ignored)
        assert (again.target.box, again.target.points) == (target.box, target.points)
        assert again.target.polygons is None


@given(RINGS, RINGS)
@settings(max_examples=cases(60), deadline=None)
@pytest.mark.filterwarnings("ignore:.*no pixel is target")
def test_what_was_read_is_read_again(rings, ignored):
    """From a file of target and ignored polygons, in any order of size, over each other and beyond the picture."""
    corner = [(5.0, 5.0), (9.0, 5.0), (9.0, 8.0)]  # all within one pixel would be taken for coordinates of 0 to 1
    entries = [{"label": "target", "points": [list(p) for p in ring]} for ring in [*rings, corner]]
    entries += [{"label": "ignore", "points": [list(p) for p in ring]} for ring in ignored[1:]]
    with tempfile.TemporaryDirectory() as folder:
        image().save(f"{folder}/a.png")
        with open(f"{folder}/a.json", "w") as file:
            json.dump({"text": ["one", "two"], "shapes": entries}, file)
        first = list(reasonseg.load(folder))
        again = write_and_load(first)
    assert list(again) == ["a-0", "a-1"]
    for sample in first:
        target, found = sample.target, again[sample.id].target
        assert again[sample.id].query == sample.query
        assert np.array_equal(found.mask, target.mask)
        assert found.ignore is None if target.ignore is None else np.array_equal(found.ignore, target.ignore)
        assert (found.box, found.points) == (target.box, target.points)
        if len(ignored) == 1:  # nothing was cut out of the polygons, so they draw the mask
            assert lists(found.polygons) == lists(target.polygons)


@pytest.mark.parametrize("far", [(-0.5, 4.0), (3.0, -0.5), (-0.99, -0.99)])
def test_a_part_off_the_picture_that_is_drawn_on_it_leaves_no_polygons(tmp_path, far):
    """Vertices are cut to integers, so it is a pixel of the mask, which the other polygons do not draw."""
    picture(tmp_path / "a.png", WIDTH, HEIGHT)
    corner = [[5, 5], [9, 5], [9, 8]]
    shapes = [{"label": "target", "points": points} for points in (corner, [list(far)])]
    (tmp_path / "a.json").write_text(json.dumps({"text": "one", "shapes": shapes}))
    (sample,) = reasonseg.load(tmp_path)
    assert sample.target.polygons is None
    assert sample.target.mask[max(int(far[1]), 0), max(int(far[0]), 0)]
    again = write_and_load([sample])["a"].target
    assert np.array_equal(again.mask, sample.target.mask)
    assert again.polygons is None


def test_a_part_that_draws_nothing_leaves_the_other_polygons(tmp_path):
    picture(tmp_path / "a.png", WIDTH, HEIGHT)
    corner = [[5, 5], [9, 5], [9, 8]]
    shapes = [{"label": "target", "points": points} for points in (corner, [[-1, 4]], [[WIDTH + 1, 2]])]
    (tmp_path / "a.json").write_text(json.dumps({"text": "one", "shapes": shapes}))
    (sample,) = reasonseg.load(tmp_path)
    assert lists(sample.target.polygons) == [corner]
    assert lists(write_and_load([sample])["a"].target.polygons) == [corner]


def test_a_file_is_what_labelme_opens(tmp_path):
    place = picture(tmp_path / "in" / "b.jpg", WIDTH, HEIGHT)
    ignore = np.zeros_like(PLAIN)
    ignore[7, 1:3] = True
    reasonseg.write([Sample("x", str(place), "q", Target(mask=PLAIN, ignore=ignore))], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x.jpg", "x.json"]
    assert (tmp_path / "out" / "x.jpg").read_bytes() == place.read_bytes()
    content = json.loads((tmp_path / "out" / "x.json").read_text())
    assert {key: content[key] for key in ("imagePath", "imageData", "imageWidth", "imageHeight", "text")} == {
        "imagePath": "x.jpg",
        "imageData": None,
        "imageWidth": WIDTH,
        "imageHeight": HEIGHT,
        "text": ["q"],
    }
    told = [(shape["label"], shape["shape_type"], shape["points"]) for shape in content["shapes"]]
    assert told == [("target", "mask", [[3, 2], [8, 4]]), ("ignore", "mask", [[1, 7], [2, 7]])]
    assert all(shape.keys() >= {"group_id", "description", "flags"} for shape in content["shapes"])


def test_the_queries_of_a_picture_share_a_file_and_others_do_not(tmp_path):
    shared, other = image(), target_of(PLAIN)
    target = target_of(PLAIN)
    samples = [Sample(f"a-{i}", shared, f"q{i}", target) for i in range(3)]
    samples += [Sample("b-0", shared, "q", other), Sample("b-2", shared, "q", other), Sample("c", shared, "q", other)]
    reasonseg.write(samples, tmp_path)
    assert sorted(path.stem for path in tmp_path.glob("*.json")) == ["a", "b-0", "b-2", "c"]
    assert [(s.id, s.query) for s in reasonseg.load(tmp_path)] == [(s.id, s.query) for s in samples]


def test_a_folder_is_written_onto_itself(tmp_path):
    picture(tmp_path / "a.png", WIDTH, HEIGHT)
    reasonseg.write([Sample("a", str(tmp_path / "a.png"), "q", target_of(PLAIN))], tmp_path)
    again = list(reasonseg.load(tmp_path))
    reasonseg.write(again, tmp_path)
    assert [np.array_equal(s.target.mask, PLAIN) for s in reasonseg.load(tmp_path)] == [True]


def test_scenes_are_exported_as_outlines(tmp_path):
    shapes.export_reasonseg(tmp_path, seed=5, count=3)
    for sample in reasonseg.load(tmp_path):
        made = shapes.from_id(sample.id)
        assert lists(sample.target.polygons) == lists(made.target.polygons)
        assert np.array_equal(np.asarray(Image.open(sample.image)), np.asarray(made.image))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": Target(box=(1, 2, 3, 4))}, "'a': it has neither mask nor polygons"),
        ({"target": Target(mask=PLAIN, objects=(((1, 2, 3, 4), (2, 3)),))}, "'a': it lists objects"),
        ({"target": Target(mask=PLAIN, ignore=PLAIN)}, "'a': mask and ignore share pixels"),
        (
            {"target": Target(polygons=([[1, 1], [4, 1], [4, 4]],), ignore=np.ones((HEIGHT, WIDTH), bool))},
            "'a': its polygons and ignored pixels do not draw what they are",
        ),
        ({"target": Target(mask=PLAIN.T)}, r"'a': image_size is \(9, 13\), but its picture is \(13, 9\)"),
        ({"image": "gone.png"}, "'a'.*gone.png"),
        ({"id": "a/b"}, "'a/b': its id cannot be the name of a file"),
        ({"id": ""}, "its id cannot be the name of a file"),
        ({"id": ".."}, "its id cannot be the name of a file"),
        ({"id": "x" * 241}, "its id cannot be the name of a file"),
    ],
)
def test_what_the_form_cannot_say_is_refused(tmp_path, fields, message):
    given = {"id": "a", "image": image(), "query": "q", "target": target_of(PLAIN)} | fields
    with pytest.raises(ValueError, match=message):
        reasonseg.write([Sample(**given)], tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_two_samples_of_one_id_and_another_picture_of_the_name_are_refused(tmp_path):
    sample = Sample("a", image(), "q", target_of(PLAIN))
    with pytest.raises(ValueError, match="'a': an earlier sample has the file 'a' already"):
        reasonseg.write([sample, sample], tmp_path)
    picture(tmp_path / "b.jpg", WIDTH, HEIGHT)
    with pytest.raises(ValueError, match=r"'b': .*b\.jpg is there already"):
        reasonseg.write([Sample("b", image(), "q", target_of(PLAIN))], tmp_path)
