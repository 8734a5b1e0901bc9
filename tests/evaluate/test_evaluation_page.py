"""docs/evaluation.md names every protocol and format, and its commands run."""

import re
import shlex
from pathlib import Path

import pytest

from dpad_fast import cli
from dpad_fast.data import reasonseg, shapes
from dpad_fast.evaluate.protocols import PROTOCOLS
from dpad_fast.evaluate.readers import FORMATS

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*PROTOCOLS, *FORMATS])
def test_every_name_has_a_row(name):
    assert re.search(rf"^\| .*`{re.escape(name)}`", PAGE, re.MULTILINE)


def test_commands_run(tmp_path, monkeypatch, capsys):
    folder = shapes.export_reasonseg(tmp_path / "path" / "to" / "reasonseg", seed=3, count=2)
    sample = next(iter(reasonseg.load(folder)))
    (tmp_path / "predictions.jsonl").write_text(f'{{"id": "{sample.id}", "completion": "?"}}\n')
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^dpad-fast (.+)$", PAGE, re.MULTILINE)
    assert commands
    policy, data = "policy-e", "path/to/reasonseg"  # what the reader puts in the place of capital letters
    for command in (
        text.replace("NAME_OR_FOLDER", policy).replace("--data DATA", f"--data {data}") for text in commands
    ):
        assert cli.main(shlex.split(command)) == 0, command
    assert "not as strict" in capsys.readouterr().out
