"""Tiny policies of the real families on real pictures: two steps, LoRA, frozen parts, coordinates, evaluation."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl")

from dpad_fast import experiment
from dpad_fast.train import run as training
from dpad_fast.train.config import from_dict
from dpad_fast.train.policy import load_policy
from dpad_fast.train.tiny_policy import write_tiny_policy

MINI = Path(__file__).parents[3] / "shared" / "data" / "reasonseg-mini"
# All terms are 0 for answers of a random model, and then nothing moves.
NOISE = """
def noise(scorer):
    def noise(*, completions, **columns):
        return [float(index % 2) for index in range(len(completions))]
    return noise
"""
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
PIXELS = 28 * 28 * 16
NAMES = {
    "qwen2.5-vl": "Qwen/Qwen2.5-VL-3B-Instruct",
    "qwen3-vl": "Qwen/Qwen3-VL-4B-Instruct",
    "smolvlm": "HuggingFaceTB/SmolVLM-256M-Instruct",
    "internvl": "OpenGVLab/InternVL3-1B-hf",
}
# What each family needs so that a picture is few tokens, and the space that it answers in.
SETTINGS = {
    "qwen2.5-vl": {"max_pixels": PIXELS, "min_pixels": 3136},
    "qwen3-vl": {"max_pixels": PIXELS, "min_pixels": 1024, "rewards": {"preset": "dpad", "coordinates": "norm1000"}},
    "smolvlm": {"image_processor": {"do_image_splitting": False}},
    "internvl": {
        "image_processor": {"crop_to_patches": False},
        "rewards": {"preset": "dpad", "coordinates": "norm1000"},
    },
}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A function: family -> folder of a tiny random policy of its own class."""
    made = {}

    def folder(family):
        if family not in made:
            made[family] = write_tiny_policy(tmp_path_factory.mktemp(family), NAMES[family])
        return made[family]

    return folder


@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    """A function: family, changes -> the configuration of two short steps on the mini data set."""

    if not MINI.is_dir():
        pytest.skip("no shared/data/reasonseg-mini here")
    (tmp_path / "noise_rewards.py").write_text(NOISE)
    monkeypatch.syspath_prepend(tmp_path)

    def make(family, **changes):
        values = {
            "policy": str(tiny(family)),
            "out": str(tmp_path / "run"),
            "steps": 2,
            "save_every": 1,
            "tensorboard": False,
            "extra_rewards": ["noise_rewards:noise"],
            "data": {"kind": "reasonseg", "path": str(MINI), "prompt": "dpad"},
            "grpo": {"queries": 2, "generations": 2, "completion_tokens": 6, "learning_rate": 1e-2, "beta": 0.01},
            **SETTINGS[family],
        }
        for key, value in changes.items():
            values[key] = {**values[key], **value} if isinstance(values.get(key), dict) else value
        return from_dict(values)

    return make


def weights_of(folder):
    model, _ = load_policy(folder)
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.mark.parametrize("family", NAMES)
def test_two_steps_on_real_pictures(run, family):
    config = run(family)
    result = training.train(config)
    assert result["steps"] == 2
    assert len(result["history"]) == 2
    before, after = weights_of(config.policy), weights_of(Path(config.out) / "policy")
    tower = {"smolvlm": "model.vision_model.", "internvl": "model.vision_tower."}.get(family, "model.visual.")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(name.startswith(tower) for name in changed)


def test_an_adapter_is_kept_and_loaded_with_what_it_was_trained_on(run):
    pytest.importorskip("peft")
    config = run("qwen2.5-vl", lora={"r": 4, "alpha": 8, "target_modules": ["q_proj", "gate_proj"]})
    result = training.train(config)
    policy = Path(config.out) / "policy"
    adapter = json.loads((policy / "adapter_config.json").read_text())
    # The tower has gate_proj layers too; it is frozen, so none of them has an adapter.
    assert sorted(adapter["target_modules"]) == sorted(
        f"model.language_model.layers.{i}.{layer}" for i in (0, 1) for layer in ("mlp.gate_proj", "self_attn.q_proj")
    )
    assert not (policy / "model.safetensors").exists()
    before, after = weights_of(config.policy), weights_of(policy)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{name}.weight" for name in adapter["target_modules"]}
    assert training.train(config) == result  # finished: the adapter counts as the policy
    with pytest.raises(ValueError, match=r"is a LoRA adapter, and training goes on from whole weights"):
        training.train(run("qwen2.5-vl", policy=str(policy), out=str(policy.parent.parent / "more")))


def test_a_killed_run_with_an_adapter_goes_on_to_the_same_weights(run, tmp_path):
    pytest.importorskip("peft")
    whole = run("qwen2.5-vl", lora={"r": 4}, out=str(tmp_path / "whole"))
    training.train(whole)

    class Killed(Exception):
        pass

    def kill(step, metrics):
        if step == 2 and metrics:
            raise Killed

    halved = run("qwen2.5-vl", lora={"r": 4}, out=str(tmp_path / "halved"))
    with pytest.raises(Killed):
        training.train(halved, watch=kill)
    assert training.train(halved)["resumed_at"] == 1
    kept = [weights_of(Path(config.out) / "policy") for config in (whole, halved)]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


