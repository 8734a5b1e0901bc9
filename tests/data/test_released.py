"""The released form, single and multi-object: from every place where it may lie, and written back."""

import io
import json
import socket
import time

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

import dpad_fast as df
from dpad_fast import hub
from dpad_fast.data import released

datasets = pytest.importorskip("datasets")

SIZE = (84, 56)
SOLUTION = "<box>(10,5),(50,35)</box><points>(15,12),(30,10)</points>"
LISTED = '[{"bbox_2d": [10, 5, 50, 35], "point_2d": [30, 20]}, {"bbox_2d": [1, 2, 3, 4], "point_2d": [2, 3]}]'
MASK = np.zeros((56, 84), bool)
MASK[5:35, 10:50] = True


def encoded(kind="PNG", size=SIZE):
    out = io.BytesIO()
    Image.new("RGB", size, "red").save(out, kind)
    return out.getvalue()


def table(**changes):
    columns = {
        "id": ["a", "b"],
        "problem": ["the red one", "all of them"],
        "solution": [SOLUTION, LISTED],
        "image": [{"bytes": encoded("JPEG"), "path": None}, {"bytes": encoded(), "path": None}],
        "img_height": [56, 56],
        "img_width": [84, 84],
    } | changes
    columns = {name: values for name, values in columns.items() if values is not None}
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def test_the_set_is_read_from_every_place(tmp_path):
    rows = table()
    rows.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "splits"))
    (tmp_path / "files").mkdir()
    rows.to_parquet(str(tmp_path / "files" / "train-00000-of-00001.parquet"))
    sources = [rows, tmp_path / "one", str(tmp_path / "splits"), tmp_path / "files", *(tmp_path / "files").iterdir()]
    for source in sources:
        one, two = released.load(source)
        assert (one.id, one.query, one.target.text) == ("a", "the red one", SOLUTION)
        assert (one.target.box, one.target.points) == ((10, 5, 50, 35), ((15, 12), (30, 10)))
        assert one.image["bytes"] == encoded("JPEG")
        assert (two.target.objects, two.target.text) == (df.Target.parse(LISTED).objects, LISTED)
        assert one.target.image_size == two.target.image_size == SIZE
    assert [sample.id for sample in released.load(table(id=None))] == ["0", "1"]
    assert [sample.id for sample in released.load(rows, limit=1)] == ["a"]


def test_a_prepared_set_has_masks(tmp_path):
    rle = df.coco_mask.encode(np.asfortranarray(MASK))
    text = json.dumps({"size": [56, 84], "counts": rle["counts"].decode()})
    rows = table(mask=[text, None], ignore=[None, text], other_boxes=[[[1, 2, 3, 4]], None])
    rows.to_parquet(str(tmp_path / "train-00000-of-00001.parquet"))
    (tmp_path / "dataset.json").write_text('{"form": "released"}')
    (tmp_path / "bad-rows.jsonl").write_text('{"row": 3}\n')
    one, two = released.load(tmp_path)
    assert np.array_equal(one.target.mask, MASK)
    assert (one.target.ignore, one.target.other_boxes) == (None, ((1, 2, 3, 4),))
    assert np.array_equal(two.target.ignore, MASK)
    assert (two.target.mask, two.target.other_boxes) == (None, ())


