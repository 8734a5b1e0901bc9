"""Results that are read from files: a run that has not ended, and what is none."""

import json
import re

import numpy as np
import pytest

from dpad_fast.data import shapes
from dpad_fast.evaluate.measure import Record, to_rows
from dpad_fast.evaluate.report import render
from dpad_fast.evaluate.results import read_file
from dpad_fast.train.config import TrainConfig

CONFIG = TrainConfig(name="r").as_dict()
ROWS = to_rows([Record(shapes.sample(9000, i).id, "x", 3, 50 + i, 100, True, 0.5, 0.25) for i in range(8)])


def test_a_run_that_has_not_ended_shows_what_there_is(tmp_path):
    """Killed after step 4: what was measured before, and the log as far as the last checkpoint that is whole."""
    (tmp_path / "config.json").write_text(json.dumps({"fingerprint": "f", "config": CONFIG}))
    with pytest.raises(ValueError, match="is a run that has not got far enough: nothing is measured or logged yet"):
        read_file(tmp_path)
    (tmp_path / "before.json").write_text(json.dumps({"mark": "m", "records": ROWS}))
    for step, text in ((2, None), (4, None), (5, "{")):
        log = [{"step": i, "reward": 0.5 * i} for i in range(1, step + 1)] + [{"train_runtime": 3.0}]
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text(text or json.dumps({"log_history": log}))
    (tmp_path / "during.json").write_text(json.dumps([{"step": 2, "metrics": {"giou": {"value": 0.5}}}, "?"]))
    content = read_file(tmp_path)
    assert [line["step"] for line in content["during"]] == [2]
    assert [line["step"] for line in content["history"]] == [1, 2, 3, 4]
    assert content["before"]["giou"]["value"] == pytest.approx(np.mean([0.5 + 0.01 * i for i in range(8)]))
    page = render([(str(tmp_path), content)])
    data = json.loads(re.search(r"id='data'>(.*?)</script>", page).group(1))
    assert [one["moment"] for one in data["series"]] == ["before"]
    assert data["curves"][0][0]["lines"][0]["values"] == [0.5, 1, 1.5, 2]
    assert {one["title"]: one["steps"] for one in data["curves"][1]}["gIoU"] == [0, 2]
    assert "has not ended; its log is known up to step 4" in page
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ValueError, match=r"elsewhere holds neither result\.json nor config\.json of a run"):
        read_file(tmp_path / "elsewhere")


def test_files_that_are_no_results_are_named(tmp_path):
    for name, text, words in (
        ("coco.json", '{"images": []}', "does not hold a result of dpad-fast train, demo or evaluate"),
        ("list.json", "[1]", "does not hold a result"),
        ("audit.json", '{"series": [], "notes": []}', "it is of dpad-fast audit; give what was audited"),
        ("p.jsonl", '{"id": "a"}\n{"id": "b"}\n', "of completions `dpad-fast evaluate --json FILE` makes a result"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"{name} .*{words}"):
            read_file(tmp_path / name)
