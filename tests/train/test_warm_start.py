"""The small CLIP and the small policy: sizes, labels of the dense stage, what the language model is asked to say."""

import numpy as np
import pytest
import torch

from dpad_fast.data import shapes
from dpad_fast.data.shapes_text import MIXTURES, completion_of, listing_of
from dpad_fast.train.policy import build_policy, build_processor
from dpad_fast.train.warm_start import small_clip, small_policy


def _parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_sizes_are_as_documented():
    assert 1.8e6 < _parameters(build_policy(0)) < 2.0e6
    assert 0.45e6 < _parameters(small_clip.build(0)) < 0.50e6


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
