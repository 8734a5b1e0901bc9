"""The arms of the ablations: each file changes one thing of its base, and names what can be had."""

from pathlib import Path

import pytest
import yaml

import dpad_fast as df
from dpad_fast.demo import makes
from dpad_fast.demo.ablations.arms import ARMS, BASE, chosen, config, folder, made_by_arms
from dpad_fast.demo.ablations.threshold import best_tau
from dpad_fast.train.config import load

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "ablations"
FILES = {f"{setting.lower()}-{arm.name}": (setting, arm) for arm in ARMS for setting in arm.settings}
# What one thing is made of, where it takes more than one setting: a reward is a shape with its threshold.
TOGETHER = {"roi-only": {"rewards.shape", "rewards.tau"}}
NO_RESULT = {"name", "out"}


def flat(values, prefix=""):
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


def changes(path):
    own = yaml.safe_load(path.read_text())
    ours, theirs = (flat(load(file).as_dict()) for file in (path, path.parent / own["base"]))
    return {key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)} - NO_RESULT


def test_every_arm_has_its_file_and_every_file_its_arm():
    small = {path.stem for path in CONFIGS.glob("*.yaml") if path.stem[:2] in ("e-", "f-", "j-")}
    assert small == set(FILES)
    assert folder().samefile(CONFIGS)


@pytest.mark.parametrize("name", FILES)
def test_an_arm_changes_one_thing_of_its_base(name):
    setting, arm = FILES[name]
    path = CONFIGS / f"{name}.yaml"
    made = load(path)
    assert (made.name, made.out) == (name, f"runs/ablations/{name}")
    changed = changes(path)
    if arm.name == BASE:  # of the demo: shorter and faster, and all arms are measured by one CLIP
        assert changed == {"steps", "grpo.learning_rate", "evaluation.scenes", "evaluation.encoder"}
    elif arm.name == "no-format":
        assert changed == {"rewards.weights.think_format", "rewards.weights.answer_format"}
    else:
        assert len(changed - TOGETHER.get(arm.name, set())) == (0 if arm.name in TOGETHER else 1), changed
    first = config(setting, ARMS[0], 3, Path("x"))
    mine = config(setting, arm, 3, Path("x"))
    assert (mine.seed, mine.steps, mine.evaluation, mine.grpo, mine.data) == (
        (3, first.steps, first.evaluation, first.grpo, first.data)
    )
    assert made.evaluation.encoder == "clip"


def test_what_is_not_shipped_can_be_made():
    configs = [config(setting, arm, 0, Path("o")) for setting, arm in FILES.values()]
    names = made_by_arms(configs, Path("o"))
    assert names == [
        "clip-no-textures",
        "clip-seed-1",
        "policy-e-no-caption",
        "policy-j-no-caption",
        "policy-j-two-attributes",
    ]
    assert len({makes.recipe(name) for name in names}) == 5
    with pytest.raises(ValueError, match="'policy-x' is neither shipped nor made"):
        makes.recipe("policy-x")


def test_the_best_threshold_is_the_one_that_is_written_down():
    tau, accuracy = best_tau(df.load_encoder("shapes", precision="float32"), count=200)
    assert accuracy > 0.99
    for setting in "ej":
        written = load(CONFIGS / f"{setting}-roi-only-best.yaml").reward_config()
        assert (written.shape, written.tau) == ("roi-threshold", pytest.approx(tau, abs=0.03))
        assert load(CONFIGS / f"{setting}-roi-only.yaml").reward_config().tau == 0.25  # the default


def test_chosen():
    assert chosen(None) == list(ARMS)
    assert [arm.name for arm in chosen("margin, geometry")] == [BASE, "geometry", "margin"]
    with pytest.raises(ValueError, match="--arms names 'x'; known: dpad, geometry, "):
        chosen("x")


def test_without_a_clone_the_arms_are_not_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(df, "__file__", str(tmp_path / "site" / "dpad_fast" / "__init__.py"))
    with pytest.raises(ValueError, match="in a clone of the repository"):
        folder()
