"""`dpad-fast train` and `demo`, each option end to end: the printed or written value can only come from that option."""

import yaml

from dpad_fast import cli


class TestTrain:
    def test_config_settings_out_and_dry_run(self, tmp_path, run):
        (tmp_path / "a.yaml").write_text("steps: 3\nname: mine\n")
        base = ("train", tmp_path / "a.yaml", "--dry-run")
        shown = yaml.safe_load(run(*base, "--set", "grpo.queries=2", "--set", "seed=5", "--out", "there"))
        assert (shown["steps"], shown["name"], shown["grpo"]["queries"]) == (3, "mine", 2)
        assert (shown["seed"], shown["out"]) == (5, "there")
        assert not (tmp_path / "there").exists()

    def test_what_was_removed_is_told(self, tmp_path, refused):
        (tmp_path / "a.yaml").write_text("save_model: false\n")
        for arguments in ((), ("--set", "save_model=true")):
            said = refused("train", tmp_path / "a.yaml", "--dry-run", *arguments)
            assert "setting save_model is gone" in said
            assert "always kept in out/policy" in said

    def test_quiet_and_the_run(self, tmp_path, monkeypatch, run):
        seen = []

        def record(config, tell):
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
    options += ("--workers", "5", "--policy", "my/policy", "--encoder", "my/clip")
    assert cli.main(["demo", *map(str, options)]) == 2
    assert "stopped here" in capsys.readouterr().err
    (first, _), (jobs, workers) = seen
    assert [label for label, _ in first] == ["F warm start"]
    assert (len(jobs), workers) == (6, 5)
    for _, config in jobs:
        assert (config.steps, config.evaluation.scenes) == (7, 9)
        assert (config.policy, config.encoder) == ("my/policy", "my/clip")
        assert config.out.startswith(str(tmp_path / "o" / "F"))
    assert {config.seed for _, config in jobs} == {0, 1, 2}


class _Titled:
    def text(self):
        return "audit"
