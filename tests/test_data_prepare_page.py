"""docs/data-prepare.md: its commands run, on the sample data where that is beside the checkout."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from dpad_fast import cli
from dpad_fast.data import shapes
from dpad_fast.testing import pages

PAGE = Path(__file__).parents[1] / "docs" / "data-prepare.md"
MINI = Path(__file__).parents[2] / "shared" / "data" / "reasonseg-mini"


@pytest.mark.skipif(not MINI.is_dir(), reason="the shared sample data is not beside this checkout")
def test_every_command_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("reasonseg-mini").symlink_to(MINI)
    with open("answers.jsonl", "w") as file:
        for sample in (shapes.sample(3, i) for i in range(50)):
            box = (np.array(sample.target.box) * 1000 / 112).round().tolist()
            file.write(json.dumps({"id": sample.id, "completion": json.dumps({"bbox_2d": box})}) + "\n")
    said = []
    for block in pages.blocks(PAGE.read_text(encoding="utf-8")):
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "dpad-fast"
            assert cli.main(arguments) == 0, line
            said.append(capsys.readouterr().out)
    assert len(said) == 5
    assert "prepared 6 rows in 1 file in train-840" in said[2]
    assert json.loads(Path("report.json").read_text())["rows"] == 6
    assert "score them with coordinates: norm1000" in said[4]
    assert Path("rows.html").read_text().count("<figure>") == 6