def test_what_is_written_is_read_to_the_bit(tmp_path):
    third, tiny = 1 / 3, 2**-40
    points = ((15.25, 12.0), (30.0, 10 + third))
    targets = [
        df.Target(
            (10 + third, 5.0, 50.0, 35.0 + tiny), points, SIZE, MASK, ignore=~MASK, other_boxes=((1, 2, 3, 4.5),)
        ),
        df.Target.parse(SOLUTION, SIZE),
        df.Target(objects=(((1 + third, 2, 3, 4), (2, 3)),), image_size=SIZE),
        df.Target.parse(LISTED, SIZE),
        df.Target(box=(1e-7, 5.0, 50.0, 35.0), image_size=SIZE),
    ]
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG"))
    pictures = [
        str(tmp_path / "a.jpg"),
        encoded("WEBP"),
        Image.new("RGB", SIZE),
        np.zeros((56, 84, 3), np.uint8),
        encoded(),
    ]
    given = [df.Sample(f"s{i}", *pair) for i, pair in enumerate(zip(pictures, "abcde", targets, strict=True))]
    assert released.write(iter(given), tmp_path / "set" / "train-00000-of-00001.parquet") == 5
    again = list(released.load(tmp_path / "set"))
    assert [sample.image["bytes"] for sample in again][:2] == [encoded("JPEG"), encoded("WEBP")]
    for one, other in zip(given, again, strict=True):
        a, b = one.target, other.target
        assert (one.id, one.query) == (other.id, other.query)
        assert (a.box, a.points, a.image_size, a.objects, a.other_boxes) == (
            b.box, b.points, b.image_size, b.objects, b.other_boxes
        )  # fmt: skip
        assert b.text == (a.text or b.text)
        for name in ("mask", "ignore"):
            assert np.array_equal(getattr(a, name), getattr(b, name))
    shown = datasets.load_dataset(str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "c"))
    assert shown.column_names[:6] == ["id", "problem", "solution", "image", "img_height", "img_width"]
    assert shown[0]["image"].size == SIZE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_height": [56, 840]}, r"rows\[1\]: img_width x img_height is 84 x 840, but the picture is 84 x 56$"),
        (
            {"img_height": [84, 84], "img_width": [56, 56]},
            r"rows\[0\]: .* is 56 x 84, but the picture is 84 x 56 \(sides swapped\)",
        ),
        ({"solution": [SOLUTION, "left"]}, r"rows\[1\]: text holds no <box>"),
        ({"solution": [SOLUTION, None]}, r"rows\[1\]: row has no ground truth"),
        ({"problem": ["x", None]}, r"rows\[1\]: problem must be text, got None"),
        ({"problem": None}, r"rows\[0\]: row has no column 'problem'; it has 'id', 'solution'"),
        ({"image": [{"bytes": b"noise", "path": None}] * 2}, r"rows\[0\]: image cannot be opened"),
        ({"mask": [None, "{}"]}, r"rows\[1\]: mask is a dictionary with neither"),
        ({"mask": [None, '{"size": [5, 5], "counts": [25]}']}, r"rows\[1\]: mask is 5x5 but image_size is 84x56"),
    ],
)
def test_rows_that_cannot_be_read_are_named(changes, message):
    with pytest.raises(ValueError, match=message) as told:
        list(released.load(table(**changes)))
    said = []
    assert len(list(released.load(table(**changes), on_error=said.append))) + len(said) == 2
    assert str(told.value) in said


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (df.Sample("x", encoded(), "q", df.Target()), "sample 'x': target has neither box, points nor objects"),
        (df.Sample("x", b"noise", "q", df.Target(box=(1, 2, 3, 4))), "sample 'x': image cannot be opened"),
        (df.Sample("x", "gone.png", "q", df.Target(box=(1, 2, 3, 4))), "sample 'x': image cannot be read: No such"),
        (
            df.Sample("x", encoded(), "q", df.Target(box=(1, 2, 3, 4), image_size=(9, 9))),
            r"sample 'x': target.image_size is \(9, 9\), but the picture is \(84, 56\)",
        ),
    ],
)
def test_samples_that_cannot_be_written_are_named(sample, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        released.write([sample], tmp_path / "set.parquet")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"path must end with \.parquet"):
        released.write([sample], tmp_path / "set.csv")


def test_a_hub_that_gives_no_answer_is_told_in_a_line(monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.perf_counter()
        with pytest.raises(ValueError, match="data set 'nobody/such_set' cannot be loaded: ") as told:
            list(released.load("nobody/such_set"))
        assert time.perf_counter() - start < 4  # one patience, not a client's retries
        assert "\n" not in str(told.value)
