"""The ablations from end to end: two arms for two steps; killed and started again they end with the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

pytest.importorskip("trl")
pytest.importorskip("matplotlib")

from dpad_fast import cli

COMMAND = ["demo", "--ablations", "--arms", "geometry", "--setting", "E", "--seeds", "1"]
COMMAND += ["--steps", "2", "--scenes", "4", "--workers", "2", "--out"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which the command came to its end."""
    out = tmp_path_factory.mktemp("ablations") / "out"
    assert cli.main([*COMMAND, str(out)]) == 0
    return out


def test_two_arms_for_two_steps(finished):
    result = json.loads((finished / "result.json").read_text())
    assert result["command"] == "dpad-fast demo --ablations --seeds 1 --setting E --arms geometry --steps 2 --scenes 4"
    base, geometry = result["rows"]
    assert (base["arm"], geometry["arm"]) == ("dpad", "geometry")
    assert "difference" not in base["metrics"]["ciou"]
    for key in ("chain_tokens", "giou", "ciou", "s1_wins", "format"):
        mine, theirs = geometry["metrics"][key], base["metrics"][key]
        assert mine["difference"] == pytest.approx(mine["mean"] - theirs["mean"], abs=2e-6)
        run = json.loads((finished / "E" / "geometry" / "seed-0" / "result.json").read_text())
        assert mine["seeds"] == [pytest.approx(run["after"][key]["value"], abs=1e-6)]
    assert {claim["verdict"] for claim in geometry["claims"]} == {"cannot be told"}  # one seed
    overall, setting = result["settings"]
    assert [len(row) for row in overall["tables"][0]["rows"]] == [10, 10]
    titles = [table["title"] for table in setting["tables"]]
    assert "audit of the warm start policy-e" in titles[0]
    assert "audit of the encoders" in titles[1]
    assert setting["tables"][1]["rows"][0][:2] == ["shapes", "1.00"]
    assert {name: len(runs[0]) for name, runs in setting["histories"].items()} == {"R_dpad": 2, "geometry only": 2}
    page = (finished / "report.html").read_text()
    assert "geometry only" in page
    assert page.count("<table>") >= 5
    for name in ("curves-e.svg", "claims.svg"):
        assert (finished / name).read_text().rstrip().endswith("</svg>")
    (call,) = json.loads((finished / "machine.json").read_text())["calls"]
    assert call["seconds"] > 0


def test_what_is_finished_is_not_run_again(finished, capsys):
    before = (finished / "result.json").read_bytes()
    assert cli.main([*COMMAND, str(finished)]) == 0
    said = capsys.readouterr().out
    assert "started" not in said
    assert said.count("was finished before") == 4
    assert (finished / "result.json").read_bytes() == before
    assert len(json.loads((finished / "machine.json").read_text())["calls"]) == 2


def test_killed_and_started_again_it_ends_with_the_same_bytes(finished, tmp_path, capsys):
    """Killed in the first step of the second arm; what was there before is the other folder's."""
    out = tmp_path / "out"
    for name in ("makes", "before", "E/dpad"):
        shutil.copytree(finished / name, out / name)
    command = [sys.executable, "-m", "dpad_fast.cli", *COMMAND, str(out)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "geometry, seed 0] training 1/2" in line:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not (out / "result.json").exists()
    assert not (out / "E" / "geometry" / "seed-0" / "result.json").exists()
    assert cli.main([*COMMAND, str(out)]) == 0
    assert "[E dpad, seed 0] was finished before" in capsys.readouterr().out
    for name in ("result.json", "report.html", "curves-e.svg", "claims.svg"):
        assert (out / name).read_bytes() == (finished / name).read_bytes(), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--arms", "nobody"], "--arms names 'nobody'; known: dpad, geometry"),
        (["--setting", "x"], "--setting 'x' is unknown; known: E, F, J, all"),
        (["--setting", "F", "--arms", "margin"], "--arms 'margin' names no arm of setting F"),
        (["--seeds", "3", "--key-seeds", "2"], "--key-seeds must be at least the 3 of --seeds, got 2"),
        (["--key-seeds", "0"], "--key-seeds must be at least 1"),
        (["--policy", "policy-e"], "--policy does not go with --ablations: its arms name their own"),
        (["--encoder", "clip"], "--encoder does not go with --ablations"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message, tmp_path, capsys):
    assert cli.main(["demo", "--ablations", "--out", str(tmp_path / "o"), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--arms", "--key-seeds"])
def test_options_of_the_ablations_go_with_them(option, tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path / "o"), option, "3"]) == 2
    assert f"{option} goes with --ablations" in capsys.readouterr().err
