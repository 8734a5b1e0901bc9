"""The demo from end to end with tiny models, what its workers report, and how its displays follow them."""

import json

import pytest

pytest.importorskip("trl")
pytest.importorskip("matplotlib")

from dpad_fast import cli
from dpad_fast.demo.display import LiveDisplay, PlainDisplay
from dpad_fast.demo.jobs import Job, JobFailed, run_jobs
from dpad_fast.demo.settings import SETTINGS


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of an untrained policy and an untrained CLIP."""
    from dpad_fast.train.policy import build_policy
    from dpad_fast.train.warm_start import small_clip, small_policy

    folder = tmp_path_factory.mktemp("models")
    small_policy.save(build_policy(0), folder / "policy")
    small_clip.save(small_clip.build(0), folder / "clip")
    return folder


def test_demo_from_end_to_end_and_again(models, tmp_path, capsys):
    """One step of every arm of J; run again, nothing is trained twice, and after a loss only what is missing."""
    out = tmp_path / "demo"
    command = ["demo", "--setting", "J", "--steps", "1", "--scenes", "4", "--out", str(out)]
    command += ["--policy", str(models / "policy"), "--encoder", str(models / "clip"), "--workers", "2"]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert said.index("Audit of the warm start of J") < said.index("[J geometry only] started")
    assert "right target" in said
    assert "any object" in said
    result = json.loads((out / "result.json").read_text())
    assert set(result["settings"][0]["runs"]) == {"geometry only", "with R_dpad", "any object"}
    page = (out / "report.html").read_text()
    assert "data-curves='0'" in page
    assert page.count("<table>") >= 3
    assert page.count("data:image/webp;base64,") >= 1
    assert not list(out.glob("**/checkpoint-*"))

    (out / "J" / "any-object" / "seed-0" / "result.json").unlink()
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "[J geometry only] was finished before" in said
    assert "[J with R_dpad] was finished before" in said
    assert "[J any object] done" in said


def test_a_worker_that_fails_is_quoted(tmp_path):
    config = SETTINGS["E"].config("with R_dpad", 0, str(tmp_path / "run"), {"encoder": "no/such/encoder"})
    job = Job("E", "train", config, tmp_path / "before.json")
    with pytest.raises(JobFailed, match=r"E ended with status 2: .*no/such/encoder"):
        run_jobs([job], PlainDisplay(), 1)


def test_bytes_that_are_no_text_do_not_stop_the_listener(tmp_path, monkeypatch, capsys):
    """A library in a worker may print anything; the lines after it are still read."""
    line = json.dumps({"stage": "train", "done": 9, "of": 9, "metrics": {}})
    script = tmp_path / "worker"
    script.write_text(f"#!/bin/sh\nprintf '\\377\\n'\necho '{line}'\n")
    script.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(script))
    job = Job("E", "train", SETTINGS["E"].config("with R_dpad", 0, str(tmp_path / "run")), tmp_path / "before.json")
    run_jobs([job], PlainDisplay(), 1)
    assert "[E] training 9/9" in capsys.readouterr().out


def test_displays_follow_a_job(tmp_path, capsys):
    job = Job("E", "train", SETTINGS["E"].config("with R_dpad", 0, str(tmp_path)), tmp_path / "before.json")
    line = {"stage": "train", "done": 3, "of": 10, "metrics": {"reward": 2.5}}
    with PlainDisplay() as plain:
        plain.started(job)
        plain.progressed(job, line)
        plain.progressed(job, line)
        plain.ended(job, 3.2, skipped=False)
    said = capsys.readouterr().out
    assert said.splitlines() == ["[E] started", "[E] training 3/10  reward 2.50", "[E] done in 3 s"]
    with LiveDisplay() as live:
        live.started(job)
        live.progressed(job, {**line, "done": 2})
        live.progressed(job, line)
        live.say("[not markup] <kept>")
        live.ended(job, 3.2, skipped=False)
        live.ended(Job("F", "train", job.config, job.before), 0.0, skipped=True)
    said = capsys.readouterr().out
    assert "[not markup] <kept>" in said
    assert "done, 3 s" in said
    assert "kept" in said
