import json

import pytest
import torch
from safetensors.torch import save_file

from dpad_fast.train import resume


@pytest.fixture
def checkpoint(tmp_path):
    def make(step):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"w": torch.zeros(64)}, str(folder / "model.safetensors"))
        torch.save({"state": torch.zeros(64)}, folder / "optimizer.pt")
        torch.save({"cpu": 1}, folder / "rng_state.pth")
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        return folder

    return make


def test_the_last_complete_one_is_chosen_by_number(tmp_path, checkpoint):
    assert resume.last_complete(tmp_path / "nowhere") is None
    for step in (2, 10, 9):
        checkpoint(step)
    assert resume.step_of(resume.last_complete(tmp_path)) == 10


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"])
def test_one_that_was_cut_off_is_skipped(tmp_path, checkpoint, name):
    checkpoint(1)
    broken = checkpoint(2)
    whole = (broken / name).read_bytes()
    (broken / name).write_bytes(whole[: len(whole) // 2])
    assert not resume.is_complete(broken)
    assert resume.step_of(resume.last_complete(tmp_path)) == 1


@pytest.mark.parametrize("name", ["model.safetensors", "trainer_state.json"])
def test_one_without_weights_or_state_is_skipped(checkpoint, name):
    folder = checkpoint(3)
    (folder / name).unlink()
    assert not resume.is_complete(folder)


def test_the_state_must_be_of_that_step(checkpoint):
    folder = checkpoint(3)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 2}))
    assert not resume.is_complete(folder)


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
