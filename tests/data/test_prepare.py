"""Prepared data sets: what `datasets` reads of them, bad rows, and the same bytes after any interruption."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import dpad_fast as df
from dpad_fast import coco_mask
from dpad_fast._mask_geometry import box_of
from dpad_fast.data import reasonseg, shapes
from dpad_fast.data.prepare import prepare
from dpad_fast.lock import only_one

WORLD = "shapes:3:10"


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rows_of(folder):
    from datasets import load_dataset

    return load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache"))


def test_rows_are_the_samples_at_the_new_size(tmp_path):
    made = prepare(WORLD, tmp_path / "o", size="224x168", shard_rows=4)
    assert (made.rows, made.shards, made.kept, made.bad) == (10, 3, 0, ())
    names = ["train-00000-of-00003.parquet", "train-00001-of-00003.parquet", "train-00002-of-00003.parquet"]
    assert sorted(content(tmp_path / "o")) == ["bad-rows.jsonl", "dataset.json", *names]
    rows = rows_of(tmp_path / "o")
    columns = ["id", "problem", "solution", "image", "img_height", "img_width", "mask", "ignore", "other_boxes"]
    assert rows.column_names == [*columns, "polygons"]
    for row, sample in zip(rows, (shapes.sample(3, i) for i in range(10)), strict=True):
        assert (row["id"], row["problem"]) == (sample.id, sample.query)
        assert (row["img_width"], row["img_height"]) == row["image"].size == (224, 168)
        expected = sample.image.resize((224, 168), Image.Resampling.BILINEAR)
        assert np.array_equal(row["image"], expected)
        target = df.Target.parse(row["solution"], image_size=(224, 168))
        mask = coco_mask.decode(json.loads(row["mask"])).astype(bool)
        own = sample.target.box == box_of(sample.target.mask)  # else it is the world's grid, a pixel or two off
        scaled = np.floor(np.array(sample.target.box) * [2, 1.5, 2, 1.5] + 0.5)
        assert target.box == (box_of(mask) if own else tuple(scaled))
        assert np.abs(np.array(target.box) - scaled).max() <= 1
        assert all(mask[int(y), int(x)] for x, y in target.points)
        assert np.allclose(row["other_boxes"], np.array(sample.target.other_boxes) * [2, 1.5, 2, 1.5])
        assert np.allclose(json.loads(row["polygons"])[0], sample.target.polygons[0] * [2, 1.5])
        assert row["ignore"] is None
    note = json.loads((tmp_path / "o" / "dataset.json").read_text())
    assert note["counts"] == {"rows": 10, "bad": 0, "shards": 3}
    assert (note["form"], note["size"], note["source"]) == ("shapes", "224x168", WORLD)


def test_processes_and_progress_make_the_same_files(tmp_path):
    seen = []
    prepare(WORLD, tmp_path / "one", shard_rows=3, progress=seen.append)
    prepare(WORLD, tmp_path / "two", shard_rows=3, workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert seen[-1] == 10
    assert seen == sorted(seen)


@pytest.fixture
def broken(tmp_path):
    """Four rows of which one has a cut picture, one no target, and one is no JSON."""
    folder = shapes.export_reasonseg(tmp_path / "data", seed=3, count=4)
    names = sorted(path.stem for path in folder.glob("*.json"))
    picture = next(path for path in folder.glob(f"{names[0]}.*") if path.suffix != ".json")
    picture.write_bytes(picture.read_bytes()[:400])
    empty = folder / f"{names[1]}.json"
    empty.write_text(json.dumps(json.loads(empty.read_text()) | {"shapes": []}))
    (folder / f"{names[3]}.json").write_text("{")
    return folder, names


def test_bad_rows_are_left_out_and_listed(tmp_path, broken):
    folder, names = broken
    made = prepare(folder, tmp_path / "o", shard_rows=2)
    assert made.rows == 1
    lines = [json.loads(line) for line in (tmp_path / "o" / "bad-rows.jsonl").read_text().splitlines()]
    assert lines == [row._asdict() for row in made.bad]
    assert [row.row for row in made.bad] == [0, 1, 3]
    for row, (name, said) in zip(
        made.bad, ((0, "cannot be"), (1, "there is no target"), (3, "not valid JSON")), strict=True
    ):
        assert names[name] in row.reason
        assert said in row.reason
    assert rows_of(tmp_path / "o")["id"] == [names[2]]  # beside a bad-rows.jsonl that is not empty
    assert prepare(folder, tmp_path / "o", shard_rows=2).bad == made.bad


def test_all_bad_is_an_error(tmp_path, broken):
    folder, names = broken
    for path in folder.glob(f"{names[2]}.*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"gives no row: 3 are bad; the first: shapes-3-0"):
        prepare(folder, tmp_path / "o")
    assert len((tmp_path / "o" / "bad-rows.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize("left", [0, 1, 2, 3])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch, left):
    """Interrupted after each shard, and while the files are being named."""
    from dpad_fast.data import prepare as module

    whole = content(prepare(WORLD, tmp_path / "whole", shard_rows=4).folder)
    real, calls = (module.write_shard, []) if left < 3 else (os.replace, [])

    def stop(*arguments):
        if len(calls) == (left if left < 3 else 2) and (left < 3 or "train-" in str(arguments[1])):
            raise KeyboardInterrupt
        if left < 3 or "train-" in str(arguments[1]):
            calls.append(1)
        return real(*arguments)

    monkeypatch.setattr(module, "write_shard", stop) if left < 3 else monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(WORLD, tmp_path / "o", shard_rows=4)
    monkeypatch.undo()
    assert json.loads((tmp_path / "o" / "dataset.json").read_text())["complete"] is False
    made = prepare(WORLD, tmp_path / "o", shard_rows=4)
    assert made.kept == left
    assert content(tmp_path / "o") == whole


def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bytes(tmp_path):
    code = "import sys; from dpad_fast.data.prepare import prepare\nif __name__ == '__main__':\n"
    code += " prepare('shapes:3:60', sys.argv[1], size='300x300', shard_rows=2, workers=int(sys.argv[2]))"
    (tmp_path / "run.py").write_text(code)
    whole = content(prepare("shapes:3:60", tmp_path / "whole", size="300x300", shard_rows=2).folder)
    out = tmp_path / "o"
    process = subprocess.Popen([sys.executable, tmp_path / "run.py", out, "2"])
    until = time.monotonic() + 60
    while not any(out.glob(".shard-0000[3-9]")) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = prepare("shapes:3:60", out, size="300x300", shard_rows=2)
    assert made.kept >= 1
    left = {name: data for name, data in content(out).items() if not name.endswith(".partial")}
    assert left == whole


def test_a_whole_set_is_not_made_again_and_another_is_not_mixed_in(tmp_path, monkeypatch):
    folder = shapes.export_reasonseg(tmp_path / "data", seed=3, count=3)
    out = tmp_path / "o"
    prepare(folder, out, size="56x56")
    monkeypatch.setattr("dpad_fast.data.forms.load", None)  # nothing is read
    assert prepare(folder, out, size="56x56").kept == 1
    for settings, said in (
        ({"size": "57x56"}, "size was '56x56' and is '57x56'"),
        ({"size": "56x56", "limit": 2}, "limit was 0 and is 2"),
        ({"size": "56x56", "shard_rows": 2}, "shard_rows was 256 and is 2"),
    ):
        with pytest.raises(ValueError, match=f"holds another data set: {said}"):
            prepare(folder, out, **settings)
    monkeypatch.undo()
    next(iter(folder.glob("*.json"))).write_text("{}")
    with pytest.raises(ValueError, match="the files of the source have changed"):
        prepare(folder, out, size="56x56")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.parquet").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"holds Parquet files but no dataset\.json"):
        prepare(folder, tmp_path / "other")


def test_a_damaged_shard_is_made_again(tmp_path):
    whole = content(prepare(WORLD, tmp_path / "o", shard_rows=4).folder)
    (tmp_path / "o" / "train-00001-of-00003.parquet").write_bytes(b"PAR1")
    assert prepare(WORLD, tmp_path / "o", shard_rows=4).kept == 2
    assert content(tmp_path / "o") == whole


def test_pictures_that_are_not_resized_keep_their_bytes(tmp_path):
    from datasets import Image as Encoded

    folder = shapes.export_reasonseg(tmp_path / "data", seed=3, count=2)
    prepare(folder, tmp_path / "o")
    for row, sample in zip(
        rows_of(tmp_path / "o").cast_column("image", Encoded(decode=False)), reasonseg.load(folder), strict=True
    ):
        with open(sample.image, "rb") as file:
            assert row["image"]["bytes"] == file.read()


def test_numbers_out_of_range_are_refused(tmp_path):
    for name, value in (("workers", 0), ("workers", 1000), ("shard_rows", 0), ("limit", -1), ("limit", True)):
        with pytest.raises(ValueError, match=f"{name} must be a whole number"):
            prepare(WORLD, tmp_path / "o", **{name: value})


def test_a_run_that_made_no_shard_holds_up_no_other(tmp_path):
    empty = tmp_path / "s.jsonl"
    empty.write_text('{"image": "gone.png", "query": "q", "box": [1, 2, 3, 4]}\n')
    out = tmp_path / "o"
    with pytest.raises(ValueError, match="images must be a list, got None"):
        prepare(empty, out, form="coco")
    with pytest.raises(ValueError, match="gives no row: 1 are bad"):
        prepare(empty, out)
    broken = tmp_path / "broken.png"
    Image.new("RGB", (64, 64)).save(broken)
    broken.write_bytes(broken.read_bytes()[:60])  # its header can be read, so the row is found bad in the shard
    empty.write_text('{"image": "broken.png", "query": "q", "box": [1, 2, 3, 4]}\n')
    with pytest.raises(ValueError, match=r"gives no row: 1 are bad; .*broken.png cannot be decoded"):
        prepare(empty, out)
    assert prepare(WORLD, out).rows == 10


def test_two_runs_at_once_in_one_folder_are_refused(tmp_path):
    with only_one(tmp_path / "o", mark=False):
        told = subprocess.run(
            [sys.executable, "-m", "dpad_fast.cli", "data", "prepare", WORLD, "--out", str(tmp_path / "o")],
            capture_output=True,
            text=True,
            check=False,
        )
    assert told.returncode == 2
    assert "is in use by another run" in told.stderr
    assert told.stderr.count("\n") == 1
    assert content(tmp_path / "o") == {}
    assert prepare(WORLD, tmp_path / "o").rows == 10


def test_a_link_that_leads_nowhere_beside_the_data_stops_nothing(tmp_path):
    folder = tmp_path / "s"
    shapes.export_reasonseg(folder, seed=3, count=1)
    (folder / "cache").symlink_to(tmp_path / "nothing")
    assert prepare(folder, tmp_path / "o").rows == 1
