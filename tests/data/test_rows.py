"""Rows of every kind of table as samples: round-trips to the bit, bad rows named by file and row, flat memory."""

import io
import itertools
import json
import tracemalloc

import numpy as np
import pytest
from PIL import Image

import dpad_fast as df
from dpad_fast.data import rows

datasets = pytest.importorskip("datasets")
pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SIZE = (60, 40)
MASK = np.zeros((40, 60), bool)
MASK[5:20, 10:50] = True
SOLUTION = "<box>(10,5),(50,20)</box><points>(15,12),(30,10)</points>"


def encoded(kind="PNG", colour="red"):
    out = io.BytesIO()
    Image.new("RGB", SIZE, colour).save(out, kind)
    return out.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(encoded("JPEG"))
    (tmp_path / "b.png").write_bytes(encoded())
    return tmp_path


def samples(folder):
    awkward = 1 / 3
    rings = (np.array([[10.1, 5], [50, 5 + awkward], [30, 39.9]]), np.array([[1, 1], [9, 1], [9, 9], [1, 9.0]]))
    ignore = np.zeros_like(MASK)
    ignore[30:, :] = True
    points = ((15.0, 12.5), (30 + awkward, 10.0))
    box = (10.0, 5.0, 50 - awkward, 20.0)
    two = (((1.0, 2.0, 30.0, 4.5), (2.0, 3.0)), ((5.0, 6.0, 9.0, 9.0), (7.0, 7.0)))
    pictures = str(folder / "pictures" / "a.jpg"), str(folder / "b.png")
    yield df.Sample("first", pictures[0], "the red one", df.Target(box, points, SIZE))
    yield df.Sample(
        "a, \"b\"\n\u7ea2", pictures[1], 'two\nlines, "quoted" \u7ea2',
        df.Target(box, points, SIZE, MASK, rings, ignore, other_boxes=(box, (1, 2, 3, 4))),
    )  # fmt: skip
    yield df.Sample("text", pictures[0], "q", df.Target.parse(SOLUTION, SIZE))
    yield df.Sample("two", pictures[0], "all", df.Target(objects=two, image_size=SIZE))
    yield df.Sample(
        "listed", pictures[0], "all", df.Target.parse('[{"bbox_2d": [1, 2, 3, 4], "point_2d": [2, 3]}]', SIZE)
    )


def assert_equal(one, other):
    assert (one.id, one.query) == (other.id, other.query)
    a, b = one.target, other.target
    assert (a.box, a.points, a.image_size, a.objects, a.other_boxes, a.text) == (
        b.box, b.points, b.image_size, b.objects, b.other_boxes, b.text
    )  # fmt: skip
    for name in ("mask", "ignore"):
        assert (getattr(a, name) is None) == (getattr(b, name) is None)
        assert getattr(a, name) is None or np.array_equal(getattr(a, name), getattr(b, name))
    assert (a.polygons is None) == (b.polygons is None)
    for ring, again in zip(a.polygons or (), b.polygons or (), strict=True):
        assert np.array_equal(ring, again)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_what_is_written_is_read_to_the_bit(kind, folder):
    given = list(samples(folder))
    path = folder / f"set.{kind}"
    assert rows.write(iter(given), path) == len(given)
    again = list(rows.load(path))
    for one, other in zip(given, again, strict=True):
        assert_equal(one, other)
        assert one.image == other.image
    assert [file.name for file in folder.iterdir() if ".partial" in file.name] == []
    rows.write(again, folder / f"second.{kind}")
    if kind != "parquet":
        assert (folder / f"second.{kind}").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_pictures_that_are_no_file_keep_their_bytes_or_pixels(kind, tmp_path):
    target = df.Target(box=(1, 2, 30, 40), points=((2, 3), (4, 5)))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    forms = [encoded("JPEG"), {"bytes": encoded("WEBP"), "path": None}, pixels, Image.fromarray(pixels)]
    rows.write((df.Sample(str(i), image, "q", target) for i, image in enumerate(forms)), tmp_path / f"s.{kind}")
    again = [row.image for row in rows.load(tmp_path / f"s.{kind}")]
    read = [image["bytes"] if kind == "parquet" else data_of(image) for image in again]
    assert read[:2] == [forms[0], forms[1]["bytes"]]
    for content in read[2:]:
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)


