"""`dpad-fast evaluate` on files that are not as they should be, and on Parquet: the right value or one plain line."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from dpad_fast import coco_mask

parquet = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")


def rle_of(mask):
    coded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(map(int, coded["size"])), "counts": coded["counts"].decode()}


@pytest.fixture
def one(world):
    """The data, its first sample, and the path of predictions."""
    folder, samples, path = world
    return folder, samples[0], path


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def masked(path, name, mask):
    path.write_text(json.dumps({"id": name, "mask": mask}))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no line"),
        (b"\n \n", "holds no line"),
        ('{"id": "a"}'.encode("utf-16"), "p.jsonl:1 is not UTF-8 (byte 0xff)"),
        (gzip.compress(b'{"id": "a"}'), "p.jsonl is compressed by gzip: unpack it first"),
        (b"\0\0", "p.jsonl:1 is not valid JSON"),
        (b"[1]", "got [1]"),
        (b'{"completion": "x"}', "it has no id"),
        (b'{"id": 1.5, "completion": "x"}', "got 1.5 as id"),
        (b'{"id": true, "completion": "x"}', "got True as id"),
        (b'{"id": 7, "completion": "x"}', "p.jsonl:1: id '7' is not in"),
        (b'{"id": "a", "completion": ["x"]}', "got ['x'] as completion"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "score"])
def test_lines_that_are_none(one, refused, content, said, command):
    folder, _, path = one
    path.write_bytes(content)
    more = ("--preset", "seg-zero") if command == "score" else ()
    assert said in refused(command, path, "--data", folder, *more)


def test_a_byte_order_mark_and_whole_numbers_as_ids(one, tmp_path, measured):
    path = one[2]
    Image.new("RGB", (60, 40)).save(tmp_path / "p.png")
    row = {"id": 7, "image": "p.png", "query": "q", "mask": rle_of(np.ones((40, 60), bool))}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    for name in (7, "7"):
        line = json.dumps({"id": name, "mask": row["mask"]})
        path.write_bytes(b"\xef\xbb\xbf" + line.encode())
        assert measured(path, "--data", tmp_path / "rows.jsonl")[1]["giou"] == 1


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        ({"size": [0, 0], "counts": []}, "mask must be"),
        ({"size": [113, 112], "counts": [0, 113 * 112]}, "is 112x113, its truth 112x112"),
        ({"size": [112, 112], "counts": [5]}, "counts add up to 5"),
        ({"size": [112, 112], "counts": [-5, 12549]}, "counts[0] is -5"),
        ({"size": [112, 112], "counts": [0.5, 12544]}, "counts must be whole numbers"),
        ({"size": [112, 112], "counts": [10**30]}, "counts"),
        ({"size": [112, 112], "counts": "!!"}, "counts has a character"),
        ({"size": [112, 112], "counts": ""}, "counts add up to 0"),
        (5, "mask must be"),
        ("", "cannot be opened"),
        ("none.png", "none.png cannot be opened"),
    ],
)
def test_masks_that_are_none(one, refused, mask, said):
    folder, sample, path = one
    masked(path, sample.id, mask)
    told = refused("evaluate", path, "--data", folder)
    assert said in told
    assert f"{path}:1" in told


def test_pictures_of_masks_in_every_mode(one, tmp_path, measured):
    folder, sample, path = one
    true = sample.target.mask
    grey, none = (true * 255).astype(np.uint8), np.zeros_like(true, np.uint8)
    palette = Image.fromarray(true.astype(np.uint8)).convert("P")
    palette.putdata(true.astype(np.uint8).ravel().tolist())
    palette.putpalette([255, 255, 255, 10, 20, 0] + [0] * 762)  # index 1 is the object, whatever its colour
    pictures = {
        "palette": palette,
        "grey": Image.fromarray(grey),
        "one": Image.fromarray(true.astype(np.uint8)),
        "bit": Image.fromarray(true),
        "sixteen": Image.fromarray(true.astype(np.uint16) * 40_000),
        "green": Image.fromarray(np.dstack([none, grey, none])),
        "opaque": Image.fromarray(np.dstack([grey, grey, grey, np.full_like(grey, 255)])),
        "grey-alpha": Image.fromarray(grey).convert("LA"),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
        masked(path, sample.id, f"{name}.png")
        assert measured(path, "--data", folder)[1]["giou"] == 1, name


def test_pictures_that_are_no_mask(one, tmp_path, refused):
    folder, sample, path = one
    true = sample.target.mask
    black = np.zeros((*true.shape, 3), np.uint8)
    Image.fromarray(np.dstack([black, (true * 255).astype(np.uint8)])).save(tmp_path / "alpha.png")
    Image.fromarray((true * 255).astype(np.uint8)).save(tmp_path / "m.jpg")
    (tmp_path / "cut.png").write_bytes((tmp_path / "alpha.png").read_bytes()[:40])
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object))
    (tmp_path / "junk.npz").write_bytes(b"PK\x03\x04junk")
    for name, said in (
        ("alpha.png", "has its shape in the alpha channel"),
        ("m.jpg", "is a JPEG, which changes pixels along edges"),
        ("cut.png", "cannot be opened"),
        ("o.npy", "Object arrays cannot be loaded"),
        ("junk.npz", "cannot be read as NumPy's"),
    ):
        masked(path, sample.id, name)
        told = refused("evaluate", path, "--data", folder)
        assert said in told
        assert f"{path}:1: {tmp_path / name}" in told


def test_archives(one, tmp_path, measured, refused):
    folder, sample, _ = one
    true = sample.target.mask
    path = tmp_path / "a.npz"
    for array in (np.where(true, 1, -1), np.where(true, 0.5, -2.0), true, true[None]):  # logits: above 0
        np.savez(path, **{sample.id: array})
        assert measured(path, "--data", folder)[1]["giou"] == 1
    for array, said in (
        (np.array([{"a": 1}], dtype=object), "cannot be read: Object arrays"),
        (np.full(true.shape, np.nan), "must be of finite numbers"),
        (np.zeros((0, 0)), "must be numbers [H, W]"),
        (np.zeros((*true.shape, 3)), "must be numbers [H, W]"),
    ):
        np.savez(path, **{sample.id: array})
        assert f"{path}: " in (told := refused("evaluate", path, "--data", folder))
        assert said in told
    np.savez(path)
    assert "holds no array" in refused("evaluate", path, "--data", folder)
    path.write_bytes(b"PK\x03\x04junk")
    assert "cannot be read as NumPy's: File is not a zip file" in refused("evaluate", path, "--data", folder)


@pytest.mark.parametrize(("field", "value", "said"), [(6, 1, "is encrypted"), (8, 99, "compression method")])
def test_archives_that_python_cannot_unpack(one, tmp_path, refused, field, value, said):
    """Both are a RuntimeError of zipfile, or a child of it. The field is that of a member's own head."""
    folder, sample, _ = one
    path = tmp_path / "a.npz"
    np.savez(path, **{sample.id: sample.target.mask})
    content = bytearray(path.read_bytes())
    for head, further in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):  # the central directory has them two bytes on
        content[content.find(head) + field + further] = value
    path.write_bytes(content)
    told = refused("evaluate", path, "--data", folder)
    assert f"{path}: array" in told
    assert said in told


