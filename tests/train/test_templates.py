"""Prompts by name: the question as the releases put it, the space, and an example that the parser takes."""

import pytest

from dpad_fast.rewards import RewardConfig, parse_completion
from dpad_fast.train.config import from_dict
from dpad_fast.train.prompts import turns, with_picture
from dpad_fast.train.sections import TEMPLATES
from dpad_fast.train.templates import prompt_text

PRESETS = {"dpad": "dpad", "seg-zero": "seg-zero", "vision-reasoner": "vision-reasoner"}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("coordinates", ["pixel", "norm1000", "norm1"])
def test_the_example_is_an_answer_of_the_form_that_is_scored(name, coordinates):
    text = prompt_text(name, "The Dog {answer} on the left.", coordinates)
    assert "'the dog {answer} on the left'" in text
    _, _, example = text.partition("The form is: ")
    answer = parse_completion(example, RewardConfig.preset(PRESETS[name]))
    assert answer.tags_ok
    assert answer.fields_ok
    assert not answer.reasons
    numbers = answer.objects[0][0] if name == "vision-reasoner" else answer.box
    assert all(0 <= number <= (1 if coordinates == "norm1" else 1000) for number in numbers)
    assert ("0 to 1000" in text) == (coordinates == "norm1000")
    assert ("<caption>" in text) == (name == "dpad")


def test_a_text_of_your_own_takes_the_question_as_it_is():
    assert prompt_text("Find: {question}!", "The {x} Dog.") == "Find: The {x} Dog.!"


def test_turns_have_the_system_first_and_the_picture_before_the_users_text():
    config = from_dict({"data": {"prompt": "Q {question}", "system_prompt": "Be brief"}})
    plain = turns("x", config)
    assert plain == [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Q x"}]
    assert with_picture(plain) == [
        {"role": "system", "content": [{"type": "text", "text": "Be brief"}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Q x"}]},
    ]


def test_the_space_is_that_of_the_rewards():
    config = from_dict({"data": {"prompt": "dpad"}, "rewards": {"preset": "dpad", "coordinates": "norm1000"}})
    assert "0 to 1000" in turns("x", config)[0]["content"]
