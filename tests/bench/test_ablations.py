"""docs/ablations.md is made of the run that is kept: its parts on made-up numbers, and that a run is kept whole."""

import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest

from dpad_fast.demo.ablations.outcome import Runs
from dpad_fast.demo.ablations.result import result_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ablations(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("bench.ablations")


def record(index):
    return {
        "id": f"shapes-9000-{index}", "text": "<think> x .</think>", "chain_tokens": 9, "intersection": 5, "union": 10,
        "format_ok": True, "s1": 0.4, "s2": 0.2, "reason": None, "right": True, "focused": bool(index % 2),
        "names": "target",
    }  # fmt: skip


def run(seed, ciou, tokens):
    after = {"chain_tokens": tokens, "giou": ciou, "ciou": ciou, "s1_wins": 0.5, "format": 0.9}
    known = {key: {"value": float(value), "error": 0.01, "units": 4} for key, value in after.items()}
    config = {"policy": "policy-e", "encoder": "clip", "seed": seed, "steps": 5, "grpo": {"queries": 8}}
    config["evaluation"] = {"scenes": 4}
    return {
        "after": known,
        "before": known,
        "config": {**config, "out": f"somewhere/{seed}"},
        "records": {"before": [record(0)], "after": [record(1)]},
        "history": [{"step": i, "rewards/iou/mean": 0.5, "step_time": 9.9} for i in range(6)],
        "versions": {"torch": "9.9"},
        "seconds": {"this_call": 1.0},
    }


@pytest.fixture
def out(tmp_path):
    """The folder of a run in which geometry alone is worse in cIoU and its chains are as long."""
    rng, folder = np.random.default_rng(0), tmp_path / "out"

    def arm(ciou, tokens):
        return [run(s, ciou + 0.002 * rng.normal(), tokens + 0.1 * rng.normal()) for s in range(3)]

    results = {("E", "dpad"): arm(0.5, 20), ("E", "geometry"): arm(0.3, 20)}
    made = result_of(
        Runs(results, {"shapes": {"right": 1.0}}, {"policy-e": [record(i) for i in range(4)]}), "the command"
    )
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(made))
    calls = [{"seconds": 110.0, "workers": 2, "command": "one"}, {"seconds": 20.0, "workers": 2, "command": "two"}]
    machine = {"calls": calls, "cores": 2}
    (folder / "machine.json").write_text(json.dumps({**machine, "processor": "P"}))
    return folder


def test_the_parts_of_the_document(ablations, out, tmp_path):
    kept = tmp_path / "results"
    written = ablations.keep(out, kept)
    assert {path.name for path in written} == {
        "ablations.json", "ablations-machine.json", "curves-e.svg", "claims.svg",
    }  # fmt: skip
    assert (kept / "ablations.json").read_bytes() == (out / "result.json").read_bytes()
    said = ablations.block("ablations-run", kept)
    assert said.splitlines()[:2] == ["    one    # 2 minutes", "    two    # 0 minutes"]
    assert "5 steps a run, 4 held-out scenes; 2 processes at a time, on 2 cores of P (torch 9.9)." in said
    lines = ablations.block("ablations-summary", kept).splitlines()
    assert lines[0] == "Of 2 claims 1 agrees, 1 disagrees, 0 cannot be told."
    assert "Of 33 claims 5 agree, 1 disagrees, 27 cannot be told.\n" in ablations.block("ablations-summary")
    assert lines[2].startswith("- **agrees**: geometry only (E): cIoU -0.2")
    assert lines[3].startswith("- **disagrees**: geometry only (E): chain tokens ")
    assert lines[4] == "- **cannot be told**: none."
    assert "| E | geometry only | 3 |" in ablations.block("ablations", kept)
    assert "| E, geometry only |" in ablations.block("ablations-claims", kept)
    audits = ablations.block("ablations-audits", kept)
    assert "E: audit of the warm start policy-e (dpad, geometry), 4 sampled completions" in audits
    assert "| shapes | 1.00 |" in audits
    again = {path: path.read_bytes() for path in written}
    assert {path: path.read_bytes() for path in ablations.keep(out, kept)} == again


def test_nothing_of_a_runs_speed_or_place_is_in_its_result(out):
    text = (out / "result.json").read_text()
    assert "somewhere" not in text
    assert "step_time" not in text
    assert "seconds" not in text


def test_without_a_run_the_document_says_so(ablations, tmp_path):
    assert {ablations.block(name, tmp_path) for name in ablations.BLOCKS} == {"The full run has not been made yet.\n"}
    with pytest.raises(ValueError, match="holds no finished run"):
        ablations.keep(tmp_path, tmp_path)


def test_the_kept_run_is_whole(ablations):
    """Every arm is in it, none was dropped, and its verdicts are the rule's."""
    from dpad_fast.demo.ablations import rule
    from dpad_fast.demo.ablations.arms import ARMS

    kept = ablations.read()
    if kept is None:
        pytest.skip("no full run is kept yet")
    rows = [(row["setting"], row["arm"]) for row in kept["rows"]]
    assert rows == [(setting, arm.name) for setting in ("E", "F", "J") for arm in ARMS if setting in arm.settings]
    assert all(row["seeds"] >= 3 for row in kept["rows"])
    for row in kept["rows"]:
        for claim in row["claims"]:
            found = row["metrics"][claim["metric"]]
            ends = [math.nan if found[key] is None else found[key] for key in ("difference", "low", "high")]
            assert claim["verdict"] == rule.verdict(claim["says"], rule.Interval(*ends, row["seeds"]), claim["matters"])
