"""`dpad-fast train` and `demo`, each option end to end: the printed or written value can only come from that option."""

import json

import pytest
import yaml

from dpad_fast import cli
from dpad_fast.commands import train


class TestTrain:
    def test_config_settings_out_and_print_config(self, tmp_path, run):
        (tmp_path / "a.yaml").write_text("steps: 3\nname: mine\n")
        base = ("train", tmp_path / "a.yaml", "--print-config")
        shown = yaml.safe_load(run(*base, "--set", "grpo.queries=2", "--set", "seed=5", "--out", "there"))
        assert (shown["steps"], shown["name"], shown["grpo"]["queries"]) == (3, "mine", 2)
        assert (shown["seed"], shown["out"]) == (5, "there")
        assert not (tmp_path / "there").exists()

    def test_dry_run_made_up_data_cards_card_gb_and_json(self, tmp_path, run):
        (tmp_path / "a.yaml").write_text("steps: 3\nevaluation: {scenes: 0}\n")
        options = ("--made-up-data", "140x84", "--cards", "4", "--card-gb", "11", "--json", tmp_path / "o.json")
        said = run("train", tmp_path / "a.yaml", "--dry-run", "--out", tmp_path / "out", *options)
        assert "pictures 140x84" in said
        assert "zero-3, 4 card(s)" in said
        assert "fits 11 GB" in said
        assert "the data was made up" in said
        found = json.loads((tmp_path / "o.json").read_text())
        assert (found["kind"], found["made_up"], found["config"]["steps"]) == ("dry run", True, 3)
        assert found["plan"]["cards"] == 4
        assert [list(entry["fits"]) for entry in found["plan"]["memory"]] == [["11"]] * 4
        assert {stage["name"] for stage in found["stages"]} >= {"picture", "reward", "update"}
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            (("--dry-run", "--made-up-data", "840"), "--made-up-data must be WIDTHxHEIGHT such as 840x840, got '840'"),
            (("--dry-run", "--made-up-data", "8x9000"), "--made-up-data must have sides of 16 to 8192 pixels"),
            (("--dry-run", "--cards", "0"), "--cards must be at least 1 and at most 4096, got 0"),
            (
                ("--dry-run", "--cards", "3"),
                "grpo.queries x grpo.generations = 64 completions a step cannot be shared evenly by 3 processes",
            ),
            (("--dry-run", "--card-gb", "nan"), "--card-gb must be at least 1 and at most 1,000,000, got nan"),
            (("--made-up-data", "84x84"), "--made-up-data is for --dry-run"),
            (("--json", "x.json"), "--json is for --dry-run"),
        ],
    )
    def test_dry_run_options_that_are_none(self, tmp_path, refused, options, complaint):
        (tmp_path / "a.yaml").write_text("steps: 3\n")
        assert complaint in refused("train", tmp_path / "a.yaml", *options)

    def test_a_dry_run_is_one_process(self, tmp_path, monkeypatch, refused):
        (tmp_path / "a.yaml").write_text("steps: 3\n")
        monkeypatch.setenv("WORLD_SIZE", "2")
        said = refused("train", tmp_path / "a.yaml", "--dry-run")
        assert "--dry-run is for one process, not 2; --cards N plans a run on N cards" in said

    @pytest.mark.parametrize("terminal", [False, True])
    def test_a_measurement_shows_how_far_it_is(self, monkeypatch, capsys, terminal):
        """Through a pipe at its begin and at each tenth; on a terminal a bar on standard error."""
        monkeypatch.setenv("FORCE_COLOR", "1") if terminal else monkeypatch.delenv("FORCE_COLOR", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        with train._Progress() as progress:
            for stage in ("before", "after"):
                progress.tell(stage, 0, 0, {})
                for done in (8, 16, 17, 80, 160):
                    progress.tell(stage, done, 160, {})
            progress.tell("train", 3, 30, {"reward": 0.5})
        said = capsys.readouterr()
        whole = [f"measured 160 sampled completions {stage} training" for stage in ("before", "after")]
        if terminal:
            assert said.out.splitlines() == [*whole, "step  3/30  reward   0.500"]
            assert "measuring before training" in said.err
            assert "160" in said.err
            return
        lines = said.out.splitlines()
        assert lines[:4] == [
            "measuring before training",
            "measured 16 of 160 sampled completions before training",
            "measured 80 of 160 sampled completions before training",
            whole[0],
        ]
        assert lines[4:] == [line.replace("before", "after") for line in lines[:4]] + ["step  3/30  reward   0.500"]
        assert said.err == ""

    def test_what_was_removed_is_told(self, tmp_path, refused):
        (tmp_path / "a.yaml").write_text("save_model: false\n")
        for arguments in ((), ("--set", "save_model=true")):
            said = refused("train", tmp_path / "a.yaml", "--print-config", *arguments)
            assert "setting save_model is gone" in said
            assert "always kept in out/policy" in said

    def test_a_policy_that_was_mistyped_blocks_no_folder(self, tmp_path, monkeypatch, run, refused):
        (tmp_path / "a.yaml").write_text("evaluation: {scenes: 2}\n")
        base = ("train", tmp_path / "a.yaml", "--out", tmp_path / "o", "--quiet")
        assert "policy 'policy-x' cannot be loaded" in refused(*base, "--set", "policy=policy-x")
        monkeypatch.setattr("dpad_fast.experiment._run", lambda config, tell: {"after": {}})
        run(*base, "--set", "policy=policy-f")
        assert json.loads((tmp_path / "o" / "config.json").read_text())["config"]["policy"] == "policy-f"

    def test_the_runs_own_file_is_not_written_over_its_input(self, tmp_path, refused):
        given = tmp_path / "config.json"
        given.write_text("steps: 3\n")
        assert "would be written over an input" in refused("train", given, "--out", tmp_path)
        assert given.read_text() == "steps: 3\n"

    def test_quiet_and_the_run(self, tmp_path, monkeypatch, run):
        seen = []

        def record(config, tell=None):
            seen.append((config.steps, config.out, tell is None))
            if tell is not None:
                tell("train", 1, config.steps, {"reward": 2.5})
            return {"after": {}}

        monkeypatch.setattr("dpad_fast.experiment.run_experiment", record)
        (tmp_path / "a.yaml").write_text("steps: 3\n")
        base = ("train", tmp_path / "a.yaml", "--out", tmp_path / "o")
        assert "step 1/3  reward   2.500" in run(*base)
        assert run(*base, "--quiet") == ""
        assert seen == [(3, str(tmp_path / "o"), False), (3, str(tmp_path / "o"), True)]


def test_demo_options_reach_the_jobs(tmp_path, capsys, monkeypatch):
    seen = []

    class Stop(ValueError):
        pass

    def record(jobs, watcher, workers):
        seen.append(([(job.label, job.config) for job in jobs], workers))
        if len(seen) == 2:
            raise Stop("stopped here")

    monkeypatch.setattr("dpad_fast.demo.jobs.run_jobs", record)
    monkeypatch.setattr("dpad_fast.demo.outcome.audit_table", lambda setting, before: _Titled())
    options = ("--setting", "F", "--seeds", "3", "--steps", "7", "--scenes", "9", "--out", tmp_path / "o")
    options += ("--workers", "5", "--policy", "policy-j", "--encoder", "shapes")
    assert cli.main(["demo", *map(str, options)]) == 2
    assert "stopped here" in capsys.readouterr().err
    (first, _), (jobs, workers) = seen
    assert [label for label, _ in first] == ["F warm start"]
    assert (len(jobs), workers) == (6, 5)
    for _, config in jobs:
        assert (config.steps, config.evaluation.scenes) == (7, 9)
        assert (config.policy, config.encoder) == ("policy-j", "shapes")
        assert config.out.startswith(str(tmp_path / "o" / "F"))
    assert {config.seed for _, config in jobs} == {0, 1, 2}


class _Titled:
    def text(self):
        return "audit"


@pytest.mark.parametrize(("option", "most"), [("seeds", 1000), ("steps", 10**6), ("scenes", 10**6), ("workers", 1024)])
def test_demo_numbers_have_limits(tmp_path, capsys, monkeypatch, option, most):
    began = []
    monkeypatch.setattr("dpad_fast.demo.jobs.run_jobs", lambda *given: began.append(given))
    for value in (0, most + 1, 99_999_999):
        assert cli.main(["demo", "--out", str(tmp_path / "o"), f"--{option}", str(value)]) == 2
        told = f"--{option} must be at least 1 and at most {most:,}, got {value}"
        assert capsys.readouterr().err == f"dpad-fast demo: error: {told}\n"
    assert began == []


@pytest.mark.parametrize("option", ["--policy", "--encoder"])
@pytest.mark.parametrize("value", ["nope", "policy-x", "./nowhere", "{empty}"])
def test_demo_models_that_are_none_are_refused_before_a_worker(tmp_path, capsys, monkeypatch, option, value):
    began = []
    monkeypatch.setattr("dpad_fast.demo.jobs.run_jobs", lambda *given: began.append(given))
    (tmp_path / "empty").mkdir()
    value = value.format(empty=tmp_path / "empty")
    assert cli.main(["demo", "--out", str(tmp_path / "o"), option, value]) == 2
    assert capsys.readouterr().err.startswith(f"dpad-fast demo: error: {option} {value!r:.80} is not to be had: ")
    assert began == []
