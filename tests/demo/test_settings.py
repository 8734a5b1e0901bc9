"""The arms of the comparison: their files in configs/ say what the code says, and they differ in the reward only."""

from pathlib import Path

import pytest

from dpad_fast.demo.settings import ANY_OBJECT, DPAD, GEOMETRY, SETTINGS, chosen, merged
from dpad_fast.train.config import load

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = {
    ("E", DPAD): "shapes-e",
    ("E", GEOMETRY): "shapes-e-geometry",
    ("F", DPAD): "shapes-f",
    ("F", GEOMETRY): "shapes-f-geometry",
    ("J", DPAD): "shapes-j",
    ("J", GEOMETRY): "shapes-j-geometry",
    ("J", ANY_OBJECT): "shapes-j-any-object",
}


def test_every_arm_has_a_file_that_says_the_same():
    arms = {(key, arm) for key, setting in SETTINGS.items() for arm in setting.arms}
    assert arms == set(FILES)
    for (key, arm), name in FILES.items():
        assert load(CONFIGS / f"{name}.yaml").fingerprint() == SETTINGS[key].config(arm, 0, "x").fingerprint(), name


def test_arms_differ_in_the_reward_only():
    for setting in SETTINGS.values():
        plain = [setting.config(arm, 3, "x").as_dict() for arm in setting.arms]
        for values in plain:
            for name in ("name", "rewards", "extra_rewards"):
                del values[name]
        assert all(values == plain[0] for values in plain)
        weights = {arm: setting.config(arm, 0, "x").reward_config().weight("discriminative") for arm in setting.arms}
        assert weights.pop(DPAD) == 1.0
        assert set(weights.values()) == {0.0}


def test_chosen():
    assert [s.key for s in chosen("all")] == ["E", "F", "J"]
    assert [s.key for s in chosen("j")] == ["J"]
    with pytest.raises(ValueError, match="'x' is unknown; known: E, F, J, all"):
        chosen("x")


def test_merged_changes_neither():
    base = {"a": {"b": 1, "c": 2}}
    assert merged(base, {"a": {"b": 3}, "d": 4}) == {"a": {"b": 3, "c": 2}, "d": 4}
    assert base == {"a": {"b": 1, "c": 2}}
