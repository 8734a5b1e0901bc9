"""The one door to all forms: which form a path has, and how arguments reach the reader."""

import json

import pytest
from PIL import Image

import dpad_fast as df
from dpad_fast.data import coco, forms, grandf, prepare, reasonseg, refcoco, released, rows, shapes
from dpad_fast.testing.data_forms import told
from dpad_fast.types import Sample, Target

MINI = list(forms.load("shapes:3:4"))
SEVERAL = [
    Sample(s.id, s.image, s.query, Target(objects=tuple((b, (b[0] + 3, b[1] + 4)) for b in s.target.other_boxes)))
    for s in MINI
]


def solved(sample):
    """What a solution says, and the picture's pixels."""
    target = sample.target
    return sample.id, sample.query, target.box, target.points, target.objects


def test_each_form_is_told_and_read(tmp_path):
    shapes.export_reasonseg(tmp_path / "reasonseg", 3, 4)
    places = {
        "reasonseg": tmp_path / "reasonseg",
        "refcoco": refcoco.write(MINI, tmp_path / "refcoco").parent,
        "coco": coco.write(MINI, tmp_path / "coco" / "x.json"),
        "grandf": grandf.write(MINI, tmp_path / "grandf" / "x.json"),
        "shapes": "shapes:3:4",
    }
    for form, place in places.items():
        assert forms.detect(place) == form
        samples = list(df.data.load(place))
        assert sorted(s.query for s in samples) == sorted(s.query for s in MINI)
        assert [s.id for s in df.data.load(place, form, limit=2)] == [s.id for s in samples[:2]]
    assert forms.detect(tmp_path / "coco") == "coco"
    loaded = list(forms.load(tmp_path / "coco"))
    assert [told(s)["mask"] for s in loaded] == [told(s)["mask"] for s in MINI]


def test_bad_files_of_a_reasonseg_folder_are_left_out(tmp_path):
    shapes.export_reasonseg(tmp_path, 3, 4)
    bad = tmp_path / f"{MINI[1].id}.json"
    bad.write_text("{")
    said = []
    samples = list(forms.load(tmp_path, on_error=said.append))
    assert [s.id for s in samples] == [s.id for s in MINI if s.id != MINI[1].id]
    assert len(said) == 1
    assert said[0].startswith(f"{bad}: not valid JSON")
    with pytest.raises(ValueError, match="not valid JSON"):
        list(forms.load(tmp_path))


