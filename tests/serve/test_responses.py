"""Responses are told from their prompts, and lose the tokens that end a turn, in time that follows their length."""

import random
import re

import pytest

from dpad_fast.serve.responses import response_of, without_end
from dpad_fast.testing.inputs import cases

ENDS = re.compile(r"(?:<\|[^<>|\s]{1,40}\|>|</s>|<eos>|<end_of_turn>|<pad>|\s)+\Z")
PIECES = (
    "<|im_end|>", "<|" + "x" * 40 + "|>", "<|" + "x" * 41 + "|>", "</s>", "<eos>", "<end_of_turn>", "<pad>", " ", "\n",
    "\u3000", "x", "<", "|>", "<|", "<||>", "<|a b|>", "</answer>", " " * 70, "s>",
)  # fmt: skip
PARTS = ("<|image_pad|>", "<|vision_start|>", "<image>", "a question", "b", " ", "<s>")


def with_repeats(prompt):
    """The prompt as a pattern, its placeholders repeated and up to three tokens before it: what is to be equalled."""
    parts = []
    for i, part in enumerate(re.split(r"(<\|[^<>|\s]{1,40}\|>|<image>)", prompt)):
        pattern = f"(?:{re.escape(part)})+" if i % 2 else re.escape(part)
        if pattern and parts[-1:] != [pattern]:
            parts.append(pattern)
    return re.compile(r"(?:<s>|<bos>|<\|[^<>|\s]{1,40}\|>|\s){0,3}?" + "".join(parts))


def drawn(rng, pieces, most):
    return "".join(rng.choice(pieces) for _ in range(rng.randrange(most)))


@pytest.mark.parametrize("seed", range(cases(20)))
def test_the_tokens_that_end_a_turn_are_cut_off(seed):
    rng = random.Random(seed)
    for _ in range(100):
        text = drawn(rng, PIECES, 12)
        assert without_end(text) == ENDS.sub("", text)
    assert without_end(5) == 5


@pytest.mark.parametrize("seed", range(cases(20)))
def test_a_prompt_with_its_placeholders_repeated_is_found(seed):
    rng, found = random.Random(seed), 0
    for _ in range(100):
        prompt = drawn(rng, PARTS, 8)
        shown = re.sub(r"<\|image_pad\|>|<image>", lambda token: token[0] * rng.randrange(1, 4), prompt)
        query = drawn(rng, ("<s>", "<|x|>", " ", "\n"), 5) + shown + "the answer"
        match = with_repeats(prompt).match(query)
        if match is None or query.startswith(prompt) or prompt[-25:] in query:
            continue
        found += 1
        assert response_of(query, prompt) == query[match.end() :]
    assert found > 3


@pytest.mark.parametrize(
    ("query", "prompt", "response"),
    [
        ("p" + "<|im_end|>" * 100_000 + "x", "p", "<|im_end|>" * 100_000 + "x"),
        ("p" + "x" + "<|im_end|>\n" * 100_000, "p", "x"),
        ("p" + "\n" * 1_000_000 + "x", "p", "\n" * 1_000_000 + "x"),
        ("px" + "\n" * 1_000_000, "p", "x"),
        ("p" + "<|" * 500_000 + " ", "p", "<|" * 500_000),
        ("<s>" + "<|image_pad|>" * 100_000 + "words, x", "<|image_pad|>words, ", "x"),
        ("<s>" + "<image>w" * 100_000 + "x", "<image>w" * 100_000, "x"),
    ],
)
def test_long_ones_take_no_longer_than_their_length(query, prompt, response):
    """The first took 14 s with a tenth of these tokens, and held up the whole server."""
    assert response_of(query, prompt) == response
