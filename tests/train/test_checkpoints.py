"""The shipped checkpoints: small enough, and as good as the documents say."""

import numpy as np
import pytest

import dpad_fast as df
from dpad_fast.checkpoints import POLICIES, checkpoint
from dpad_fast.data import shapes
from dpad_fast.data.shapes_text import GENERIC_CAPTIONS, MIXTURES, completion_of
from dpad_fast.train.policy import load_policy
from dpad_fast.train.warm_start.small_clip import NAMES

HELD_OUT = 9  # a seed of scenes that no training uses


@pytest.fixture(scope="module", params=["shapes", "shapes-siglip"])
def encoder(request):
    return df.load_encoder(request.param, precision="float32")


def _rate(encoder, say):
    """Share of 600 held-out scenes in which S1 > S2 for what `say(sample, rng)` says of the target."""
    rng = np.random.default_rng(0)
    items = [shapes.sample(HELD_OUT, index) for index in range(600)]
    config = df.RewardConfig.preset("dpad", terms=("discriminative",), gate=False)
    answers = [f"<think>x</think><answer>{{}}</answer><caption>{say(item, rng)}</caption>" for item in items]
    batch = df.RewardScorer(config, encoder=encoder).score(
        answers, [item.target for item in items], [item.image for item in items]
    )
    return float((batch.similarity["roi"] > batch.similarity["aoi"]).float().mean())


def _target(item):
    return item.scene.objects[item.question.target]


def _wrong_texture(item, _):
    shape = _target(item)
    return f"a {shape.colour} {'plain' if shape.texture == 'striped' else 'striped'} {shape.form}"


def _another(item, rng):
    others = [shape for shape in item.scene.objects if shape is not _target(item)]
    return f"a {others[rng.integers(len(others))].name}"


def _absent(item, rng):
    held = {shape.name for shape in item.scene.objects}
    absent = [name for name in NAMES if name not in held]
    return f"a {absent[rng.integers(len(absent))]}"


@pytest.mark.parametrize(
    ("say", "least", "most"),
    [
        (lambda item, rng: f"a {_target(item).name}", 0.97, 1.0),
        (lambda item, rng: GENERIC_CAPTIONS[rng.integers(len(GENERIC_CAPTIONS))], 0.0, 0.02),
        (_another, 0.0, 0.12),
        (_absent, 0.0, 0.42),
        (_wrong_texture, 0.0, 0.40),
    ],
    ids=["right", "generic", "other-object", "absent-object", "wrong-texture"],
)
def test_the_small_encoders_tell_descriptions_apart(encoder, say, least, most):
    assert least <= _rate(encoder, say) <= most


def test_all_checkpoints_together_stay_under_15_megabytes():
    folder = checkpoint("clip").parent
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 15e6


def test_the_second_encoder_stays_under_2_megabytes():
    assert sum(path.stat().st_size for path in checkpoint("shapes-siglip").iterdir()) < 2e6


@pytest.mark.parametrize("name", POLICIES)
def test_a_shipped_policy_gives_its_warm_start_a_high_likelihood(name):
    import torch

    from dpad_fast.train.warm_start.small_policy import _batch

    model, processor = load_policy(name)
    rng = np.random.default_rng(1)
    items = [shapes.sample(HELD_OUT, index) for index in range(32)]
    said = [completion_of(item, MIXTURES[name[-1]], rng) for item in items]
    with torch.no_grad():
        loss = model(**_batch(processor, items, [item.query for item in items], said)).loss
    # Style, caption and doubt alone cost 0.05 nats a token; an untrained policy pays log(vocabulary) = 4.7.
    assert float(loss) < (0.45 if name == "policy-j" else 0.15)


def test_a_missing_checkpoint_is_named():
    with pytest.raises(ValueError, match="no-such-policy"):
        checkpoint("no-such-policy")
    with pytest.raises(ValueError, match="policy 'no-such-policy' cannot be loaded"):
        load_policy("no-such-policy")
