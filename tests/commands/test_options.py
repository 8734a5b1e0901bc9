"""Every option of every command has a test; those of `bench` and `info` are here."""

import json
import subprocess

import pytest

import dpad_fast as df
from dpad_fast import cli

# What the tests of this folder cover; an option that is added without a test fails the first of them.
COVERED = {
    "score": "completions data out workers form columns split images limit preset config set encoder backend precision "
    "device cache json quiet",
    "evaluate": "subject predictions policy completions prompt_template system coordinates batch temperature samples "
    "tokens device data form columns split images limit format model_size processor segmenter protocol missing unknown "
    "resize tokenizer compare workers table shapes seed encoder json quiet",
    "train": "config out settings quiet print_config dry_run made_up_data cards card_gb json",
    "infer": "subjects shapes policy segmenter encoder out system prompt_template coordinates batch temperature "
    "samples seed tokens device json quiet",
    "demo": "setting seeds steps scenes out workers policy encoder ablations arms key_seeds",
    "report": "result data form out thumb limit quiet",
    "audit": "result data form examples encoder json quiet",
    "data": "task source out count seed rebuild data cache cache_bytes encoder backend device threads quiet form "
    "columns split images limit size workers shard_rows max_bad completions model_size processor against words json "
    "rows",
    "serve": "preset config set encoder backend precision device threads cache host port token_file insecure root "
    "window_ms max_batch queue body_mb picture_mb store_mb timeout quiet",
    "bench": "arguments",
    "info": "json",
}


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_option_is_covered(name):
    actions = cli._command_parser(name)._actions
    assert {action.dest for action in actions} - {"help"} == set(COVERED[name].split())


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
