"""Which checkpoint a run goes on from: the last one whose every file is as it was written."""

import json
import os
import warnings

import pytest
import torch
from safetensors.torch import save_file

from dpad_fast.train import resume


@pytest.fixture
def checkpoint(tmp_path):
    def make(step, sealed=True):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "global_step").mkdir(parents=True)
        save_file({"w": torch.zeros(64)}, str(folder / "model.safetensors"))
        torch.save({"state": torch.zeros(64)}, folder / "optimizer.pt")
        torch.save({"lr": 1}, folder / "scheduler.pt")
        torch.save({"cpu": 1}, folder / "rng_state_0.pth")
        torch.save({"cpu": 1}, folder / "rng_state_1.pth")
        torch.save({"shard": 1}, folder / "global_step" / "shard.pt")  # as DeepSpeed writes
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        if sealed:
            resume.seal(folder, step)
        return folder

    return make


FILES = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "rng_state_1.pth"]
FILES += ["global_step/shard.pt", "trainer_state.json"]


def test_the_last_complete_one_is_chosen_by_number_and_without_a_warning(tmp_path, checkpoint):
    assert resume.last_complete(tmp_path / "nowhere") is None
    for step in (2, 10, 9):
        checkpoint(step)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resume.step_of(resume.last_complete(tmp_path)) == 10


def invert(path):
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))


def flip(path):
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(bytes(whole))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (invert, "has other content than was written"),
        (flip, "has other content than was written"),
        (cut, r"has \d+ bytes, \d+ were written"),
        (lambda path: path.write_bytes(b""), r"has 0 bytes, \d+ were written"),
        (os.remove, "is missing"),
    ],
    ids=["inverted", "one-bit", "cut", "empty", "missing"],
)
def test_a_damaged_one_is_passed_over_with_one_warning(tmp_path, checkpoint, name, harm, said):
    checkpoint(1)
    broken = checkpoint(2)
    harm(broken / name)
    assert not resume.is_complete(broken)
    with pytest.warns(
        RuntimeWarning, match=f"checkpoint-2 is not used: {name} {said}; going on from checkpoint-1"
    ) as w:
        assert resume.step_of(resume.last_complete(tmp_path)) == 1
    assert len(w) == 1


def test_two_damaged_ones_are_told_in_one_warning(tmp_path, checkpoint):
    flip(checkpoint(3) / "optimizer.pt")
    checkpoint(7, sealed=False)
    said = (
        "checkpoint-7 is not used: it has no complete.json.*checkpoint-3 is not used: optimizer.pt.*from the beginning"
    )
    with pytest.warns(RuntimeWarning, match=said) as seen:
        assert resume.last_complete(tmp_path) is None
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no complete.json"),
        ('{"step": 3, "files": {', "has no complete.json"),
        ("[]", "complete.json is damaged"),
        ('{"step": 3, "files": 5}', "complete.json is damaged"),
        ('{"step": 3, "files": {"optimizer.pt": 5}}', "complete.json is damaged"),
        ('{"step": 3, "files": {"optimizer.pt": {"size": "7", "sha256": 1}}}', "complete.json is damaged"),
    ],
)
def test_a_marker_that_is_none(checkpoint, text, said):
    folder = checkpoint(3)
    (folder / resume.MARKER).write_text(text)
    assert said in resume.checkpoint_damage(folder)


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "optimizer.bin", "scaler.pt", "model.safetensors.partial"]
)
def test_a_file_that_a_trainer_would_read_and_nobody_wrote(checkpoint, name):
    folder = checkpoint(3)
    (folder / name).write_bytes(b"0")
    assert resume.checkpoint_damage(folder) == f"{name} is not one of the files that were written"


def test_notes_beside_it_do_no_harm(checkpoint):
    folder = checkpoint(3)
    for name in ("README.md", "eval.json", ".DS_Store"):
        (folder / name).write_text("mine")
    assert resume.is_complete(folder)


@pytest.mark.parametrize("changed", ["trainer_state.json", "complete.json"])
def test_the_state_and_the_marker_must_be_of_that_step(tmp_path, checkpoint, changed):
    folder = checkpoint(3)
    if changed == "trainer_state.json":
        (folder / changed).write_text(json.dumps({"global_step": 2}))
    resume.seal(folder, 3 if changed == "trainer_state.json" else 2)
    assert resume.checkpoint_damage(folder) == f"{changed} is not of step 3"


def test_json_is_whole_or_absent(tmp_path):
    path = tmp_path / "sub" / "a.json"
    assert resume.read_json(path) is None
    resume.write_json(path, {"a": [1.5]})
    assert resume.read_json(path) == {"a": [1.5]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        resume.write_json(path, {"a": float("nan")})
    assert resume.read_json(path) == {"a": [1.5]}
    path.write_text('{"a": [1.')
    assert resume.read_json(path) is None
