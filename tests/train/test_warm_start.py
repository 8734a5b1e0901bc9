"""The small CLIP and the small policy: sizes, labels of the dense stage, what the language model is asked to say."""

import numpy as np
import pytest
import torch

from dpad_fast.data import shapes
from dpad_fast.data.shapes_text import (
    GENERIC_CAPTIONS,
    MIXTURES,
    completion_of,
    listing_of,
    named_shape,
    policy_tokenizer,
)
from dpad_fast.train.policy import build_policy, build_processor
from dpad_fast.train.warm_start import rebuild, small_clip, small_policy, small_siglip


def _parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_sizes_are_as_documented():
    assert 1.8e6 < _parameters(build_policy(0)) < 2.0e6
    assert 0.45e6 < _parameters(small_clip.build(0)) < 0.50e6
    assert 2 * _parameters(small_siglip.build(0)) < 2e6  # bytes, in half precision


def test_a_seed_gives_the_same_weights():
    first, again, other = (build_policy(seed).lm_head.weight for seed in (4, 4, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_dense_labels_say_what_covers_a_cell():
    for index in range(40):
        item = shapes.sample(31, index)
        labels = small_policy.dense_labels(item)
        assert labels.shape == (16, 7)
        for cell, row in enumerate(labels):
            top, left = cell // 4 * 28, cell % 4 * 28
            covered = {
                shape.name: shape.box
                for shape in item.scene.objects
                if min(shape.box[2], left + 28) > max(shape.box[0], left)
                and min(shape.box[3], top + 28) > max(shape.box[1], top)
            }
            if row[0] == len(shapes.COLOURS):
                assert row.tolist() == [6, 4, 2, 17, 17, 17, 17]
                continue
            name = f"{list(shapes.COLOURS)[row[0]]} {shapes.TEXTURES[row[2]]} {shapes.FORMS[row[1]]}"
            assert covered[name] == tuple(row[3:] * shapes.GRID)


@pytest.mark.parametrize("lists", [True, False])
def test_only_the_answer_is_learnt(lists):
    processor, rng = build_processor(), np.random.default_rng(0)
    items = [shapes.sample(32, index) for index in range(5)]
    if lists:
        prompts, answers = zip(*(listing_of(item, rng) for item in items), strict=True)
    else:
        prompts, answers = [i.query for i in items], [completion_of(i, MIXTURES["e"], rng) for i in items]
    batch = small_policy._batch(processor, items, prompts, answers)
    for row, answer in zip(batch["labels"], answers, strict=True):
        learnt = processor.tokenizer.decode(row[row >= 0])
        assert learnt == answer + processor.tokenizer.eos_token
    assert (batch["input_ids"] == processor.image_token_id).sum(dim=1).tolist() == [16] * 5


def test_stages_train_what_they_should_and_report_progress():
    model, seen = build_policy(0), []
    start = {name: value.clone() for name, value in model.state_dict().items()}
    stage = small_policy.TrainingStage(steps=2, batch=2, lr=1e-3)
    small_policy.train_vision(model, stage, lambda *line: seen.append(line))
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, start[name])}
    assert moved
    assert all(name.startswith("model.visual.") for name in moved)
    between = {name: value.clone() for name, value in model.state_dict().items()}
    small_policy.train_language(model, MIXTURES["f"], stage, listing=0.5, progress=lambda *line: seen.append(line))
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, between[name])}
    assert moved
    assert not any(name.startswith("model.visual.") for name in moved)
    assert [line[:2] for line in seen] == [(1, 2), (2, 2)] * 2


def test_the_clip_loss_falls_on_its_own_batch():
    seen = []
    small_clip.train(small_clip.ClipTraining(steps=12, scenes=12), lambda *line: seen.append(line[2]))
    assert len(seen) == 12
    assert sum(seen[-1].values()) < sum(seen[0].values())


def test_the_siglip_loss_falls_on_its_own_batch():
    seen = []
    settings = small_clip.ClipTraining(steps=12, scenes=12)
    small_siglip.train(settings, lambda *line: seen.append(line[2]))
    assert len(seen) == 12
    assert sum(seen[-1].values()) < sum(seen[0].values())


def test_siglips_term_is_the_papers_on_a_case_by_hand():
    """Two crops, two scenes, two names and one generic text; a scene and the name that it holds is no pair."""
    model = small_siglip.build(0)
    crop, scene = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.3]]), torch.tensor([[0.5, 0.4, 0.6], [0.1, 0.7, 0.2]])
    holds = torch.tensor([[True, False], [True, True]])
    found = small_clip.Similarities(crop, scene, torch.tensor([0, 1]), holds)
    pairs = [(0.9, 1), (0.1, -1), (0.0, -1), (0.2, -1), (0.8, 1), (0.3, -1), (0.4, -1), (0.6, 1), (0.2, 1)]
    by_hand = sum(np.log1p(np.exp(-sign * (10 * value - 10))) for value, sign in pairs) / 4
    assert float(small_siglip.pair_sigmoid(model, found).detach()) == pytest.approx(by_hand, rel=1e-5)


def test_without_textures_either_name_is_right():
    items, rng = [shapes.sample(33, index) for index in range(60)], np.random.default_rng(0)
    crops, right, holds = small_clip._draw(items, rng, textures=False)
    assert len(crops) == 60
    other = small_clip._other_texture(torch.arange(len(small_clip.NAMES))).numpy()
    assert (holds == holds[:, other]).all()
    taught = {small_clip.NAMES[name].split()[1] for name in right}
    assert taught == set(shapes.TEXTURES)
    held = [
        any(small_clip.NAMES[name].split()[::2] == [s.colour, s.form] for s in item.scene.objects)
        for name, item in zip(right, items, strict=True)
    ]
    assert all(held)
    delta = torch.zeros(1, len(small_clip.NAMES))
    delta[0, [3, int(other[3])]] = 1.0  # both textures of one name fit perfectly, nothing else does
    found = small_clip.Similarities(delta, torch.zeros_like(delta), torch.tensor([3]), torch.zeros(1, 48, dtype=bool))
    assert float(small_clip._ranking(found, textures=False)) < float(small_clip._ranking(found, textures=True))


def test_captions_of_the_variants():
    tokenizer = policy_tokenizer()
    for index in range(30):
        item = shapes.sample(34, index)
        target = item.scene.objects[item.question.target]
        for name, mixture in MIXTURES.items():
            said = completion_of(item, mixture, np.random.default_rng([1, index]))
            assert tokenizer.unk_token_id not in tokenizer(said)["input_ids"]
            caption = said.partition("<caption>")[2].removesuffix("</caption>")
            if name.endswith("no-caption"):
                assert caption == ""
            if name == "e-two-attributes" and caption[1:] not in GENERIC_CAPTIONS:
                assert caption == f" a {target.colour} {target.form}"
                twins = [s for s in item.scene.objects if (s.colour, s.form) == (target.colour, target.form)]
                named = named_shape(caption, item.scene.objects)
                assert named == (item.question.target if len(twins) == 1 else None)


def test_variants_are_taught_as_e_and_j_are():
    like = {lesson.name: lesson for lesson in rebuild.CONTINUED}
    for variant in rebuild.VARIANTS:
        original = like[variant.name[: len("policy-e")]]
        assert (variant.start, variant.stage, variant.listing) == (original.start, original.stage, original.listing)
        ours, theirs = dict(vars(MIXTURES[variant.mixture])), dict(vars(MIXTURES[original.mixture]))
        assert ours.pop("caption") != theirs.pop("caption")
        if variant.name.endswith("two-attributes"):
            assert ours == theirs
    assert len(rebuild.VARIANTS) == 4
