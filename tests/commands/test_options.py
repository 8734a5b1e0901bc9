"""Every option of every command has a test; those of `report`, `bench` and `info` are here."""

import json
import subprocess

import pytest

import dpad_fast as df
from dpad_fast import cli

# What the tests of this folder cover; an option that is added without a test fails the first of them.
COVERED = {
    "score": "completions data out preset config set encoder backend precision device cache json quiet",
    "evaluate": "subject data shapes seed mask ignore missing encoder json quiet",
    "train": "config out settings quiet dry_run",
    "demo": "setting seeds steps scenes out workers policy encoder",
    "report": "result out quiet",
    "data": "world out count seed rebuild data cache cache_bytes encoder backend device threads quiet",
    "serve": "preset config set encoder backend precision device threads cache host port token_file insecure root "
    "window_ms max_batch queue body_mb picture_mb store_mb timeout quiet",
    "bench": "arguments",
    "info": "json",
}


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_option_is_covered(name):
    actions = cli._command_parser(name)._actions
    assert {action.dest for action in actions} - {"help"} == set(COVERED[name].split())


class TestReport:
    def test_result_out_and_quiet(self, tmp_path, monkeypatch, run):
        monkeypatch.setattr("dpad_fast.evaluate.report.render", lambda result: f"<html>{result['mark']}")
        (tmp_path / "result.json").write_text('{"mark": 41}')
        (tmp_path / "other.json").write_text('{"mark": 42}')
        assert run("report", tmp_path) == f"wrote {tmp_path / 'report.html'}\n"
        assert (tmp_path / "report.html").read_text() == "<html>41"
        out = tmp_path / "new" / "x.html"
        assert run("report", tmp_path / "other.json", "--out", out, "--quiet") == ""
        assert out.read_text() == "<html>42"


def test_bench_passes_its_arguments_on(monkeypatch):
    seen = []

    def record(command, **settings):
        seen.append((command, settings["cwd"]))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", record)
    assert cli.main(["bench", "masks", "--quick"]) == 3
    ((command, folder),) = seen
    assert command[1:] == ["-m", "bench.run", "masks", "--quick"]
    assert (folder / "bench" / "run.py").is_file()


def test_info_as_json(tmp_path, run):
    found = json.loads(run("info", "--json", "-"))
    assert found["dpad-fast"]["version"] == df.__version__
    assert df.__version__ in run("info", "--json", tmp_path / "i.json")
    assert json.loads((tmp_path / "i.json").read_text())["packages"] == found["packages"]
