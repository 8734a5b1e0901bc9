"""`evaluate` and `score`: runs that were cut off, folders that cannot be written to, processes that die."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from dpad_fast import cli

_PREDICTIONS, _SCORES = ("evaluate", "--predictions"), ("score", "--preset", "seg-zero")


@pytest.fixture
def given(monkeypatch):
    """A function: text -> the next command's standard input."""
    return lambda text: monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


@pytest.mark.parametrize(("command", "out"), [(_PREDICTIONS, "--json"), (_SCORES, "--out")])
def test_other_lines_on_standard_input_are_not_gone_on_with(
    world, tmp_path, shared, given, monkeypatch, capsys, command, out
):
    """The name of both is "-"; the chunks that were finished are of the first one's lines."""
    from dpad_fast.evaluate import chunks

    folder, samples, path = world
    right = shared.write(path, [(s.id, shared.completion(shared.box_answer(s.target.box))) for s in samples])
    told = [right.read_text(), right.read_text().replace("a red circle", "another")]
    monkeypatch.setattr(chunks, "CHUNK", 1)
    monkeypatch.setattr(chunks.chunked, "__defaults__", (1,))
    target = tmp_path / ("o.json" if out == "--json" else "o.jsonl")
    arguments = [*command, "-", "--data", str(folder), out, str(target)]
    true_write = chunks._write

    def cut_off(side, results):
        true_write(side, results)
        raise KeyboardInterrupt

    for text, wanted in ((told[0], "a red circle"), (told[1], "another")):
        given(told[0])
        with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
            patched.setattr(chunks, "_write", cut_off)
            cli.main(arguments)
        assert Path(f"{target}.part").exists()
        capsys.readouterr()
        given(text)
        assert cli.main(arguments) == 0
        assert ("going on after 1 chunks" in capsys.readouterr().err) == (text == told[0])
        assert target.read_text().count(wanted) >= 3
        target.unlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_read_as_its_file_would_be(world, tmp_path, run):
    folder, _, path = world
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for command in (_PREDICTIONS, _SCORES):
        out = "--json" if command is _PREDICTIONS else "--out"
        writer = threading.Thread(target=pipe.write_bytes, args=(path.read_bytes(),), daemon=True)
        writer.start()
        found = run(*command, pipe, "--data", folder, out, "-")
        writer.join(10)
        wanted = run(*command, path, "--data", folder, out, "-")
        assert found.replace(str(pipe), str(path)) == wanted


def test_folders_that_cannot_be_written_to_are_told_at_once(world, tmp_path):
    """As a user has it; root may write everywhere, until it gives that up."""
    folder, _, path = world
    prefix = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("no setpriv, and root may write everywhere")
        prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o500)
    place = os.pathsep.join([str(Path(cli.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    script = (
        "import json, sys\nfrom dpad_fast import cli\nsys.exit(max(cli.main(line) for line in json.loads(sys.argv[1])))"
    )
    lines = [
        ["evaluate", str(path), "--data", str(folder), "--json", str(closed / "o.json")],
        ["score", str(path), "--data", str(folder), "--preset", "seg-zero", "--out", str(closed / "o.jsonl")],
    ]
    try:
        done = subprocess.run(
            [*prefix, sys.executable, "-c", script, json.dumps(lines)],
            env={**os.environ, "PYTHONPATH": place},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        for told, command in zip(done.stderr.splitlines(), ("evaluate", "score"), strict=True):
            assert told.startswith(f"dpad-fast {command}: error: Permission denied: {closed}")
        assert list(closed.iterdir()) == []
    finally:
        closed.chmod(0o700)


def dies(answers, images, sizes):
    """A segmenter whose process the system ends at the first answer that says so."""
    for answer in answers:
        if "dies" in answer.text:
            os.kill(os.getpid(), signal.SIGKILL)
    return [np.ones((height, width), dtype=bool) for width, height in sizes]


def test_a_process_that_dies_is_one_line(world, tmp_path, shared, refused, monkeypatch):
    folder, samples, path = world
    (tmp_path / "dying.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))  # which spawned processes get, too
    answer = shared.completion(shared.box_answer(samples[0].target.box), "dies")
    shared.write(path, [(samples[0].id, answer)])
    out = tmp_path / "o.json"
    options = ("--data", folder, "--segmenter", "dying:dies", "--json", out, "--workers", 2)
    assert "one of 2 worker processes was ended from outside" in refused("evaluate", path, *options)
    assert not out.exists()


def test_more_processes_than_chunks(world, tmp_path, run):
    folder, _, path = world
    for number in ("1", "64"):
        run("evaluate", path, "--data", folder, "--json", tmp_path / number, "--workers", number)
    assert (tmp_path / "64").read_bytes() == (tmp_path / "1").read_bytes()
