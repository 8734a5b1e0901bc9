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
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning"
)
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
