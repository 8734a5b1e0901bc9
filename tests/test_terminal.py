"""Printed text holds no control characters of users, and the command line speaks UTF-8 whatever the locale says."""

import json
import os
import subprocess
import sys

import pytest

from dpad_fast import cli
from dpad_fast.data import shapes
from dpad_fast.evaluate.tables import Table
from dpad_fast.terminal import printable, say

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
