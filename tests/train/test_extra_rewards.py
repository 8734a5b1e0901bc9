"""Rewards that a configuration names: a user's own function, and what is said of a name that leads nowhere."""

import pytest

from dpad_fast import experiment
from dpad_fast.rewards import RewardConfig, RewardScorer
from dpad_fast.train.config import from_dict
from dpad_fast.train.extra_rewards import check_extra_rewards, make_extra_reward
from dpad_fast.train.run import _rewards


@pytest.fixture
def my_rewards(tmp_path, monkeypatch):
    """A module of the user's own."""
    (tmp_path / "my_rewards.py").write_text(
        "def length(scorer):\n"
        "    def length(*, completions, **columns):\n"
        "        return [float(len(text)) for text in completions]\n"
        "    return length\n"
        "def nothing(scorer):\n"
        "    return None\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_a_function_of_your_own(my_rewards):
    config = from_dict(
        {"rewards": {"preset": "seg-zero"}, "extra_rewards": ["my_rewards:length"], "extra_weights": [0.5]}
    )
    functions, weights = _rewards(config, RewardScorer(config.reward_config()), None)
    assert len(functions) == len(weights) == len(config.reward_config().terms) + 1
    assert (functions[-1].__name__, weights[-1]) == ("length", 0.5)
    assert functions[-1](completions=["", "abc"]) == [0.0, 3.0]
    assert from_dict(config.as_dict()) == config
    assert config.fingerprint() != from_dict({"rewards": {"preset": "seg-zero"}}).fingerprint()


@pytest.mark.parametrize(
    "name", ["x", "my_rewards", "my_rewards:", ":length", "a b:c", "my-rewards:length", "a:b:c", "..a:b", ""]
)
def test_what_is_no_place_is_refused_with_the_configuration(name):
    with pytest.raises(ValueError, match=r"extra_rewards is .*; known: names_any_object, or your own MODULE:FUNCTION"):
        from_dict({"extra_rewards": [name]})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_module:f", "cannot be imported: No module named 'no_such_module'"),
        ("my_rewards:missing", "cannot be imported: module 'my_rewards' has no attribute 'missing'"),
        ("my_rewards:number", "must be a function that takes the scorer"),
        ("my_rewards:nothing", "must be a function that takes the scorer"),
    ],
)
def test_what_is_not_there_is_named(my_rewards, name, reason):
    config = from_dict({"extra_rewards": [name]})
    if name != "my_rewards:nothing":
        with pytest.raises(ValueError, match=f"extra_rewards: '{name}' {reason}"):
            check_extra_rewards([name])
    with pytest.raises(ValueError, match=f"extra_rewards: '{name}' {reason}"):
        make_extra_reward(config.extra_rewards[0], RewardScorer(RewardConfig.preset("seg-zero")))


def test_nothing_slow_is_done_for_a_run_whose_reward_is_missing(tmp_path, monkeypatch):
    def too_late(*arguments, **named):
        raise AssertionError("the run has begun")

    for name in ("make_encoder", "evaluate_policy", "train_claimed"):
        monkeypatch.setattr(experiment, name, too_late)
    config = from_dict({"out": str(tmp_path / "run"), "extra_rewards": ["no_such_module:f"]})
    with pytest.raises(ValueError, match="extra_rewards: 'no_such_module:f' cannot be imported: No module named"):
        experiment.run_experiment(config)


def test_a_module_that_fails_while_it_is_imported(tmp_path, monkeypatch):
    (tmp_path / "broken_rewards.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="extra_rewards: 'broken_rewards:f' cannot be imported: division by zero"):
        check_extra_rewards(["broken_rewards:f"])