@pytest.mark.parametrize("name", ["x.jsonl", "metadata.csv", "x.tsv"])
def test_a_folder_of_text_tables_is_rows(name, tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    mark = {".csv": ",", ".tsv": "\t"}.get(name[-4:])
    table = f"image{mark}query{mark}box\na.png{mark}q{mark}0 0 2 2\n"
    (tmp_path / name).write_text(table if mark else '{"image": "a.png", "query": "q", "box": [0, 0, 2, 2]}\n')
    assert forms.detect(tmp_path) == "rows"
    assert [s.target.box for s in df.data.load(tmp_path)] == [(0, 0, 2, 2)]


def test_tables_are_rows_or_the_released_form(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for name in ("x.jsonl", "x.csv"):
        (tmp_path / name).write_text("{}")
        assert forms.detect(tmp_path / name) == "rows"
    for names, form in ((["problem", "solution"], "released"), (["query", "box"], "rows")):
        folder = tmp_path / form / "data"
        folder.mkdir(parents=True)
        parquet.write_table(pyarrow.table({name: ["a"] for name in names}), folder / "train-0.parquet")
        assert forms.detect(tmp_path / form) == form
    assert forms.detect([{"query": "a"}]) == "rows"


@pytest.mark.parametrize("place", ["gone", "shapes/gone.json", "Someone/dataset"])
def test_nothing_there_is_said(place):
    with pytest.raises(ValueError, match="path: no file or folder is there"):
        forms.detect(place)


def test_what_has_no_form_says_what_was_looked_for(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"a": 1}))
    (tmp_path / "empty.json").write_text("")
    for place in (tmp_path, tmp_path / "x.json", tmp_path / "empty.json"):
        with pytest.raises(ValueError, match=r"has none of the forms of data; looked for instances\.json"):
            forms.detect(place)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "voc"}, "form must be one of reasonseg, refcoco, coco"),
        ({"limit": -1}, "limit must be a whole number"),
        ({"limit": True}, "limit must be a whole number"),
        ({"split": "train"}, "split: the shapes world has no splits"),
        ({"form": "shapes", "columns": object()}, "columns is for the form 'rows'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        forms.load("shapes:3:4", **arguments)


def test_a_folder_of_pictures_that_nobody_would_look_into_is_refused(tmp_path):
    shapes.export_reasonseg(tmp_path / "data", 3, 2)
    for path in (tmp_path / "data", "shapes:3:2"):
        for read in (forms.load, forms.defer):
            with pytest.raises(ValueError, match="images: "):
                list(read(path, images=tmp_path))


@pytest.mark.parametrize("place", ["shapes:a:4", "shapes:1:2:3", "shapes"])
def test_bad_worlds_are_named(place):
    with pytest.raises(ValueError, match="shapes:SEED:COUNT or a number"):
        list(forms.load(place))


@pytest.mark.parametrize(("form", "samples"), [("released", MINI), ("multi-object", SEVERAL)])
def test_the_released_forms_are_read_end_to_end(tmp_path, form, samples):
    pytest.importorskip("datasets")
    released.write(samples, tmp_path / "set" / "train-00000-of-00001.parquet")
    assert forms.detect(tmp_path / "set") == "released"
    for place, named in ((tmp_path / "set", form), (tmp_path / "set", None), (tmp_path / "set", "released")):
        again = list(df.data.load(place, named))
        assert [solved(s) for s in again] == [solved(s) for s in samples]
        assert all(s.target.image_size == (112, 112) for s in again)
    masks = [None if s.target.mask is None else s.target.mask.tolist() for s in again]
    assert masks == [None if s.target.mask is None else s.target.mask.tolist() for s in samples]
    assert [s.id for s in df.data.load(tmp_path / "set", form, limit=2)] == [s.id for s in samples[:2]]


def test_a_prepared_folder_is_read_with_its_masks(tmp_path):
    pytest.importorskip("datasets")
    folder = shapes.export_reasonseg(tmp_path / "data", 3, 4)
    (folder / f"{MINI[1].id}.json").write_text("{")
    made = prepare.prepare(folder, tmp_path / "made")
    assert (made.rows, len(made.bad)) == (3, 1)
    assert forms.detect(tmp_path / "made") == "released"
    given, again = list(reasonseg.load(folder, on_error=[].append)), list(df.data.load(tmp_path / "made"))
    assert [(s.id, s.query) for s in again] == [(s.id, s.query) for s in given]
    for before, after in zip(given, again, strict=True):
        assert after.target.mask.tolist() == before.target.mask.tolist()
        assert after.target.box == before.target.box


@pytest.mark.parametrize("form", ["released", "multi-object", "rows"])
def test_bad_rows_of_tables_are_said_and_left_out(tmp_path, form):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("datasets")
    from pyarrow import parquet

    file = tmp_path / "set" / "train.parquet"
    released.write(SEVERAL if form == "multi-object" else MINI, file)
    content = parquet.read_table(file).to_pylist()
    content[1]["solution"] = "<box>(1,2)</box>"
    content[3]["image"] = {"bytes": b"no picture", "path": None}
    parquet.write_table(pyarrow.Table.from_pylist(content), file)
    named = (
        {"columns": df.Columns(solution="solution", query="problem", image="image", id="id")} if form == "rows" else {}
    )
    said = []
    again = list(df.data.load(file.parent, form, on_error=said.append, **named))
    assert [s.id for s in again] == [MINI[0].id, MINI[2].id]
    assert len(said) == 2
    assert "row 1: " in said[0]
    assert "<box>" in said[0]
    assert "row 3: " in said[1]
    assert "image" in said[1]
    with pytest.raises(ValueError, match="row 1: "):
        list(df.data.load(file.parent, form, **named))


@pytest.mark.parametrize("name", ["set.jsonl", "set.csv", "set.parquet"])
def test_rows_are_read_end_to_end(tmp_path, name):
    pytest.importorskip("pyarrow")
    rows.write(MINI, tmp_path / "set" / name)
    for place in (tmp_path / "set" / name, tmp_path / "set"):
        assert forms.detect(place) == "rows"
        again = list(df.data.load(place))
        assert [(s.id, s.query, s.target.box) for s in again] == [(s.id, s.query, s.target.box) for s in MINI]
        assert [s.target.mask.tolist() for s in again] == [s.target.mask.tolist() for s in MINI]


def test_columns_alone_mean_rows(tmp_path):
    table = [{"what": s.query, "where": list(s.target.box), "picture": s.image} for s in MINI]
    columns = df.Columns(query="what", box="where", image="picture")
    assert [(s.query, s.target.box) for s in df.data.load(table, columns=columns)] == [
        (s.query, s.target.box) for s in MINI
    ]
    with pytest.raises(ValueError, match="columns is for the form 'rows'"):
        df.data.load(table, "released", columns=columns)
