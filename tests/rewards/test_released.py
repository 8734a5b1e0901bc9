"""`dpad-released` against the plain restatement of its table, component by component."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dpad_fast as df
from dpad_fast.reference import released
from dpad_fast.testing import rewards as shared

DISCRETE = ("think_format", "answer_format", "iou", "box_l1", "point_l1")
SOLUTIONS = (
    shared.SOLUTION,
    shared.SOLUTION,
    shared.SOLUTION,
    "<box>(20,12),(64,52)</box>",
    "<points>(30,24),(50,40)</points>",
    "<box>(64,52),(20,12)</box><points>(30,24),(50,40)</points>",
    "<box>(20,12),(20,52)</box><points>(30,24),(50,40)</points>",
    "<box>(0,0),(96,72)</box><points>(0,0),(95,71)</points>",
    "<box>(50,40),(150,140)</box><points>(60,50),(90,70)</points>",
    "<box>(200,200),(260,240)</box><points>(210,210),(220,220)</points>",
    "<box>(20.5,12),(64,52)</box><points>(30,24),(50,40)</points>",
    "<box>(-2,12),(64,52)</box>",
    "<box> (20,12),(64,52) </box>",
    "<box>(٢٠,12),(64,52)</box><points>(30,24),(50,40)</points>",
    "<box>(" + "9" * 5000 + ",1),(2,3)</box>",
    "<box>(0,0),(999999999,999999999)</box><points>(1,1),(2,2)</points>",
    "nothing",
    "",
)


def compare(texts, solutions, tiny, encoder, pictures):
    model, processor = tiny
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad-released"), encoder)
    batch = scorer.score(texts, solutions, pictures)
    positive = 0
    for i, (text, solution, image) in enumerate(zip(texts, solutions, pictures, strict=True)):
        expected = released.score(text, solution, image, model, processor.tokenizer, processor.image_processor)
        for name in DISCRETE:
            assert float(batch.terms[name][i]) == expected[name], (name, text, solution)
        got = float(batch.terms["discriminative"][i])
        assert got == pytest.approx(expected["discriminative"], abs=1e-5), (text, solution)
        assert float(batch.total[i]) == pytest.approx(sum(expected.values()), abs=1e-5)
        positive += got > 1e-4
    return batch, positive


def test_thousands_of_generated_completions(tiny, encoder):
    rng = random.Random(7)
    texts = [shared.hostile(rng) for _ in range(2000)]
    solutions = [rng.choice(SOLUTIONS) for _ in texts]
    two = [shared.picture(0), shared.picture(1)]
    pictures = [rng.choice(two) for _ in texts]
    batch, positive = compare(texts, solutions, tiny, encoder, pictures)
    # Each outcome must really occur, or the comparison says nothing.
    assert positive > 100
    for name in DISCRETE:
        assert 50 < int(batch.terms[name].sum()) < 1950, name


NUMBERS = st.one_of(
    st.integers(-100, 200), st.floats(-100, 200), st.booleans(), st.none(), st.text(max_size=3), st.floats()
)
LISTS = st.one_of(st.lists(NUMBERS, max_size=6), st.lists(st.integers(0, 99), min_size=4, max_size=4), NUMBERS)
PIECES = st.sampled_from(
    ["<think>", "</think>", "<answer>", "</answer>", "<caption>", "</caption>", "{", "}", " ", "\n", "x", '"bbox"']
)


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(PIECES, max_size=24), solution=st.sampled_from(SOLUTIONS))
def test_arrangements_of_tags(tiny, encoder, pieces, solution):
    compare(["".join(pieces)], [solution], tiny, encoder, [shared.picture()])


@settings(max_examples=150, deadline=None)
@given(box=LISTS, first=LISTS, second=LISTS, solution=st.sampled_from(SOLUTIONS))
def test_arrangements_of_values(tiny, encoder, box, first, second, solution):
    compare([shared.completion(box, first, second)], [solution], tiny, encoder, [shared.picture()])


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_as_a_caption(tiny, encoder, text):
    compare([shared.completion(caption=text)], [shared.SOLUTION], tiny, encoder, [shared.picture()])


@pytest.mark.parametrize(
    ("text", "term", "expected"),
    [
        (" " + shared.completion(), "think_format", 0),  # no strip
        (shared.completion(think="so {1}"), "answer_format", 0),  # a brace in the chain is what is read
        (shared.completion(["a", None, [], False]), "answer_format", 1),  # types are not looked at
        (shared.completion([True, 12, 64, 52], [30, 24], [50, 40]), "answer_format", 1),
        (shared.completion(first=["30", 24.9]), "point_l1", 1),  # through int()
        (shared.completion([10, 12, 64, 52], first=[5, 24]), "point_l1", 0),  # outside of the predicted box
        (shared.completion([64, 52, 20, 12]), "iou", 0),  # swapped corners stay swapped
        (shared.completion([20, 12, 64, 91]), "box_l1", 1),  # mean 9.75
        (shared.completion([20, 12, 64, 92]), "box_l1", 0),  # mean 10
    ],
)
def test_single_rules(encoder, text, term, expected):
    scorer = df.RewardScorer(df.RewardConfig.preset("dpad-released"), encoder)
    batch = scorer.score([text], [shared.SOLUTION], [shared.picture()])
    assert float(batch.terms[term][0]) == expected
