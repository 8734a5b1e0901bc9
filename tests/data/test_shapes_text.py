"""What is said in the shapes world: tokenizers round-trip it, and the mixtures hold what they promise."""

import json
import re

import numpy as np
import pytest

from dpad_fast.data import shapes
from dpad_fast.data.shapes_text import (
    GENERIC_CAPTIONS,
    MAX_TOKENS,
    MIXTURES,
    caption_of,
    caption_tokenizer,
    completion_of,
    is_focused,
    listing_of,
    named_shape,
    policy_tokenizer,
)

WHOLE = re.compile(r"<think>(.*?)</think>\s*<answer>(.*?)</answer>\s*<caption>(.*?)</caption>", re.DOTALL)


def _draw(setting, count):
    rng = np.random.default_rng(0)
    for index in range(count):
        item = shapes.sample(21, index)
        yield item, WHOLE.fullmatch(completion_of(item, MIXTURES[setting], rng))


@pytest.mark.parametrize("setting", ["e", "f", "j"])
def test_completions_are_well_formed_and_fit_the_tokenizer(setting):
    tokenizer = policy_tokenizer()
    for item, match in _draw(setting, 120):
        ids = tokenizer(match.string)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == match.string
        assert len(ids) + 1 <= MAX_TOKENS
        answer = json.loads(match[2])
        x1, y1, x2, y2 = answer["bbox"]
        assert 0 <= x1 < x2 <= 112
        assert 0 <= y1 < y2 <= 112
        assert tokenizer.unk_token_id not in tokenizer(" " + item.query)["input_ids"]


def test_listings_name_what_the_prompt_asks_for_with_its_box():
    tokenizer, rng = policy_tokenizer(), np.random.default_rng(1)
    for index in range(200):
        objects = shapes.sample(22, index).scene.objects
        prompt, listed = listing_of(shapes.sample(22, index), rng)
        wanted = prompt.split()[1:]
        named = [s for s in objects if not wanted or wanted[0] in s.name.split()]
        expected = {(frozenset(s.name.split()), f"{list(s.box)}") for s in named}
        parts = [re.fullmatch(r"([a-z ]+) (\[.*\])", part.strip()) for part in listed.split(" ,")]
        assert {(frozenset(part[1].split()), part[2]) for part in parts} == expected
        assert len(parts) == len(named)
        assert tokenizer.unk_token_id not in tokenizer(f" {prompt}{listed}")["input_ids"]


def test_mixtures_hold_their_rates():
    for setting, focused, divergent in (("e", 0.8, 0.3), ("f", 0.5, 0.5)):
        rows = [(is_focused(m[1]), m[3].strip() not in GENERIC_CAPTIONS) for _, m in _draw(setting, 1500)]
        assert np.mean([style for style, _ in rows]) == pytest.approx(0.4, abs=0.05)
        assert np.mean([said for style, said in rows if style]) == pytest.approx(focused, abs=0.07)
        assert np.mean([said for style, said in rows if not style]) == pytest.approx(divergent, abs=0.07)


def test_j_is_wrong_half_the_time_and_its_caption_follows_the_conclusion():
    wrong = []
    for item, match in _draw("j", 600):
        concluded = re.findall(r"so the (.*?) \.", match[1])[-1]
        wrong.append(concluded != item.scene.objects[item.question.target].name)
        if match[3].strip() not in GENERIC_CAPTIONS:
            assert match[3].strip() == f"a {concluded}"
    assert np.mean(wrong) == pytest.approx(0.5, abs=0.07)


def test_captions_name_one_shape():
    for index in range(50):
        objects = shapes.sample(4, index).scene.objects
        for position, shape in enumerate(objects):
            assert named_shape(caption_of(shape), objects) == position
        assert all(named_shape(text, objects) is None for text in GENERIC_CAPTIONS)


def test_caption_tokenizer_wraps_and_lower_cases():
    tokenizer = caption_tokenizer()
    assert tokenizer("A Red striped circle")["input_ids"] == tokenizer("a red striped circle")["input_ids"]
    ids = tokenizer("a red striped circle")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert tokenizer.unk_token_id not in tokenizer(" ".join(GENERIC_CAPTIONS))["input_ids"]