def test_parquet_says_what_jsonl_says(world, tmp_path, measured):
    folder, samples, path = world
    text = '<think>t t</think><answer>{"bbox": [1, 2, 60, 70]}</answer>'
    rows = [{"id": s.id, "completion": text, "model_size": [100, 90]} for s in samples]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = measured(path, "--data", folder, "--format", "vlm-r1")[0]
    assert expected["protocols"]["strict"]["gIoU"] > 0
    file = tmp_path / "p.parquet"
    parquet.write_table(
        pa.Table.from_pylist([{**row, "other": b"\x89"} for row in reversed(rows)]), file, row_group_size=2
    )
    found = measured(file, "--data", folder, "--format", "vlm-r1")[0]
    assert {**found, "settings": None} == {**expected, "settings": None}
    coded = [rle_of(s.target.mask) for s in samples]
    for masks in (
        coded,
        [json.dumps(mask) for mask in coded],
        [{**mask, "counts": mask["counts"].encode()} for mask in coded],
    ):
        table = [{"id": s.id, "completion": None, "mask": mask} for s, mask in zip(samples, masks, strict=True)]
        parquet.write_table(pa.Table.from_pylist(table), file)
        assert measured(file, "--data", folder)[1]["giou"] == 1


def test_parquet_that_is_none(world, tmp_path, refused):
    folder, samples, _ = world
    file = tmp_path / "p.parquet"
    for rows, said in (
        ([{"x": 1}], "must have the columns id and completion (or mask), it has x"),
        ([{"id": samples[0].id, "completion": "x"}, {"id": None, "completion": "x"}], "p.parquet: row 1 must be"),
        ([{"id": 3, "completion": "x"}], "p.parquet: row 0: id '3' is not in"),
    ):
        parquet.write_table(pa.Table.from_pylist(rows), file)
        assert said in refused("evaluate", file, "--data", folder)
    whole = file.read_bytes()
    for content in (b"junk", whole[: len(whole) // 2], b""):
        file.write_bytes(content)
        assert "p.parquet cannot be read as Parquet" in refused("evaluate", file, "--data", folder)


@pytest.mark.parametrize(
    ("truth", "said"),
    [
        ({"box": [5, 5, 5, 9]}, "a has neither a ground-truth mask nor a box with an area"),
        ({"box": [-1e308, -1e308, 1e308, 1e308]}, "box with an area"),
        ({"box": [0, 0, float("nan"), 1]}, "d.jsonl: line 1: box must hold 4 finite numbers"),
        ({"points": [[1, 1], [2, 2]]}, "a has neither"),
        ({"mask": {"size": [0, 0], "counts": []}}, "size has no pixel"),
        ({"mask": {"size": [40, 60], "counts": "zz!"}}, "d.jsonl: line 1: mask has run lengths that cannot be read"),
        ({"box": [0, 0, 1, 1], "image": "none.png"}, "d.jsonl: line 1: image cannot be opened"),
    ],
)
def test_data_that_is_none(tmp_path, refused, truth, said):
    Image.new("RGB", (60, 40)).save(tmp_path / "p.png")
    (tmp_path / "d.jsonl").write_text(json.dumps({"id": "a", "image": "p.png", "query": "q", **truth}))
    (tmp_path / "p.jsonl").write_text(json.dumps({"id": "a", "completion": "x"}))
    assert said in refused("evaluate", tmp_path / "p.jsonl", "--data", tmp_path / "d.jsonl")


def test_a_sample_that_cannot_be_read_is_left_out_where_that_is_asked_for(tmp_path, measured):
    Image.new("RGB", (60, 40)).save(tmp_path / "p.png")
    rows = [{"id": name, "image": f"{name}.png", "query": "q", "box": [0, 0, 9, 9]} for name in ("none", "p")]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [{"id": row["id"], "completion": '[{"bbox_2d": [0, 0, 9, 9]}]'} for row in rows]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ("--data", tmp_path / "d.jsonl", "--format", "qwen3-vl", "--model-size", "60x40", "--unknown", "skip")
    found, values = measured(tmp_path / "p.jsonl", *options)
    assert (found["n"], found["missing"], values["box_p50"]) == (1, 0, 1)
    assert any("1 files of the data cannot be read" in note and "none.png" in note for note in found["notes"])


def test_options_of_data(tmp_path, measured, refused):
    picture = tmp_path / "elsewhere" / "p.png"
    picture.parent.mkdir()
    Image.new("RGB", (60, 40)).save(picture)
    (tmp_path / "sets").mkdir()
    for split in ("train", "test"):
        rows = [{"n": f"{split}-{i}", "file": "p.png", "text": "q", "b": [0, 0, 9, 9]} for i in range(3)]
        (tmp_path / "sets" / f"{split}-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"id": f"test-{i}", "completion": "?"}) + "\n" for i in range(3)))
    given = (path, "--data", tmp_path / "sets", "--form", "rows", "--images", picture.parent)
    columns = ("--columns", "id=n", "image=file", "query=text", "box=b")
    found = measured(*given, *columns, "--split", "test")[0]
    assert [row["id"] for row in found["records"]] == ["test-0", "test-1", "test-2"]
    found = measured(*given, *columns, "--split", "test", "--limit", "2")[0]
    assert (found["n"], found["missing"]) == (2, 0)
    assert "id 'test-0' is not in" in refused("evaluate", *given, *columns, "--split", "train")
    assert "has the splits test, train" in refused("evaluate", *given, *columns)
    assert "--columns knows no 'x'" in refused("evaluate", *given, "--columns", "x=y")
    assert "--limit must be at least 1, got 0" in refused("evaluate", *given, *columns, "--limit", "0")
    assert "line 1: file cannot be opened" in refused("evaluate", *given[:-2], *columns, "--split", "test")


def test_splits_of_reasonseg_are_folders(world, measured, refused):
    folder, _, path = world
    found = measured(path, "--data", folder.parent, "--form", "reasonseg", "--split", folder.name)[0]
    assert (found["n"], found["missing"]) == (1, 2)
    assert "is none" in refused("evaluate", path, "--data", folder.parent, "--form", "reasonseg", "--split", "val")
    assert measured(path, "--data", folder, "--limit", "1")[0]["missing"] == 0


def test_a_file_that_is_no_side_file_is_kept(one, tmp_path, refused):
    folder, _, path = one
    notes = tmp_path / "o.json.part"
    notes.write_text("my notes\n")
    assert "o.json.part is there and no file of finished chunks" in refused(
        "evaluate", path, "--data", folder, "--json", tmp_path / "o.json"
    )
    assert notes.read_text() == "my notes\n"
    notes.write_bytes(path.read_bytes())
    said = refused("evaluate", notes, "--data", folder, "--json", tmp_path / "o.json")
    assert "would be written over an input" in said
    assert notes.read_bytes() == path.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts by signal")
def test_an_interrupt_is_one_line_and_leaves_no_process(one, tmp_path):
    folder, sample, path = one
    path.write_text((json.dumps({"id": sample.id, "completion": "word " * 2000}) + "\n") * 20_000)
    command = [sys.executable, "-m", "dpad_fast", "evaluate", path, "--data", folder, "--json", tmp_path / "o.json"]
    # A shell starts what runs in its background with SIGINT ignored, which tests would hand on.
    heard = "import signal, sys, os; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", heard, *map(str, command), "--workers", "2"],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    side, end = tmp_path / "o.json.part", time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None and not (side.is_file() and side.stat().st_size > 4000):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal sends it: to every process of the group
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.strip() == "dpad-fast evaluate: interrupted"
    while time.monotonic() < end and alive(process.pid):
        time.sleep(0.05)
    assert not alive(process.pid)
    assert side.stat().st_size > 4000
    assert not (tmp_path / "o.json").exists()
