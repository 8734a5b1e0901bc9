"""Printed text holds no control characters of users, and the command line speaks UTF-8 whatever the locale says."""

import json
import os
import resource
import subprocess
import sys

import pytest

from dpad_fast import cli
from dpad_fast.data import shapes
from dpad_fast.evaluate.tables import Table
from dpad_fast.terminal import as_utf8, printable, say

LOCALES = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "ascii:surrogateescape"},
    {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
]


def test_control_characters_become_escapes():
    for raw, shown in (
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\x9b2J\u2028\u202e\u2066x\udcff\u0085\x7f", "\\x9b2J\\u2028\\u202e\\u2066x\\udcff\\x85\\x7f"),
        ("plain, \u00b1, \u4e2d\u3000\u6587, \u0645\u06cc\u200c\u062e, \U0001f600", None),
    ):
        assert printable(raw) == (raw if shown is None else shown)


def test_lines_stay_lines(capsys):
    say("one\x1b[2J\ntwo")
    say("three", quiet=True)
    assert capsys.readouterr().out == "one\\x1b[2J\ntwo\n"


def test_tables_keep_their_form():
    text = Table("t\x1b[1m", ("a", "b"), (("x\ny", "1"), ("\x1b]0;title\x07", "2")), ("note\r",)).text()
    assert "\x1b" not in text
    assert "\r" not in text
    assert len(text.splitlines()) == 8
    assert "x\\ny" in text


@pytest.mark.parametrize("command", ["score", "evaluate"])
def test_names_and_ids_reach_no_terminal_raw(tmp_path, capsys, command):
    evil = "a\x1b[31m\u202e"
    item = shapes.sample(3, 0)
    data = tmp_path / "data\x1b[2J"
    shapes.export_reasonseg(data, seed=3, count=1)
    for ending in ("json", "png"):
        (data / f"{item.id}.{ending}").rename(data / f"{evil}.{ending}")
    lines = tmp_path / f"{evil}.jsonl"
    lines.write_text(json.dumps({"id": evil, "completion": "?"}))
    extra = ["--preset", "seg-zero"] if command == "score" else []
    assert cli.main([command, str(lines), "--data", str(data), *extra]) == 0
    lines.write_text(json.dumps({"id": "\x1b[5m", "completion": "?"}))
    assert cli.main([command, str(lines), "--data", str(data), *extra]) == 2
    assert cli.main([command, str(tmp_path / "\x1bno"), "--data", str(data), *extra]) == 2
    with pytest.raises(SystemExit):
        cli.main([command, "x", "\x1b[31m"])
    shown = capsys.readouterr()
    assert "a\\x1b[31m\\u202e" in shown.out
    assert "\\x1b[5m" in shown.err
    for text in (shown.out, shown.err):
        assert "\x1b" not in text
        assert "\u202e" not in text


def _run(arguments, stdin, environment):
    return subprocess.run(
        [sys.executable, "-m", "dpad_fast.cli", *arguments],
        input=stdin,
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.mark.parametrize("environment", LOCALES)
def test_any_locale_reads_and_writes_utf8(tmp_path, environment):
    data = shapes.export_reasonseg(tmp_path / "data", seed=3, count=1)
    text = "<think>\u4e2d\u2028\u6587</think>"
    line = json.dumps({"id": "shapes-3-0", "completion": text}, ensure_ascii=False).encode()
    scored = _run(["score", "-", "--data", str(data), "--preset", "seg-zero", "--out", "-"], line, environment)
    assert (scored.returncode, scored.stderr) == (0, b"")
    assert json.loads(scored.stdout)["completion"] == text
    measured = _run(["evaluate", "-", "--data", str(data)], line, environment)
    assert (measured.returncode, measured.stderr) == (0, b"")
    assert "\u00b1 is the bootstrap" in measured.stdout.decode("utf-8")


def test_bytes_that_are_no_utf8_are_refused_by_line(tmp_path):
    data = shapes.export_reasonseg(tmp_path / "data", seed=3, count=1)
    lines = json.dumps({"id": "shapes-3-0", "completion": "x"}).encode() + b'\n{"id": "shapes-3-0\xff"}\n'
    arguments = ["score", "-", "--data", str(data), "--preset", "seg-zero"]
    refused = _run(arguments, lines, LOCALES[0])
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert refused.stderr == b"dpad-fast score: error: standard input:2 is not UTF-8 (byte 0xff)\n"


def test_names_of_files_are_utf8_whatever_the_locale_says(tmp_path):
    for name in ("caf\u00e9-\u65e5\u672c", "\udcff", "\ud800"):  # the last two stand for no UTF-8
        assert printable(as_utf8(name)) == printable(name)
    assert as_utf8("caf\udcc3\udca9\udcff") == "caf\u00e9\udcff"
    data = shapes.export_reasonseg(tmp_path / "data\u00e9", seed=3, count=1)
    for ending in ("json", "png"):
        (data / f"shapes-3-0.{ending}").rename(data / f"caf\u00e9.{ending}")
    line = json.dumps({"id": "caf\u00e9", "completion": "x"}, ensure_ascii=False).encode()
    scored = _run(["score", "-", "--data", str(data), "--preset", "seg-zero", "--out", "-"], line, LOCALES[0])
    assert (scored.returncode, scored.stderr) == (0, b"")
    assert json.loads(scored.stdout)["id"] == "caf\u00e9"
    refused = _run(["score", "-", "--data", str(data)], b'{"id": "no", "completion": ""}', LOCALES[0])
    assert refused.stderr.decode() == (
        f"dpad-fast score: error: standard input:1: id 'no' is not in {data}, which holds caf\u00e9\n"
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_standard_output_that_takes_a_part_is_an_error(tmp_path, unbuffered):
    data = shapes.export_reasonseg(tmp_path / "data", seed=3, count=1)
    lines = tmp_path / "p.jsonl"
    lines.write_text(json.dumps({"id": "shapes-3-0", "completion": "x" * 50_000}) + "\n")
    with open(tmp_path / "out", "wb") as out:
        done = subprocess.run(
            [sys.executable, "-m", "dpad_fast.cli", "score", lines, "--data", data, "--preset=seg-zero", "--out", "-"],
            stdout=out,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)),
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == b"dpad-fast score: error: File too large: standard output\n"


@pytest.mark.parametrize(
    ("closed", "status", "said"),
    [
        ("<&-", 2, "dpad-fast score: error: standard input is closed\n"),
        (">&-", 2, "dpad-fast: error: standard output is closed; /dev/null takes what nobody wants\n"),
        ("</dev/null 2>&-", 2, ""),
    ],
)
def test_closed_streams_are_one_line(tmp_path, closed, status, said):
    data = shapes.export_reasonseg(tmp_path / "data", seed=3, count=1)
    command = f'"{sys.executable}" -m dpad_fast.cli score - --data "{data}" --preset seg-zero {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", said)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["train", "--help"], ["data", "shapes", "-h"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_help_on_a_full_disk(arguments, unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "dpad_fast.cli", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    name = " ".join(["dpad-fast", *arguments[:1]]) if arguments and arguments[0][0] != "-" else "dpad-fast"
    assert (done.returncode, done.stderr) == (2, f"{name}: error: No space left on device: standard output\n")


@pytest.mark.parametrize("module", [["dpad_fast.info"], ["dpad_fast.cli", "info"]])
def test_info_whose_reader_left_says_nothing(module):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", *module], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", *module], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith(b"error: No space left on device: standard output\n")
    assert done.stderr.count(b"\n") == 1