def data_of(uri):
    from dpad_fast.pictures import data_uri_bytes

    return data_uri_bytes(uri, "image")


def test_the_same_rows_from_every_source(folder):
    given = list(samples(folder))
    rows.write(given, folder / "set" / "train-00000-of-00001.parquet")
    table = datasets.load_dataset("parquet", data_files=str(folder / "set" / "*.parquet"), cache_dir=str(folder / "c"))
    table["train"].save_to_disk(str(folder / "saved"))
    table.save_to_disk(str(folder / "splits"))
    frame = pd.read_parquet(folder / "set" / "train-00000-of-00001.parquet")
    sources = [
        folder / "set",
        table,
        table["train"],
        table["train"].to_iterable_dataset(),
        folder / "saved",
        str(folder / "splits"),
        frame,
        frame.convert_dtypes(),
        frame.to_dict("records"),
        iter(table["train"]),
    ]
    for source in sources:
        for one, other in zip(given, rows.load(source, images=folder / "set"), strict=True):
            assert_equal(one, other)


def test_pictures_of_datasets_stay_undecoded_and_broken_ones_are_their_rows_trouble():
    features = datasets.Features(
        {"image": datasets.Image(), "query": datasets.Value("string"), "box": datasets.List(datasets.Value("int64"))}
    )
    pictures = [{"bytes": content, "path": None} for content in (encoded("JPEG"), b"noise", encoded())]
    table = datasets.Dataset.from_dict({"image": pictures, "query": ["q"] * 3, "box": [[1, 2, 3, 4]] * 3}, features)
    said = []
    found = list(rows.load(table, on_error=said.append))
    assert [sample.image["bytes"] for sample in found] == [pictures[0]["bytes"], pictures[2]["bytes"]]
    assert [sample.id for sample in found] == ["0", "2"]
    assert len(said) == 1
    assert said[0].startswith("rows[1]: image cannot be opened as an image")


def test_lists_of_pictures_in_datasets_stay_undecoded():
    features = datasets.Features(
        {
            "images": datasets.List(datasets.Image()),
            "query": datasets.Value("string"),
            "box": datasets.List(datasets.Value("int64")),
        }
    )
    table = datasets.Dataset.from_dict(
        {"images": [[{"bytes": encoded(), "path": None}]], "query": ["q"], "box": [[1, 2, 3, 4]]}, features
    )
    (sample,) = rows.load(table)
    assert sample.image == {"bytes": encoded(), "path": None}


def test_columns_are_mapped_and_paths_relative_to_images(folder):
    Image.fromarray(MASK.astype(np.uint8) * 255).save(folder / "pictures" / "m.png")
    (folder / "set.csv").write_text(
        "photo,words,x,y,w,h,stencil\na.jpg,the red one,10,5,40,15,m.png\na.jpg,another,0.5,1,2,3,\n", encoding="utf-8"
    )
    columns = df.Columns(image="photo", query="words", box=("x", "y", "w", "h"), box_format="xywh", mask="stencil")
    first, second = rows.load(folder / "set.csv", columns=columns, images=folder / "pictures")
    assert (first.id, first.query, first.image) == ("0", "the red one", str(folder / "pictures" / "a.jpg"))
    assert (first.target.box, first.target.image_size) == ((10, 5, 50, 20), SIZE)
    assert np.array_equal(first.target.mask, MASK)
    assert (second.target.box, second.target.mask) == ((0.5, 1, 2.5, 4), None)


def test_a_size_in_the_row_is_that_of_the_truth(folder):
    row = {"image": str(folder / "b.png"), "query": "q", "box": [1, 2, 3, 4], "width": 120, "height": 80}
    (sample,) = rows.load([row])
    assert sample.target.image_size == (120, 80)
    row["box"], row["width"] = [100, 100, 500, 500], None
    (sample,) = rows.load(
        [row], columns=df.Columns("image", "query", box="box", space="0-1000", width="width", height="height")
    )
    assert (sample.target.image_size, sample.target.box) == (SIZE, (6, 4, 30, 20))


