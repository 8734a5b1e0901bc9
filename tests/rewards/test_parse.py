"""Parsing of completions: tags, answers and captions, the reason of each failure, and linear time."""

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dpad_fast as df
from dpad_fast.rewards import parse
from dpad_fast.rewards.format import non_repeat
from dpad_fast.rewards.parse import find_between, find_braces, load_json, match_tags, parse_completion
from dpad_fast.testing import rewards as shared

DPAD = df.RewardConfig.preset("dpad")
PIECES = ["<think>", "</think>", "<answer>", "</answer>", "<caption>", "</caption>", "{", "}", " ", "\n", "\u2003", "x"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.sampled_from([("think", "answer"), ("think", "answer", "caption")]))
def test_tags_match_as_fullmatch_does(text, tags):
    pattern = r"\s*".join(f"<{tag}>(.*?)</{tag}>" for tag in tags)
    match = re.fullmatch(pattern, text, re.DOTALL)
    spans = match_tags(text, tags)
    assert (spans is None) == (match is None)
    if match is not None:
        assert spans == [match.span(i + 1) for i in range(len(tags))]


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_finders_match_as_search_does(text):
    braces = re.search(r"{[^}]+}", text)
    assert find_braces(text) == (braces.group() if braces else None)
    caption = re.search(r"<caption>(.*?)</caption>", text, re.DOTALL)
    assert find_between(text, "caption") == (caption.group(1) if caption else None)


VALUES = [0, 1, -1, 20.5, 64, 999_999, 10**6, -(10**6), 1e300, 10**400, -(10**400), True, None, "12", [3], {}]
VALUES += [float("nan"), float("inf"), -0.0, 999_999.5, 2**53 + 1]


def answers(rng):
    """Answers of the strict form, most of them with something unusual."""
    for _ in range(4000):
        numbers = [rng.choice(VALUES) if rng.random() < 0.15 else rng.randrange(100) for _ in range(8)]
        fields = {"bbox": numbers[:4], "points_1": numbers[4:6], "points_2": numbers[6:]}
        if rng.random() < 0.1:
            fields[rng.choice(list(fields))] = rng.choice(
                [[], [1], [1, 2, 3, 4], "ab", "abcd", {"a": 1, "b": 2}, 5, None]
            )
        if rng.random() < 0.05:
            del fields[rng.choice(list(fields))]
        yield json.dumps(fields)


def test_an_answer_read_at_once_is_what_its_fields_are_one_by_one(monkeypatch):
    rng = random.Random(0)
    texts = [f"<think></think><answer>{one}</answer><caption>a cat</caption>" for one in answers(rng)]
    texts += [shared.hostile(rng) for _ in range(1000)]
    at_once = [repr(parse_completion(text, DPAD)) for text in texts]
    sound = parse._sound
    read = []
    monkeypatch.setattr(parse, "_sound", lambda data: read.append(sound(data)))
    assert [repr(parse_completion(text, DPAD)) for text in texts] == at_once
    found = [one for one in read if one is not None]
    assert 500 < len(found) < len(read) - 500  # both ways are taken


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[1, 2] ",
        "{} {}",
        "1 2",
        '{"a": 1, "a": [2]}',
        "[NaN, -Infinity, 1e999]",
        '"\\ud800"',
        "\ufeff{}",
        "[" * 100_000,
        "9" * 5000,
        "[1,]",
        '{"a": 1}x',
    ],
)
def test_json_is_read_as_loads_reads_stripped_text(text):
    try:
        whole = json.loads(text.strip())
    except (ValueError, RecursionError):
        whole = None
    assert repr(load_json(text.strip())) == repr(whole)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", ".", " ", "..", "a.", "\n"]), max_size=25).map("".join))
