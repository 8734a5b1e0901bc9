import pytest
import torch

from dpad_fast.data import shapes
from dpad_fast.train.policy import build_policy, build_processor
from dpad_fast.train.shared_vision import share_vision


def inputs(indices):
    processor = build_processor()
    items = [shapes.sample(3, index) for index in indices]
    turns = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": i.query}]}] for i in items]
    prompts = [processor.apply_chat_template(turn) for turn in turns]
    images = [[item.image] for item in items]
    return processor(text=prompts, images=images, padding=True, padding_side="left", return_tensors="pt")


@pytest.mark.parametrize("order", [[0, 0, 0], [0, 1, 0, 2, 1, 0], [0, 1, 2], [4]])
def test_same_logits_and_gradients(order):
    model = build_policy(0)
    given = inputs(order)
    plain = model(**given).logits
    plain.square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in model.model.visual.named_parameters()}
    model.zero_grad()
    assert share_vision(model)
    seen = []
    model.model.visual.patch_embed.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    shared = model(**given).logits
    shared.square().mean().backward()
    torch.testing.assert_close(shared, plain, rtol=1e-5, atol=1e-6)
    for name, p in model.model.visual.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-3, atol=1e-7)
    assert seen == [64 * len(set(order))]


def test_twice_is_once_and_other_models_are_left_alone():
    model = build_policy(0)
    assert share_vision(model)
    forward = model.model.visual.forward
    assert share_vision(model)
    assert model.model.visual.forward is forward
    assert not share_vision(torch.nn.Linear(1, 1))
    assert not share_vision(None)
