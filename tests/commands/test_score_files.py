"""`dpad-fast score` of large files: forms of data, Parquet, processes, and going on after a kill, to the byte."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from dpad_fast import cli
from dpad_fast.data import rows as row_files
from dpad_fast.data import shapes
from dpad_fast.evaluate import chunks, scoring

parquet = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")


@pytest.fixture
def table(tmp_path, shared):
    """90 answers to 30 scenes as rows, not in the order of the data, with fields of their own."""
    samples = [shapes.sample(3, index) for index in range(30)]
    data = tmp_path / "data.jsonl"
    row_files.write(samples, data)
    answers = []
    for i in range(90):
        sample = samples[(i * 7) % 30]
        text = shared.completion(shared.box_answer(sample.target.box)) if i % 3 else "no answer"
        answers.append({"id": sample.id, "completion": text, "step": i, "tag": ["x", i]})
    lines = tmp_path / "p.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in answers))
    rows = tmp_path / "p.parquet"
    parquet.write_table(pa.Table.from_pylist([{**row, "tag": row["tag"][0]} for row in answers]), rows)
    return data, lines, rows, answers


ENCODER = ("--encoder", "shapes", "--precision", "float32")


def score(*arguments):
    assert cli.main(["score", *map(str, arguments), "--quiet"]) == 0


def test_rows_keep_their_order_and_fields(table, tmp_path):
    data, lines, _, answers = table
    score(lines, "--data", data, *ENCODER, "--out", tmp_path / "o.jsonl")
    found = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [{name: row[name] for name in answers[0]} for row in found] == answers
    assert [row["reason"] == "no-tags" for row in found] == [i % 3 == 0 for i in range(90)]
    assert not (tmp_path / "o.jsonl.part").exists()


def test_parquet_in_and_out_says_what_jsonl_says(table, tmp_path):
    data, lines, rows, _ = table
    plain = tmp_path / "plain.jsonl"
    score(lines, "--data", data, *ENCODER, "--out", plain)
    expected = [json.loads(line) for line in plain.read_text().splitlines()]
    score(rows, "--data", data, *ENCODER, "--out", tmp_path / "o.jsonl", "--json", tmp_path / "s.json")
    assert [
        {**json.loads(line), "tag": row["tag"]}
        for line, row in zip((tmp_path / "o.jsonl").read_text().splitlines(), expected, strict=True)
    ] == expected
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["total"] == sum(row["total"] for row in expected) / 90
    for source in (lines, rows):
        score(source, "--data", data, *ENCODER, "--out", tmp_path / "o.parquet")
        found = parquet.read_table(tmp_path / "o.parquet")
        assert found.column_names == [*expected[0]]
        tags = [json.dumps(row["tag"]) if source == lines else row["tag"][0] for row in expected]
        assert found.to_pylist() == [{**row, "tag": tag} for row, tag in zip(expected, tags, strict=True)]
        assert found.schema.field("step").type == pa.int64()


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_processes_and_a_shared_cache_give_the_same_bytes(table, tmp_path, suffix):
    data, lines, _, _ = table
    outs = [tmp_path / f"{name}.{suffix}" for name in ("one", "two", "cached")]
    options = ((), ("--workers", 2), ("--workers", 2, "--cache", tmp_path / "cache"))
    for out, more in zip(outs, options, strict=True):
        score(lines, "--data", data, *ENCODER, "--out", out, *more)
    assert outs[0].read_bytes() == outs[1].read_bytes() == outs[2].read_bytes()
    assert (tmp_path / "cache" / "embeddings.sqlite").is_file()


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(table, tmp_path, monkeypatch, capsys):
    data, lines, _, _ = table
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    base = ("--data", data, *ENCODER)
    score(lines, *base, "--out", whole)
    true_scores, calls = scoring._scores, []

    def dying(scorer, items):
        calls.append(len(items))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return true_scores(scorer, items)

    monkeypatch.setattr(scoring, "_scores", dying)
    arguments = ["score", *map(str, (lines, *base)), "--out", str(cut)]
    assert cli.main(arguments) == 130
    assert not cut.exists()
    with (tmp_path / "cut.jsonl.part").open("a") as file:
        file.write('[[1, {"half of a li')  # what a kill in the middle of writing leaves
    capsys.readouterr()
    assert cli.main(arguments) == 0
    assert "going on after 1 chunks" in capsys.readouterr().err
    assert len(calls) == 2 + 90 // chunks.CHUNK
    assert cut.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "cut.jsonl.part").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_a_killed_run_leaves_no_process_and_goes_on(table, tmp_path):
    data, lines, _, answers = table
    lines.write_text("".join(json.dumps(row) + "\n" for row in answers * 6))
    out, base = tmp_path / "o.jsonl", ("--preset", "seg-zero", "--workers", "2")
    command = [sys.executable, "-m", "dpad_fast", "score", lines, "--data", data, *base, "--out", out]
    process = subprocess.Popen(
        [*map(str, command), "--workers", "2"], stderr=subprocess.DEVNULL, start_new_session=True
    )
    side = tmp_path / "o.jsonl.part"
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None and not (side.is_file() and side.stat().st_size > 4000):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while time.monotonic() < end and _alive(process.pid):
        time.sleep(0.05)
    assert not _alive(process.pid)
    assert not out.exists()
    for place in (out, tmp_path / "whole.jsonl"):  # in one process what two began
        score(lines, "--data", data, *base[:2], "--out", place)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def _alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_runs_of_one_output(table, tmp_path, refused):
    data, lines, _, _ = table
    out, base = tmp_path / "o.jsonl", ("--preset", "seg-zero")
    side, _ = chunks.open_side(tmp_path / "o.jsonl.part", {"of": "another run"})
    with side:
        chunks._write(side, [1])
        said = refused("score", lines, "--data", data, *base, "--out", out)
        assert f"{out}.part is in use by another run" in said
    assert (tmp_path / "o.jsonl.part").is_file()  # it is the other's
    score(lines, "--data", data, *base, "--out", out)


def test_options_of_data(table, tmp_path, refused, scores):
    data, lines, _, answers = table
    base = ("--preset", "seg-zero", "--set", "terms=[iou]")
    found = scores(lines, "--data", data, *base, "--limit", 2, "--form", "rows")
    first = {shapes.sample(3, index).id for index in range(2)}
    assert [row["step"] for row in found] == [row["step"] for row in answers if row["id"] in first]
    picture = tmp_path / "elsewhere" / "p.png"
    picture.parent.mkdir()
    Image.new("RGB", (60, 40)).save(picture)
    for split in ("train", "test"):
        row = {"n": f"{split}-7", "file": "p.png", "text": "q", "b": [0, 0, 9, 9]}
        (tmp_path / "sets").mkdir(exist_ok=True)
        (tmp_path / "sets" / f"{split}-0.jsonl").write_text(json.dumps(row))
    lines.write_text(json.dumps({"id": "test-7", "completion": "?"}))
    given = ("--data", tmp_path / "sets", "--form", "rows", "--columns", "id=n", "image=file", "query=text", "box=b")
    options = ("--split", "test", "--images", picture.parent)
    assert [row["id"] for row in scores(lines, *given, *options, *base)] == ["test-7"]
    assert "id 'test-7' is not in" in refused(
        "score", lines, *given, "--split", "train", "--images", picture.parent, *base
    )
    assert "has the splits test, train" in refused("score", lines, *given, "--images", picture.parent, *base)
    assert "file cannot be opened" in refused("score", lines, *given, "--split", "test", *base)
    assert "--limit must be at least 1, got 0" in refused("score", lines, *given, *options, "--limit", 0, *base)


def test_a_failing_row_is_named_by_its_line(table, tmp_path, refused):
    data, lines, _, answers = table
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows[0] |= {"box": [5, 5, 5, 9], "solution": None, "mask": None, "polygons": None}
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = next(i for i, row in enumerate(answers, 1) if row["id"] == rows[0]["id"])
    said = refused("score", lines, "--data", data, "--preset", "seg-zero", "--out", tmp_path / "o.jsonl")
    assert f"{lines}:{place} (sample {rows[0]['id']!r}): its target" in said
    assert not (tmp_path / "o.jsonl").exists()


def test_numbers_of_processes(table, refused):
    data, lines, _, _ = table
    for number in (0, 257):
        assert "--workers must be at least 1" in refused(
            "score", lines, "--data", data, "--preset", "seg-zero", "--workers", number
        )
    bad = ("--encoder", "./no/such/folder", "--workers", 2)
    assert "'./no/such/folder' cannot be loaded" in refused("score", lines, "--data", data, *bad)
