"""Checkpoints that arms need: made whole or not at all, kept while their recipe stands."""

import json
from dataclasses import replace

import pytest

pytest.importorskip("trl")

from dpad_fast.demo import makes
from dpad_fast.demo.display import PlainDisplay
from dpad_fast.demo.jobs import Job
from dpad_fast.demo.settings import SETTINGS
from dpad_fast.train.policy import load_policy
from dpad_fast.train.warm_start import rebuild


@pytest.fixture
def short(monkeypatch):
    """Lessons of one step."""
    stage = rebuild.TrainingStage(1, 2, 1e-3)
    monkeypatch.setattr(rebuild, "VARIANTS", tuple(replace(lesson, stage=stage) for lesson in rebuild.VARIANTS))
    settings, siglip = rebuild.ENCODERS["clip-seed-1"]
    monkeypatch.setitem(rebuild.ENCODERS, "clip-seed-1", (replace(settings, steps=1, scenes=3), siglip))


def test_a_warm_start_is_made_from_the_shipped_one_and_kept(short, tmp_path):
    place, seen = makes.marker(tmp_path, "policy-j-no-caption"), []
    job = Job("x", "make", SETTINGS["J"].config("with R_dpad", 0, "x"), place)
    assert not job.finished
    left = place.parent / "unfinished" / "policy-j-no-caption"  # of a call that was killed
    left.mkdir(parents=True)
    (left / "rubbish").write_text("x")
    makes.make(place, lambda *line: seen.append(line[:2]))
    assert seen == [(1, 1)]
    assert job.finished
    made = tmp_path / "checkpoints" / "policy-j-no-caption"
    assert not (made / "rubbish").exists()
    assert not (place.parent / "unfinished").exists()
    start, ours = (load_policy(name)[0].state_dict() for name in ("policy-f", made))
    moved = {name for name in start if not start[name].equal(ours[name])}
    assert moved
    assert not any("visual" in name for name in moved)
    (made / "config.json").unlink()
    assert not job.finished


def test_another_recipe_is_another_checkpoint(short, tmp_path, monkeypatch):
    place = makes.marker(tmp_path, "clip-seed-1")
    makes.make(place, lambda *line: None)
    assert set(makes.kept(place)["rates"]) == {
        "right", "generic", "other object", "absent object", "wrong texture",
    }  # fmt: skip
    settings, siglip = rebuild.ENCODERS["clip-seed-1"]
    monkeypatch.setitem(rebuild.ENCODERS, "clip-seed-1", (replace(settings, seed=5), siglip))
    assert makes.kept(place) is None
    place.write_text(json.dumps({"mark": makes.recipe("clip-seed-1")}))  # without rates
    assert makes.kept(place) is None


def test_the_display_says_what_is_made(tmp_path, capsys):
    config = SETTINGS["E"].config("with R_dpad", 0, str(tmp_path))
    job = Job("checkpoint clip-seed-1", "make", config, tmp_path / "made.json")
    with PlainDisplay() as plain:
        plain.progressed(job, {"stage": "make", "done": 5, "of": 10, "metrics": {}})
    assert capsys.readouterr().out == "[checkpoint clip-seed-1] teaching 5/10\n"