@pytest.mark.parametrize(
    ("family", "parts", "prefixes"),
    [
        ("qwen2.5-vl", ["projector"], ("model.visual.merger.",)),
        ("qwen3-vl", ["projector"], ("model.visual.merger.", "model.visual.deepstack_merger_list.")),
        ("smolvlm", ["language"], ("model.text_model.", "lm_head.")),
        ("internvl", ["projector"], ("model.multi_modal_projector.",)),
    ],
)
def test_frozen_parts_stay_as_they_are(run, family, parts, prefixes):
    config = run(family, grpo={"freeze_vision": False, "frozen": parts})
    trainer = training.make_trainer(config, training.make_scorer(config))
    still = {name for name, p in trainer.model.named_parameters() if not p.requires_grad}
    named = {name for name, _ in trainer.model.named_parameters()}
    assert still == {name for name in named if name.startswith(prefixes)}
    assert still
    assert named - still


@pytest.mark.parametrize(
    ("family", "given", "wanted"),
    [("qwen3-vl", "pixel", "norm1000"), ("internvl", "pixel", "norm1000"), ("qwen2.5-vl", "norm1000", "pixel")],
)
def test_rewards_in_another_space_than_the_policy_answers_in_are_refused(run, family, given, wanted):
    config = run(family, rewards={"preset": "dpad", "coordinates": given})
    said = rf"^rewards\.coordinates is '{given}', but .* set rewards\.coordinates to '{wanted}', or check_coordinates"
    with pytest.raises(ValueError, match=said):
        training.train(config)
    training.load_run_policy(run(family, rewards={"preset": "dpad", "coordinates": given}, check_coordinates=False))


def test_an_adapter_for_layers_that_are_not_there_is_named(run):
    pytest.importorskip("peft")
    config = run("qwen2.5-vl", lora={"r": 4, "target_modules": ["q_proj", "wq"]})
    with pytest.raises(ValueError, match=r"lora\.target_modules: no trained linear layer is named 'wq'; there are"):
        training.train(config)


@pytest.mark.parametrize(
    ("family", "changes", "complaint"),
    [
        ("smolvlm", {"max_pixels": 50176}, r"no settings of SmolVLM\w*|no settings of Idefics3\w*"),
        ("internvl", {"min_pixels": 3136}, r"no settings of GotOcr2\w*: set image_processor to some of .*max_patches"),
        ("qwen2.5-vl", {"max_pixels": 3135, "min_pixels": 0}, "min_pixels is 3136, above max_pixels 3135"),
        ("qwen2.5-vl", {"image_processor": {"tiles": 3}}, r"image_processor\.tiles is no setting of Qwen2VL\w+, which"),
    ],
)
def test_limits_of_pictures_that_a_family_does_not_have(run, family, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        training.load_run_policy(run(family, **changes))


def test_measured_on_held_out_samples_before_during_and_after(run):
    """Without and with measurements in between the same policy comes out: measuring changes nothing."""
    held = {"path": str(MINI), "limit": 3}
    config = run("qwen2.5-vl", steps=3, evaluation={"data": held, "samples": 2, "every": 1})
    told = []
    result = experiment.run_experiment(config, lambda stage, done, of, metrics: told.append((stage, done, of)))
    assert [line["step"] for line in result["during"]] == [1, 2]
    assert all(set(line["metrics"]) >= {"giou", "ciou", "chain_tokens", "format"} for line in result["during"])
    for when in ("before", "after"):
        assert len(result["records"][when]) == 6
        assert {row["id"] for row in result["records"][when]} == {row["id"] for row in result["records"]["before"]}
    assert told.count(("before", 6, 6)) == told.count(("after", 6, 6)) == 1
    assert told[0] == ("before", 0, 0)  # said before the policy is loaded
    assert all(min(row["model_size"]) > 0 for row in result["records"]["after"])  # pictures are resized for the policy
    plain = run("qwen2.5-vl", steps=3, out=config.out + "-plain")
    training.train(plain)
    measured, other = (weights_of(Path(out) / "policy") for out in (config.out, plain.out))
    assert all(torch.equal(measured[name], other[name]) for name in measured)


def test_epochs_give_the_steps(run):
    """Six samples, two a step: one pass is three steps. The count, which the data says, changes no fingerprint."""
    config = run("qwen2.5-vl", epochs=1.0, evaluation={"scenes": 0})
    result = training.train(config)
    assert result["steps"] == 3
    assert result["fingerprint"] == config.fingerprint()
    told = []
    whole = run("qwen2.5-vl", epochs=1.0, evaluation={"scenes": 0}, out=config.out + "-whole")
    experiment.run_experiment(whole, lambda stage, done, of, metrics: told.append((stage, done, of)))
    assert told == [("train", 1, 3), ("train", 2, 3), ("train", 3, 3)]


def test_a_mistake_in_the_data_is_told_before_a_measurement(run, tmp_path):
    config = run("qwen2.5-vl", data={"path": str(tmp_path / "gone")}, evaluation={"data": {"path": str(MINI)}})
    with pytest.raises(ValueError, match="gone"):
        experiment.run_experiment(config)
    assert not (Path(config.out) / "before.json").exists()
