"""The configurations of the package: each is read and says what was not run; a baseline changes one thing."""

import json
import re
from pathlib import Path

import pytest
import yaml

from dpad_fast.train.config import load

CONFIGS = Path(__file__).parents[2] / "configs"
OTHER = {"fsdp.yaml"}  # settings of a library, which a configuration names
ALL = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.name not in OTHER)
ABLATIONS = sorted(path.stem for path in (CONFIGS / "ablations").glob("qwen*.yaml"))  # of the small world: tests/demo
REAL = [name for name in ALL if not name.startswith("shapes")]
BASELINES = [name for name in ALL if name.endswith("-geometry")]


def flat(values, prefix=""):
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


@pytest.mark.parametrize("name", ALL)
def test_it_is_read_and_named_after_its_file(name):
    config = load(CONFIGS / f"{name}.yaml")
    assert config.name == name
    assert config.out == f"runs/{name}"
    assert config.reward_config()
    if config.grpo.deepspeed:
        assert "zero_optimization" in json.loads((CONFIGS.parent / config.grpo.deepspeed).read_text())
    if config.grpo.fsdp:
        assert "version" in yaml.safe_load((CONFIGS.parent / config.grpo.fsdp).read_text())


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_of_a_real_policy_changes_one_thing_and_says_that_it_was_not_run(name):
    path = CONFIGS / "ablations" / f"{name}.yaml"
    assert "NOT RUN" in path.read_text()
    config = load(path)
    assert (config.name, config.out) == (name, f"runs/ablations/{name}")
    ours = flat(config.as_dict())
    theirs = flat(load(path.parent / yaml.safe_load(path.read_text())["base"]).as_dict())
    changed = {key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)} - {"name", "out"}
    several = {
        "dpad": set(),
        "no-caption": {"rewards.tags", "rewards.terms", "data.prompt"},
        "no-format": {"rewards.weights.think_format", "rewards.weights.answer_format"},
        "roi-only": {"rewards.shape", "rewards.tau"},
    }
    arm = name.removeprefix("qwen2.5-vl-7b-")
    assert changed == several[arm] if arm in several else len(changed) == 1, changed


def test_the_ablations_of_the_small_world_can_be_run_with_a_real_policy():
    """By the same names; an encoder that cannot tell textures is replaced by one that sees finer differences."""
    from dpad_fast.demo.ablations.arms import ARMS, CONTROL

    small = {arm.name for arm in ARMS if arm.kind != CONTROL} - {"roi-only-best", "clip-seed-1", "no-textures"}
    assert {f"qwen2.5-vl-7b-{name}" for name in {*small, "clip-large"}} == set(ABLATIONS)


def test_every_real_recipe_has_a_baseline_and_there_are_those_that_were_asked_for():
    arms = {name for name in REAL if load(CONFIGS / f"{name}.yaml").reward_config().weight("discriminative") == 1.0}
    arms -= {"seg-zero-7b", "vision-reasoner-7b"}
    assert {f"{name}-geometry" for name in arms} == {name for name in BASELINES if name in REAL}
    assert arms >= {"qwen2.5-vl-3b", "qwen2.5-vl-7b", "qwen3-vl-4b", "qwen2.5-vl-3b-lora", "smolvlm"}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_changes_the_weight_of_r_dpad_and_nothing_else(name):
    ours = flat(load(CONFIGS / f"{name}.yaml").as_dict())
    theirs = flat(load(CONFIGS / f"{name.removesuffix('-geometry')}.yaml").as_dict())
    changed = {key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)}
    assert changed == {"name", "out", "rewards.weights.discriminative"}
    assert ours["rewards.weights.discriminative"] == 0.0


@pytest.mark.parametrize("name", REAL)
def test_a_real_recipe_says_that_it_was_not_run(name):
    own = (CONFIGS / f"{name}.yaml").read_text()
    base = re.search(r"^base: (.*)$", own, re.MULTILINE)
    if name.endswith("-geometry"):
        own += (CONFIGS / base.group(1)).read_text()
    assert "NOT RUN" in own


@pytest.mark.parametrize("name", ["qwen2.5-vl-3b", "qwen2.5-vl-7b"])
def test_the_released_numbers(name):
    config = load(CONFIGS / f"{name}.yaml")
    grpo = config.grpo
    assert (grpo.queries, grpo.generations, grpo.temperature, grpo.completion_tokens) == (16, 8, 1.0, 1300)
    assert (grpo.learning_rate, grpo.weight_decay, grpo.clip_norm, grpo.beta) == (1e-6, 0.01, 1.0, 5e-3)
    assert (config.epochs, config.data.limit, config.max_pixels) == (1.0, 3000, 840 * 840)
    assert grpo.frozen_parts == ()
    assert config.lora.r == 0
    assert config.encoder == "openai/clip-vit-base-patch32"
