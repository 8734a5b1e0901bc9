"""What an experiment leaves behind is believed where it is whole; damage costs the work again, never the run."""

import json

import pytest

from dpad_fast.demo.jobs import Job
from dpad_fast.evaluate.measure import Record, from_rows, to_rows
from dpad_fast.experiment import before_mark, kept_records, kept_result
from dpad_fast.train.config import from_dict

RECORDS = [Record("a", "text", 3, 5, 9, True, s1=0.25, s2=0.5, right=True), Record("b", "", 0, 0, 4, False)]
ROWS = to_rows(RECORDS)
DAMAGED_ROWS = [
    [{"id": "a"}],
    [{**ROWS[0], "union": "9"}],
    [{**ROWS[0], "text": None}],
    [{**ROWS[0], "s1": []}],
    [{**ROWS[0], "unknown": 1}],
    [None],
    ["a"],
]


@pytest.mark.parametrize("rows", DAMAGED_ROWS)
def test_rows_that_are_no_records_are_named(rows):
    with pytest.raises(ValueError, match=r"rows\[1\]"):
        from_rows([ROWS[0], *rows])


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe{", b"[" * 200_000, b"[]", b'{"mark": "m"}', b'{"mark": "m", "records": {}}']
)
def test_a_damaged_measurement_is_made_again(tmp_path, content):
    path = tmp_path / "before.json"
    assert kept_records(path, "m") is None
    path.write_bytes(content)
    assert kept_records(path, "m") is None


def test_a_whole_measurement_is_used_and_one_with_a_damaged_row_is_not(tmp_path):
    config = from_dict({"policy": "policy-e"})
    job = Job("warm start", "measure", config, tmp_path / "before.json")
    for rows, whole in ((ROWS, True), *((rows, False) for rows in DAMAGED_ROWS)):
        job.before.write_text(json.dumps({"mark": before_mark(config), "records": rows}))
        assert kept_records(job.before, before_mark(config)) == (RECORDS if whole else None)
        assert kept_records(job.before, "another") is None
        assert job.finished is whole


def test_a_result_that_lost_a_part_is_made_again(tmp_path):
    config = from_dict({"out": str(tmp_path)})
    job = Job("run", "train", config, tmp_path / "before.json")
    parts = ("config", "before", "after", "records", "seconds", "versions")
    whole = {"fingerprint": config.fingerprint(), "history": [], **{name: {} for name in parts}}
    (tmp_path / "result.json").write_text(json.dumps(whole))
    assert kept_result(config) == whole
    assert job.finished
    for name in whole:
        for damaged in ({k: v for k, v in whole.items() if k != name}, {**whole, name: 5}):
            (tmp_path / "result.json").write_text(json.dumps(damaged))
            assert kept_result(config) is None
            assert not job.finished


def test_the_mark_of_a_measurement_stays_what_it_was():
    config = from_dict({"evaluation": {"scenes": 3}})
    scenes = "EvaluationConfig(scenes=3, samples=1, seed=9000, show=8)"
    assert before_mark(config) == f"policy-e clip {scenes} 100 1.0"
    assert before_mark(from_dict({"evaluation": {"scenes": 3, "encoder": "clip"}})) == before_mark(config)
    other = from_dict({"evaluation": {"scenes": 3, "encoder": "shapes-siglip"}})
    assert before_mark(other) == before_mark(config).replace("clip", "shapes-siglip")
    held = {"evaluation": {"data": {"path": "p"}}, "data": {"kind": "rows", "path": "p"}}
    assert "encoder=" not in before_mark(from_dict(held))
    assert from_dict({"evaluation": {"encoder": "x"}}).fingerprint() != from_dict({}).fingerprint()


def test_a_run_is_measured_by_the_encoder_that_is_named(monkeypatch):
    """Its own is loaded for its rewards, and where no other measures."""
    from dpad_fast.train import run

    loaded = []
    monkeypatch.setattr(run, "make_encoder", lambda config: loaded.append(config.encoder) or config.encoder)
    named = from_dict({"encoder": "shapes-siglip", "evaluation": {"encoder": "clip"}})
    assert run.judging_encoder(named, "own") == "clip"
    assert run.judging_encoder(from_dict({"encoder": "shapes-siglip"}), "own") == "own"
    assert run.judging_encoder(from_dict({"encoder": "shapes-siglip"})) == "shapes-siglip"
    same = from_dict({"encoder": "clip", "evaluation": {"encoder": "clip"}})
    assert run.judging_encoder(same, "own") == "own"
    assert loaded == ["clip", "shapes-siglip"]
