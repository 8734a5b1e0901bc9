"""Outputs are whole or as they were: a full disk, a limit on sizes, a kill, links, pipes."""

import errno
import json
import os
import resource
import stat
import subprocess
import sys

import pytest

from dpad_fast import cli, files
from dpad_fast.data import shapes
from dpad_fast.evaluate import report
from dpad_fast.train import resume

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _raise(error):
    raise error


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_loses_nothing_and_is_named(tmp_path, monkeypatch, call):
    path = tmp_path / "out.json"
    files.write_text(path, "good\n")
    real = os.write
    if call == "write":  # a part fits, as on a real disk
        monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]) if len(data) > 5 else _raise(FULL))
    else:
        monkeypatch.setattr(os, "fsync", lambda fd: _raise(FULL))
    for write in (lambda: files.write_json(path, [1] * 50), lambda: resume.write_json(path, {"a": 1})):
        with pytest.raises(OSError, match="No space left on device") as told:
            write()
        assert told.value.filename == str(path)
    monkeypatch.undo()
    assert path.read_text() == "good\n"
    assert left_in(tmp_path) == ["out.json"]


def test_what_is_written_in_parts_is_whole(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    content = bytes(range(256)) * 3
    files.write_bytes(tmp_path / "new" / "folder" / "x", content)
    assert (tmp_path / "new" / "folder" / "x").read_bytes() == content


def test_a_file_written_piece_by_piece_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "new" / "x"
    for content in ("old", "new"):
        with files.replacing(path) as place:
            place.write_text(content)
    assert path.read_text() == "new"
    path.chmod(0o640)

    def fails():
        with files.replacing(path) as place, place.open("w") as file:
            file.write("half")
            raise FULL

    with pytest.raises(OSError, match="No space left on device") as told:
        fails()
    assert told.value.filename == str(path)
    with files.replacing(path) as place:
        place.write_text("newer")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode), left_in(path.parent)) == ("newer", 0o640, ["x"])


def test_a_full_disk_under_finished_chunks_is_one_line(tmp_path, monkeypatch, capsys):
    from dpad_fast.evaluate import chunks

    _, arguments = commands(tmp_path)["evaluate"]
    real = chunks.os.write
    monkeypatch.setattr(
        chunks.os, "write", lambda fd, data: _raise(FULL) if bytes(data).startswith(b"[") else real(fd, data)
    )
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == f"dpad-fast evaluate: error: No space left on device: {tmp_path}/e.json.part\n"


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": "\u00e9\ud800"})
    before = (tmp_path / "a.json").read_bytes()
    assert json.loads(before) == {"a": "\u00e9\ud800"}
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            files.write_json(tmp_path / "a.json", [bad])
    with pytest.raises(UnicodeEncodeError):
        files.write_text(tmp_path / "a.json", "\ud800")
    assert (tmp_path / "a.json").read_bytes() == before
    assert left_in(tmp_path) == ["a.json"]


def test_modes_links_and_pipes_stay_what_they_are(tmp_path):
    real, link, fifo = tmp_path / "real", tmp_path / "link", tmp_path / "pipe"
    files.write_text(real, "1")
    real.chmod(0o640)
    link.symlink_to(real)
    files.write_text(link, "2")
    assert (real.read_text(), link.is_symlink(), stat.S_IMODE(real.stat().st_mode)) == ("2", True, 0o640)
    old = os.umask(0o027)
    try:
        files.write_text(tmp_path / "new", "3")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    files.write_text(fifo, "through")
    assert os.read(reader, 99) == b"through"
    os.close(reader)
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    files.write_text("/dev/null", "gone")


def test_places_that_cannot_be_written_are_known_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(IsADirectoryError, match="Is a folder"):
        files.prepare(tmp_path)
    for below in ("below", "below/deeper"):
        with pytest.raises(NotADirectoryError, match=r"Is a file, not a folder: '.*/file'$"):
            files.make_folder(tmp_path / "file" / below)
    with pytest.raises(NotADirectoryError, match=r"Is a file, not a folder: '.*/file'$"):
        files.prepare(tmp_path / "file" / "below")
    with pytest.raises(NotADirectoryError, match=r"Is a file, not a folder: '.*/file'$"):
        files.prepare(tmp_path / "file" / "below" / "deeper")
    files.prepare(tmp_path / "a" / "b" / "c.json")
    assert left_in(tmp_path / "a" / "b") == []


def commands(folder):
    """Every command that writes a file in a moment, its output, and how it is called."""
    data = shapes.export_reasonseg(folder / "data", seed=3, count=3)
    (folder / "p.jsonl").write_text(json.dumps({"id": "shapes-3-0", "completion": "x" * 4000}) + "\n")
    lines = [str(folder / "p.jsonl"), "--data", str(data)]
    return {
        "score": ("s.jsonl", ["score", *lines, "--preset", "seg-zero", "--out", str(folder / "s.jsonl")]),
        "score means": ("m.json", ["score", *lines, "--preset", "seg-zero", "--json", str(folder / "m.json")]),
        "evaluate": ("e.json", ["evaluate", *lines, "--json", str(folder / "e.json")]),
        "info": ("i.json", ["info", "--json", str(folder / "i.json")]),
        "data": ("d/shapes-3-0.json", ["data", "shapes", "--seed", "3", "--out", str(folder / "d"), "--count", "1"]),
        "report": ("r.html", ["report", str(folder / "result.json"), "--out", str(folder / "r.html")]),
    }


@pytest.mark.parametrize("name", ["score", "score means", "evaluate", "info", "data", "report"])
def test_every_command_keeps_what_was_there_when_the_disk_is_full(tmp_path, monkeypatch, capsys, name):
    output, arguments = commands(tmp_path)[name]
    (tmp_path / "result.json").write_text('{"kind": "run"}')
    monkeypatch.setattr(report, "render", lambda results, options: "<html>")
    assert cli.main(arguments) == 0
    before = (tmp_path / output).read_bytes()
    assert len(before) > 5
    capsys.readouterr()
    monkeypatch.setattr(os, "fsync", lambda fd: _raise(FULL))
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "error: No space left on device: " in said
    assert (tmp_path / output).read_bytes() == before
    assert not list(tmp_path.rglob("*.partial"))


def test_a_limit_on_file_sizes_is_one_line_too(tmp_path):
    _, arguments = commands(tmp_path)["score"]
    (tmp_path / "s.jsonl").write_text("good\n")
    done = subprocess.run(
        [sys.executable, "-m", "dpad_fast.cli", *arguments],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"dpad-fast score: error: File too large: {tmp_path / 's.jsonl'}\n"
    assert (tmp_path / "s.jsonl").read_text() == "good\n"
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.parametrize("name", ["score", "evaluate", "info", "data"])
def test_standard_output_on_a_full_disk_is_one_line(tmp_path, name):
    _, arguments = commands(tmp_path)[name]
    for option in ("--out", "--json"):
        if option in arguments and name != "data":
            arguments[arguments.index(option) + 1 :] = ["-"]
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "dpad_fast.cli", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"dpad-fast {name}: error: No space left on device: standard output\n"
