import pytest
import torch

from dpad_fast.data import shapes
from dpad_fast.train import decode
from dpad_fast.train.policy import build_policy, build_processor


def inputs_of(indices):
    processor = build_processor()
    items = [shapes.sample(3, index) for index in indices]
    turns = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": i.query}]}] for i in items]
    prompts = [processor.apply_chat_template(turn) for turn in turns]
    images = [[item.image] for item in items]
    return dict(processor(text=prompts, images=images, padding=True, padding_side="left", return_tensors="pt"))


def logits_of_the_model(model, inputs, tokens):
    """Scores before each of the forced tokens and after the last, from one ordinary forward pass."""
    more = torch.ones_like(tokens)
    given = {
        **inputs,
        "input_ids": torch.cat([inputs["input_ids"], tokens], dim=1),
        "attention_mask": torch.cat([inputs["attention_mask"], more], dim=1),
        "mm_token_type_ids": torch.cat([inputs["mm_token_type_ids"], 0 * more], dim=1),
    }
    return model(**given).logits[:, inputs["input_ids"].shape[1] - 1 :]


@pytest.mark.parametrize("indices", [[0], [0, 0, 0], [0, 1, 0, 2, 1]])
@torch.no_grad()
def test_logits_are_those_of_the_model(indices):
    model = build_policy(0).eval()
    inputs = inputs_of(indices)
    tokens = torch.randint(10, 100, (len(indices), 12), generator=torch.Generator().manual_seed(1))
    expected = logits_of_the_model(model, inputs, tokens)
    decoder = decode.Decoder(model, inputs, 12)
    found = [decoder.logits()]
    for step in range(12):
        decoder.feed(tokens[:, step])
        found.append(decoder.logits())
    torch.testing.assert_close(torch.stack(found, dim=1), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_dropping_rows_changes_nothing_for_the_others():
    model = build_policy(0).eval()
    inputs = inputs_of([0, 1, 2])
    tokens = torch.randint(10, 100, (3, 6), generator=torch.Generator().manual_seed(2))
    expected = logits_of_the_model(model, inputs, tokens)[[0, 2], -1]
    decoder = decode.Decoder(model, inputs, 6)
    for step in range(6):
        if step == 3:
            decoder.keep(torch.tensor([True, False, True]))
        decoder.feed(tokens[:, step] if step < 3 else tokens[[0, 2], step])
    torch.testing.assert_close(decoder.logits(), expected, rtol=1e-4, atol=1e-4)


def test_completions_end_where_they_should():
    model = build_policy(0).eval()
    inputs = inputs_of([0] * 40)
    torch.manual_seed(0)
    ends = list(range(10, 30))
    drawn = decode.sample(model, inputs, max_new_tokens=15, eos_ids=ends, suppress=[40, 41])
    assert len(drawn) == 40
    for ids in drawn:
        assert 1 <= len(ids) <= 15
        assert not set(ids[:-1]) & set(ends)
        assert ids[-1] in ends or len(ids) == 15
        assert not set(ids) & {40, 41}
    assert len({len(ids) for ids in drawn}) > 3


@torch.no_grad()
def test_draws_follow_the_scores():
    model = build_policy(0).eval()
    one = inputs_of([0])
    scores = model(**one).logits[0, -1]
    inputs = {key: value.repeat(2000, 1) for key, value in one.items()}
    torch.manual_seed(0)
    for temperature in (1.0, 0.5):
        drawn = decode.sample(model, inputs, max_new_tokens=1, eos_ids=[3], temperature=temperature)
        counts = torch.bincount(torch.tensor(drawn).flatten(), minlength=len(scores)).double()
        expected = (scores / temperature).softmax(dim=0).double() * 2000
        chi = ((counts - expected) ** 2 / expected).sum()
        freedom = len(scores) - 1
        assert abs(chi - freedom) < 5 * (2 * freedom) ** 0.5


def test_supports_small_float32_models_on_the_cpu_only():
    model = build_policy(0)
    assert decode.supports(model)
    assert not decode.supports(model.half())
    assert not decode.supports(torch.nn.Linear(1, 1))


def test_one_image_a_row():
    inputs = inputs_of([0, 1])
    inputs["image_grid_thw"] = inputs["image_grid_thw"][:1]
    with pytest.raises(ValueError, match="1 images for 2 rows"):
        decode.sample(build_policy(0), inputs, max_new_tokens=1, eos_ids=[3])
