"""Samples that are read later are those of `load`, in every form, after a pickle, and with points left out."""

import pickle
import warnings

import numpy as np
import pytest

import dpad_fast as df
from dpad_fast.data import coco, forms, grandf, reasonseg, refcoco, released, rows, shapes


@pytest.fixture
def written(tmp_path):
    """One data set in every form that can be written, by form."""
    samples = [shapes.sample(3, index) for index in range(3)]
    reasonseg.write(samples, tmp_path / "reasonseg")
    rows.write(samples, tmp_path / "rows.jsonl")
    released.write(samples, tmp_path / "released.parquet")
    coco.write(samples, tmp_path / "coco" / "instances.json")
    refcoco.write(samples, tmp_path / "refcoco")
    grandf.write(samples, tmp_path / "grandf" / "g.json")
    places = {"reasonseg": "reasonseg", "rows": "rows.jsonl", "released": "released.parquet", "coco": "coco"}
    places |= {"refcoco": "refcoco", "grandf": "grandf"}
    return {form: tmp_path / place for form, place in places.items()} | {"shapes": "shapes:3:3"}


def same(a, b, points=True):
    assert (a.id, a.query, a.image if isinstance(a.image, str) else None) == (
        b.id,
        b.query,
        b.image if isinstance(b.image, str) else None,
    )
    for name in ("box", "image_size", "objects", "other_boxes", "text", *(("points",) if points else ())):
        assert getattr(a.target, name) == getattr(b.target, name), name
    for name in ("mask", "ignore"):
        one, other = getattr(a.target, name), getattr(b.target, name)
        assert (one is None) == (other is None)
        assert one is None or np.array_equal(one, other)


@pytest.mark.parametrize("form", ["reasonseg", "rows", "released", "coco", "refcoco", "grandf", "shapes"])
def test_deferred_samples_are_those_of_load(written, form):
    loaded = list(df.data.load(written[form], form))
    later = pickle.loads(pickle.dumps(list(forms.defer(written[form], form))))
    assert len(loaded) == len(later) == 3
    for sample, one in zip(loaded, later, strict=True):
        assert one.id == sample.id
        same(sample, one.read())
    assert [one.id for one in forms.defer(written[form], form, limit=2)] == [sample.id for sample in loaded[:2]]


def without_points(path):
    """The same rows, so that points would have to be derived."""
    text = path.read_text()
    for name in ("points", "dpad_points", "solution"):
        text = text.replace(f'"{name}"', f'"no_{name}"')
    path.write_text(text)


@pytest.mark.parametrize(
    ("form", "file"), [("rows", "rows.jsonl"), ("coco", "coco/instances.json"), ("grandf", "grandf/g.json")]
)
def test_points_are_left_out_where_they_would_be_derived(written, tmp_path, form, file):
    given = [sample.target.points for sample in df.data.load(written[form], form, points=False)]
    assert None not in given  # what the file says is kept
    without_points(tmp_path / file)
    bare = list(df.data.load(written[form], form, points=False))
    assert [sample.target.points for sample in bare] == [None] * 3
    for sample, one in zip(df.data.load(written[form], form), bare, strict=True):
        assert sample.target.points is not None
        same(sample, one, points=False)


def test_reasonseg_without_points(written):
    assert [sample.target.points for sample in df.data.load(written["reasonseg"], points=False)] == [None] * 3


def test_a_row_that_cannot_be_read_says_so_when_it_is(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"id": "a", "image": "none.png", "query": "q", "box": [1, 2, 3, 4]}\n[]\n')
    told = []
    (one,) = forms.defer(path, on_error=told.append)
    assert told == [f"{path}: line 2: expected an object, got []"]
    with pytest.raises(ValueError, match=r"r.jsonl: line 1: image"):
        one.read()
    told.clear()
    assert list(df.data.load(path, points=False, on_error=told.append)) == []
    assert len(told) == 2


def test_queries_of_one_reasonseg_file_are_told_apart(tmp_path):
    base = shapes.sample(3, 0)
    several = [df.data.reasonseg.Sample(f"x-{i}", base.image, f"query {i}", base.target) for i in range(3)]
    reasonseg.write(several, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [one.read().query for one in forms.defer(tmp_path)] == ["query 0", "query 1", "query 2"]
