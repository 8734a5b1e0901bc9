"""A run's folder: what counts as finished, and that a folder of another configuration is left alone."""

import json

import pytest

from dpad_fast.train.config import from_dict
from dpad_fast.train.run_folder import claim, finished


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"fingerprint": "a", "steps": 3}', True),
        ('{"fingerprint": "b", "steps": 3}', False),
        ('{"mark": "a"}', False),
        ('{"fingerprint": "a", "ste', False),
        ('["fingerprint", "a"]', False),
        ("", False),
        (None, False),
    ],
)
def test_only_a_whole_file_of_the_same_settings_is_finished(content, found, tmp_path):
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    assert finished(path, "a") == (json.loads(content) if found else None)


def test_the_key_of_the_mark(tmp_path):
    (tmp_path / "before.json").write_text('{"mark": "a", "fingerprint": "b"}')
    assert finished(tmp_path / "before.json", "a", key="mark") is not None
    assert finished(tmp_path / "before.json", "a") is None


@pytest.mark.parametrize(("lost", "found"), [('"steps": 3, "history": []', True), ('"steps": 3', False), (
    '"steps": 3, "history": {}', False)])  # fmt: skip
def test_a_file_that_lost_a_field_is_not_finished(tmp_path, lost, found):
    (tmp_path / "training.json").write_text(f'{{"fingerprint": "a", {lost}}}')
    assert (finished(tmp_path / "training.json", "a", {"history": list, "steps": int}) is not None) == found


def leave(folder, name):
    if "." in name:
        (folder / name).write_text("{}")
    else:
        (folder / name).mkdir()


WORK = ["before.json", "checkpoint-10", "training.json", "policy", "after.json", "result.json"]


@pytest.mark.parametrize("name", WORK)
def test_another_configuration_is_refused_and_nothing_is_written(tmp_path, name):
    with claim(tmp_path, from_dict({"name": "one", "steps": 3})):
        leave(tmp_path, name)
    before = (tmp_path / "config.json").read_bytes()
    other = from_dict({"name": "two", "steps": 4, "grpo": {"beta": 0.5}})
    with (
        pytest.raises(ValueError, match=r"another configuration \(differs in grpo\.beta, steps\)"),
        claim(tmp_path, other),
    ):
        pass
    assert (tmp_path / "config.json").read_bytes() == before
    with claim(tmp_path, from_dict({"name": "renamed", "steps": 3})):  # a name changes no result
        assert json.loads((tmp_path / "config.json").read_text())["config"]["name"] == "renamed"


@pytest.mark.parametrize("name", ["tensorboard", "notes.txt", None])
def test_a_run_that_never_began_does_not_hold_its_folder(tmp_path, name):
    with pytest.raises(RuntimeError), claim(tmp_path, from_dict({"policy": "policy-x"})):
        raise RuntimeError("no such policy")
    if name is not None:
        leave(tmp_path, name)
    corrected = from_dict({"policy": "policy-f"})
    with claim(tmp_path, corrected):
        found = json.loads((tmp_path / "config.json").read_text())
    assert found == {"fingerprint": corrected.fingerprint(), "config": corrected.as_dict()}


def test_a_file_that_is_not_ours_is_never_written_over(tmp_path):
    (tmp_path / "config.json").write_text('{"steps": 3}')
    with pytest.raises(ValueError, match="another configuration"), claim(tmp_path, from_dict({"steps": 3})):
        pass
    assert (tmp_path / "config.json").read_text() == '{"steps": 3}'