def test_non_repeat(text):
    sentences = [part.strip() for part in text.split(".") if part.strip()]
    assert non_repeat(text) == (0.0 if len(sentences) - len(set(sentences)) >= 2 else 1.0)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "bad-json"),
        ("[1, 2]", "bad-json"),
        ("{bbox: 1}", "bad-json"),
        ("{" * 5000, "bad-json"),
        ('{"bbox": ' + "[" * 100_000, "bad-json"),
        ('{"bbox": ' + "[" * 100_000 + "]" * 100_000 + "}", "bad-json"),
        ('{"bbox": [' + "9" * 5000 + ",1,2,3]}", "bad-json"),
        ('{"bbox": [1,2,3,4]}', "missing-field"),
        ('{"bbox": [1,2,3], "points_1": [1,2], "points_2": [1,2]}', "bad-field"),
        ('{"bbox": [1,2,3,true], "points_1": [1,2], "points_2": [1,2]}', "bad-field"),
        ('{"bbox": [1,2,3,"4"], "points_1": [1,2], "points_2": [1,2]}', "bad-field"),
        ('{"bbox": [1,2,3,[4]], "points_1": [1,2], "points_2": [1,2]}', "bad-field"),
        ('{"bbox": [1,2,3,NaN], "points_1": [1,2], "points_2": [1,2]}', "non-finite"),
        ('{"bbox": [1,2,3,1e999], "points_1": [1,2], "points_2": [1,2]}', "non-finite"),
        ('{"bbox": [1,2,3,-Infinity], "points_1": [1,2], "points_2": [1,2]}', "non-finite"),
        ('{"bbox": [1,2,3,' + "9" * 400 + '], "points_1": [1,2], "points_2": [1,2]}', "non-finite"),
        ('{"bbox": [3,2,1,4], "points_1": [1,2], "points_2": [1,2]}', "bad-box"),
        ('{"bbox": [1,2,1,4], "points_1": [1,2], "points_2": [1,2]}', "bad-box"),
        ('{"bbox": [1,2,3,4], "points_1": [1,2], "points_2": 7}', "bad-field"),
        ('{"bbox": [1,2,3,4], "points_1": [1,2], "points_2": [1,1e999]}', "non-finite"),
    ],
)
def test_bad_answers_have_a_reason(answer, reason):
    text = f"<think>t</think><answer>{answer}</answer><caption>c</caption>"
    found = parse_completion(text, DPAD)
    assert found.tags_ok
    assert not found.fields_ok
    assert reason in found.reasons


def test_good_answer_has_none():
    found = parse_completion("\n" + shared.completion(caption=" a cat ") + " ", DPAD)
    assert found.reasons == ()
    assert found.tags_ok
    assert found.fields_ok
    assert found.box == (20, 12, 64, 52)
    assert found.points == ((30, 24), (50, 40))
    assert found.caption == "a cat"


def test_answer_is_read_from_inside_the_answer():
    text = shared.completion(think='maybe {"bbox": [0, 0, 1, 1]}').replace("<answer>", "<answer>```json\n")
    assert parse_completion(text, DPAD).box == (20, 12, 64, 52)


def test_caption_is_the_one_of_the_format():
    text = shared.completion(think="<caption>not this</caption>", caption="this")
    assert parse_completion(text, DPAD).caption == "this"
    assert parse_completion(text, df.RewardConfig.preset("dpad-released")).caption == "not this"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no-tags"),
        (shared.completion() + "x", "no-tags"),
        ("<think></think><answer></answer>", "no-tags"),
        (shared.completion(caption=" \n"), "empty-caption"),
    ],
)
def test_first_reason(text, reason):
    assert parse_completion(text, DPAD).reasons[0] == reason


MEGABYTE = 1 << 20
LARGE = {
    "think": "<think>" * (MEGABYTE // 7),
    "unthink": "<think>" + "</think>" * (MEGABYTE // 8) + "</caption>",
    "spaces": "<think></think>" + " " * MEGABYTE + "</caption>",
    "joints": "<think>" + "</think> <answer>" * (MEGABYTE // 17) + "</caption>",
    "captions": "<caption>" * (MEGABYTE // 9),
    "braces": "{" * MEGABYTE,
    "pairs": "{}" * (MEGABYTE // 2),
    "depth": '<think></think><answer>{"a":' + "[" * MEGABYTE + "}</answer><caption></caption>",
    "answers": "<answer>" * (MEGABYTE // 8),
    "dots": "." * MEGABYTE,
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("preset", ["dpad", "dpad-released", "vision-reasoner"])
@pytest.mark.timeout(20)  # a quadratic scan of a megabyte takes hours; bench/hostile.py prints the milliseconds
def test_a_megabyte_is_read_in_linear_time(name, preset):
    found = parse_completion(LARGE[name], df.RewardConfig.preset(preset))
    non_repeat(LARGE[name])
    assert not found.fields_ok