GOOD = {"image": "b.png", "query": "q", "box": [1, 2, 3, 4]}
BAD = [
    ("{not json", "not valid JSON"),
    ("[1]", "expected an object, got [1]"),
    (json.dumps(GOOD | {"image": "gone.png"}), "image cannot be opened as an image: No such file"),
    (json.dumps(GOOD | {"image": None}), "image holds 0 pictures, expected exactly one"),
    (json.dumps(GOOD | {"image": ["b.png", "b.png"]}), "image holds 2 pictures, expected exactly one"),
    (json.dumps(GOOD | {"query": None}), "query must be text, got None"),
    (json.dumps({"image": "b.png", "box": [1, 2, 3, 4]}), "row has no query under a known name"),
    (json.dumps(GOOD | {"query": 3}), "query must be text, got 3"),
    (json.dumps(GOOD | {"box": [1, 2]}), "box must hold 4 finite numbers"),
    (json.dumps(GOOD | {"box": None}), "row has no ground truth under a known name"),
    (json.dumps(GOOD | {"width": 3.5, "height": 2}), "width and height must be whole pixels, got (3.5, 2)"),
    (json.dumps(GOOD | {"mask": {"size": [4, 6], "counts": [24]}}), "mask is 6x4 but image_size is 60x40"),
    ("\udcff".encode("utf-8", "surrogateescape"), "not valid JSON"),
    ("[" * 100000, "not valid JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_a_bad_line_is_named_and_harms_no_other(line, message, folder):
    line = line if isinstance(line, bytes) else line.encode()
    good = json.dumps(GOOD).encode()
    (folder / "set.jsonl").write_bytes(b"\n".join([good, b"", line, good]))
    with pytest.raises(ValueError, match=r"set\.jsonl: line 3: ") as told:
        list(rows.load(folder / "set.jsonl"))
    assert message in str(told.value)
    said = []
    assert [sample.id for sample in rows.load(folder / "set.jsonl", on_error=said.append)] == ["0", "2"]
    assert said == [str(told.value)]


def test_bad_rows_of_csv_are_named_by_their_line(folder):
    head = "image,query,box\n"
    good = 'b.png,"two\nlines","1,2,3,4"\n'
    (folder / "set.csv").write_bytes(
        (head + good + good + "b.png,short\n" + 'b.png,q,"1,2"\n' + "b.png,").encode() + b"\xff,1\n" + good.encode()
    )
    said = []
    found = list(rows.load(folder / "set.csv", on_error=said.append))
    assert [sample.query for sample in found] == ["two\nlines"] * 3
    assert [message.split(": ", 1)[1][:40] for message in said] == [
        "line 6: has 2 cells, the first line has ",
        "line 7: box must hold 4 finite numbers, ",
        "line 8: query is not valid UTF-8: \\udcff",
    ]
    (folder / "twice.csv").write_text("a,a\n1,2\n")
    with pytest.raises(ValueError, match=r"twice\.csv: line 1 must name the columns, each once"):
        list(rows.load(folder / "twice.csv"))


def test_bad_rows_of_parquet_and_of_frames_are_named(folder):
    table = pd.DataFrame({"image": ["b.png", "gone.png"], "query": ["q", "q"], "box": [[1, 2, 3, 4]] * 2})
    table.to_parquet(folder / "set.parquet")
    with pytest.raises(ValueError, match=r"set\.parquet: row 1: image cannot be opened"):
        list(rows.load(folder / "set.parquet"))
    with pytest.raises(ValueError, match=r"^rows\[1\]: image cannot be opened"):
        list(rows.load(table, images=folder))
    (folder / "cut.parquet").write_bytes((folder / "set.parquet").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"cut\.parquet: not readable as Parquet"):
        list(rows.load(folder / "cut.parquet"))


@pytest.mark.parametrize(
    ("source", "split", "message"),
    [
        ("none.jsonl", None, r"none\.jsonl: no such file"),
        ("none", None, "data set '.*none' cannot be loaded: no such folder"),
        ("b.png", None, "is no file of rows: its name ends with none of"),
        ("pictures", None, "folder holds no file of rows"),
        ("mixed", None, "has rows as csv and jsonl: name the file"),
        ("splits", None, "has the splits test, train: say which"),
        ("splits", "val", "split is 'val'; .* has test, train"),
        (3, None, "source must be a file, a folder, .*, got int"),
        ({"a": 1}, None, "source must be .*, got dict"),
    ],
)
def test_sources_that_cannot_be_read(source, split, message, folder):
    (folder / "mixed").mkdir()
    (folder / "splits").mkdir()
    for name in ("mixed/a.csv", "mixed/a.jsonl", "splits/train-0.jsonl", "splits/test.jsonl"):
        (folder / name).write_text("")
    source = str(folder / source) if isinstance(source, str) else source
    with pytest.raises(ValueError, match=message):
        list(rows.load(source, split=split))


def test_a_split_and_a_limit(folder):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        (folder / f"{name}.jsonl").write_text(
            "".join(json.dumps(GOOD | {"query": f"{name} {i}"}) + "\n" for i in (0, 1))
        )
    (folder / "bad-rows.jsonl").write_text("{}\n")
    (folder / "dataset.json").write_text("{}")
    queries = [sample.query for sample in rows.load(folder, split="train", limit=3)]
    assert queries == ["train-00000-of-00002 0", "train-00000-of-00002 1", "train-00001-of-00002 0"]
    assert len(list(rows.load(folder, split="test"))) == 2
    with pytest.raises(ValueError, match="limit must be 0"):
        rows.load(folder, split="test", limit=-1)


def test_a_byte_order_mark_and_a_json_list(folder):
    (folder / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    (folder / "a.csv").write_bytes(b"\xef\xbb\xbf" + b'image,query,box\r\nb.png,q,"[1, 2, 3, 4]"\r\n')
    (folder / "a.json").write_text(json.dumps([GOOD]))
    for name in ("a.jsonl", "a.csv", "a.json"):
        (sample,) = rows.load(folder / name)
        assert (sample.query, sample.target.box) == ("q", (1, 2, 3, 4))


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_memory_is_bounded(kind, tmp_path):
    """Of 600 rows of 8 KiB no more is held than of 150."""
    picture = encoded() + bytes(8192)
    target = df.Target(box=(1, 2, 30, 30), points=((2, 3), (4, 5)))
    peaks = []
    for count in (150, 600):
        path = tmp_path / f"{count}.{kind}"
        tracemalloc.start()
        rows.write((df.Sample(str(i), picture, "q", target) for i in range(count)), path)
        assert sum(1 for _ in rows.load(path)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5


def test_reading_begins_before_the_source_ends():
    endless = ({"image": Image.new("RGB", SIZE), "query": str(i), "box": [1, 2, 3, 4]} for i in itertools.count())
    assert next(rows.load(endless)).query == "0"


def test_a_failed_write_leaves_what_stood_there(tmp_path):
    target = df.Target(box=(1, 2, 3, 4))
    for kind in ("jsonl", "csv", "parquet"):
        path = tmp_path / f"set.{kind}"
        path.write_text("before")
        bad = [
            df.Sample("0", encoded(), "q", target),
            df.Sample("odd", b"noise", "q", target),
            df.Sample("2", 3, "q", target),
        ]
        with pytest.raises(ValueError, match=r"sample '(odd|2)': image"):
            rows.write(bad, path)
        assert [file.name for file in tmp_path.iterdir()] == [path.name]
        assert path.read_text() == "before"
        path.unlink()
    with pytest.raises(ValueError, match=r"path must end with one of \.jsonl, \.parquet, \.csv"):
        rows.write([], tmp_path / "set.txt")


def test_parquet_is_what_datasets_shows_as_pictures(folder):
    rows.write(samples(folder), folder / "set.parquet")
    table = datasets.Dataset.from_parquet(str(folder / "set.parquet"), cache_dir=str(folder / "c"))
    assert isinstance(table.features["image"], datasets.Image)
    assert pq.read_schema(folder / "set.parquet").field("box").type == pa.list_(pa.float64())
