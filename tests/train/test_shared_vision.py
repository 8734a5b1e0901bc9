"""A shared vision tower gives the features and gradients of one that sees every image, in every family that has it."""

import pytest
import torch

from dpad_fast.data import shapes
from dpad_fast.train.families import find_vision_tower
from dpad_fast.train.policy import build_policy, build_processor
from dpad_fast.train.shared_vision import share_vision


def inputs(indices):
    processor = build_processor()
    items = [shapes.sample(3, index) for index in indices]
    turns = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": i.query}]}] for i in items]
    prompts = [processor.apply_chat_template(turn) for turn in turns]
    images = [[item.image] for item in items]
    return processor(text=prompts, images=images, padding=True, padding_side="left", return_tensors="pt")


def same(given, want):
    """Compare what two towers returned, part by part."""
    assert type(given) is type(want)
    if isinstance(want, torch.Tensor):
        torch.testing.assert_close(given, want, rtol=1e-5, atol=1e-6)
    elif isinstance(want, dict):
        assert list(given) == list(want)
        for key, value in want.items():
            same(given[key], value)
    elif isinstance(want, (list, tuple)):
        for one, other in zip(given, want, strict=True):
            same(one, other)
    else:
        assert given is want


FAMILIES = ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("order", [[0, 0, 0], [0, 1, 0, 2, 1, 0], [0, 1, 2], [4]])
def test_same_logits_and_gradients(tiny_policy, family, order):
    model = tiny_policy(family)
    given = inputs(order)
    plain = model(**given).logits
    plain.square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in model.model.visual.named_parameters()}
    assert all(gradient.abs().max() > 0 for name, gradient in gradients.items() if "merger" in name)
    model.zero_grad()
    assert share_vision(model)
    seen = []
    model.model.visual.patch_embed.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    shared = model(**given).logits
    shared.square().mean().backward()
    torch.testing.assert_close(shared, plain, rtol=1e-4, atol=1e-5)
    for name, p in model.model.visual.named_parameters():
        largest = float(gradients[name].abs().max())
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-3, atol=1e-5 * largest + 1e-7)
    assert seen == [64 * len(set(order))]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{}, {"output_hidden_states": True}, {"return_dict": False}], ids=str)
def test_all_that_the_tower_returns_is_repeated(tiny_policy, family, options):
    model = tiny_policy(family)
    given = inputs([0, 1, 0, 0])
    arguments = (given["pixel_values"], given["image_grid_thw"])
    plain = model.model.visual(*arguments, **options)
    assert share_vision(model)
    seen = []
    model.model.visual.patch_embed.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    same(model.model.visual(*arguments, **options), plain)
    assert seen == [2 * 64]


@pytest.mark.parametrize("odd", [torch.zeros(1, 4, 7, 7), torch.tensor(3.0), {1, 2}], ids=["weights", "scalar", "set"])
def test_a_part_that_belongs_to_no_image_is_not_repeated(tiny_policy, odd):
    """Then the tower sees all images, as without sharing."""
    visual = (model := tiny_policy("qwen3-vl")).model.visual
    original, seen = visual.forward, []

    def with_a_part(hidden_states, grid_thw, **options):
        seen.append(len(hidden_states))
        output = original(hidden_states, grid_thw, **options)
        output.deepstack_features.append(odd)
        return output

    visual.forward = with_a_part
    given = inputs([0, 1, 0])
    arguments = (given["pixel_values"], given["image_grid_thw"])
    plain = visual(*arguments)
    assert share_vision(model)
    same(visual(*arguments), plain)
    assert seen[-1] == 3 * 64


def test_positions_made_ahead_are_those_of_all_images(tiny_policy):
    model = tiny_policy("qwen3-vl")
    given = inputs([0, 0])
    arguments = (given["pixel_values"], given["image_grid_thw"])
    ends = torch.tensor([0, 64, 128], dtype=torch.int32)
    plain = model.model.visual(*arguments, cu_seqlens=ends)
    assert share_vision(model)
    same(model.model.visual(*arguments, cu_seqlens=ends), plain)


@pytest.mark.parametrize("family", ["smolvlm", "idefics3", "internvl"])
def test_towers_of_another_kind_are_left_alone(tiny_policy, family):
    model = tiny_policy(family)
    before = find_vision_tower(model).forward
    assert not share_vision(model)
    assert find_vision_tower(model).forward == before


def test_twice_is_once_and_other_models_are_left_alone():
    model = build_policy(0)
    assert share_vision(model)
    forward = model.model.visual.forward
    assert share_vision(model)
    assert model.model.visual.forward is forward
    assert not share_vision(torch.nn.Linear(1, 1))
    assert not share_vision(None)
