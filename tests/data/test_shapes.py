"""The shapes world: exact geometry, queries that fit one shape, and nothing that depends on the process."""

import hashlib
import json

import numpy as np
import pytest

from dpad_fast.data import shapes
from dpad_fast.data.shapes import COLOURS, GRID, SIDE, SIZES


@pytest.fixture(scope="module")
def samples():
    return [shapes.sample(3, index) for index in range(300)]


def test_scenes_are_what_the_specification_says(samples):
    for item in samples:
        objects = item.scene.objects
        assert 3 <= len(objects) <= 5
        assert len({shape.name for shape in objects}) == len(objects)
        for shape in objects:
            x1, y1, x2, y2 = shape.box
            assert x2 - x1 == y2 - y1
            assert x2 - x1 in SIZES
            assert all(value % GRID == 0 and 0 <= value <= SIDE for value in shape.box)
        total = sum(shapes.mask_of(shape).astype(int) for shape in objects)
        assert total.max() == 1, "shapes overlap"


def test_the_target_is_exact(samples):
    for item in samples:
        shape, target = item.scene.objects[item.question.target], item.target
        assert target.box == shape.box
        assert target.image_size == (SIDE, SIDE)
        rows, columns = np.nonzero(target.mask)
        extent = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        inwards = (extent - np.array(shape.box)) * np.array([1, 1, -1, -1])
        assert inwards.min() >= 0
        assert inwards.max() <= 2  # a tip narrower than a pixel covers no pixel centre
        assert all(target.mask[y, x] for x, y in shape.points)
        assert len(target.other_boxes) == len(item.scene.objects) - 1


def test_the_picture_shows_the_colour_where_the_mask_says(samples):
    for item in samples[:60]:
        picture = np.asarray(item.image).astype(int)
        for shape in item.scene.objects:
            if shape.texture == "plain":
                off = np.abs(picture[shapes.mask_of(shape)] - np.array(COLOURS[shape.colour]))
                assert off.max() <= 5


def _fits(item, shape):
    """Whether the query holds for a shape, decided from the query's words alone."""
    query, kind = item.query, item.question.kind
    wanted = [texture for texture in shapes.TEXTURES if f" {texture} one" in query]
    if any(shape.texture != texture for texture in wanted):
        return False
    if kind.startswith("function"):
        return query.endswith(tuple(verb for verb, form in shapes.FUNCTIONS.items() if form == shape.form))
    if kind.startswith("association"):
        return query.endswith(tuple(thing for thing, colour in shapes.ASSOCIATIONS.items() if colour == shape.colour))
    if kind == "negation":
        return not query.endswith(shape.texture)
    axis, sign = shapes.SIDES[query.split()[-1]]
    return sign * shape.centre[axis] == max(sign * other.centre[axis] for other in item.scene.objects)


def test_every_query_fits_exactly_its_target(samples):
    kinds = set()
    for item in samples:
        kinds.add(item.question.kind)
        fits = [i for i, shape in enumerate(item.scene.objects) if _fits(item, shape)]
        assert fits == [item.question.target], item.query
    assert kinds == {"function", "function+", "association", "association+", "negation", "position"}


def test_a_scene_is_a_function_of_seed_and_index():
    digest = hashlib.sha256()
    for index in range(20):
        item = shapes.sample(11, index)
        digest.update(np.asarray(item.image).tobytes() + item.query.encode() + item.target.text.encode())
    again = hashlib.sha256()
    for item, _ in zip(shapes.stream(11), range(20), strict=False):
        again.update(np.asarray(item.image).tobytes() + item.query.encode() + item.target.text.encode())
    assert digest.digest() == again.digest()
    assert shapes.sample(11, 0).query != shapes.sample(12, 0).query or not np.array_equal(
        np.asarray(shapes.sample(11, 0).image), np.asarray(shapes.sample(12, 0).image)
    )


def test_from_id_and_its_errors():
    assert shapes.from_id("shapes-3-7").target.text == shapes.sample(3, 7).target.text
    for wrong in ("shapes-3", "forms-3-7", "shapes-3-x", ""):
        with pytest.raises(ValueError, match="shapes-SEED-INDEX"):
            shapes.from_id(wrong)
    with pytest.raises(ValueError, match="non-negative"):
        shapes.sample(-1, 0)


def test_export_is_read_back_by_the_reasonseg_loader(tmp_path):
    from dpad_fast.data import reasonseg

    shapes.export_reasonseg(tmp_path, seed=5, count=6)
    assert json.loads((tmp_path / "shapes-5-0.json").read_text())["is_sentence"] is True
    loaded = {item.id: item for item in reasonseg.load(tmp_path)}
    for index in range(6):
        made = shapes.sample(5, index)
        read = loaded[made.id]
        assert read.query == made.query
        union = np.logical_or(read.target.mask, made.target.mask).sum()
        both = np.logical_and(read.target.mask, made.target.mask).sum()
        assert both / union > 0.85  # ReasonSeg draws boundaries in, the world draws pixel centres


def test_dataset_has_the_columns_that_trl_takes():
    pytest.importorskip("datasets")
    rows = shapes.dataset(seed=2, start=4, count=3)
    assert rows.column_names == ["prompt", "image", "solution", "id"]
    assert rows[1]["id"] == "shapes-2-5"
    assert rows[1]["prompt"] == [{"role": "user", "content": shapes.sample(2, 5).query}]
    assert np.array_equal(np.asarray(rows[1]["image"]), np.asarray(shapes.sample(2, 5).image))
