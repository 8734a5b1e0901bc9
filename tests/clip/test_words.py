"""Captions by words: CLIP's own ids, whatever the caption."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from dpad_fast.clip import words as module
from dpad_fast.clip.tokens import from_transformers
from dpad_fast.clip.words import Words, by_words
from dpad_fast.testing import rewards as shared


@pytest.fixture(scope="module")
def tokenizer():
    return shared.tiny_clip()[1].tokenizer


def whole(tokenizer):
    return lambda texts: tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]


ODD = [
    "", " ", "a red cat", "A Red CAT", "it's the dogs' 39 lives, isn't it?!", "'s't're've'm'll'd", "''s 'T 'LL 'x",
    "a  b   c", "a\tb\nc",
    "caf\u00e9 au lait", "<|endoftext|> a", "a < b > c", "x" * 300, "12345 6", "~`{}|\\\"#$%&()*",
    "\u0130stanbul", "K\u212aelvin", "a\x1cb", "a\u00a0b", "\u4f60\u597d a cat", "[SEP] </s>", "a_b-c.d",
]  # fmt: skip


def test_odd_captions_have_the_tokenizers_ids(tokenizer):
    encode = whole(tokenizer)
    made = by_words(tokenizer, encode)
    assert isinstance(made, Words)
    for _ in range(2):  # the second time from what is known
        assert made(ODD) == encode(ODD)
    assert made([]) == []


PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))


@given(texts=st.lists(PLAIN | st.text(st.characters(max_codepoint=0x250)) | st.text("aBc 'sTreVlLmD39!,<"), max_size=6))
def test_any_caption_has_the_tokenizers_ids(tokenizer, texts):
    encode = whole(tokenizer)
    assert by_words(tokenizer, encode)(texts) == (encode(texts) if texts else [])


def test_each_word_is_tokenised_once(tokenizer):
    asked = []

    def inner(words):
        asked.extend(words)
        return [[len(word)] for word in words]

    made = Words(lambda texts: [[1, *[0] * len(text), 2] for text in texts], inner)
    assert made(["a bb a", "bb Ccc"]) == [[1, 1, 2, 1, 2], [1, 2, 3, 2]]
    assert made(["ccc a"]) == [[1, 3, 1, 2]]
    assert asked == ["a", "bb", "ccc"]


def test_what_is_known_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_WORDS", 3)
    made = Words(lambda texts: [[1, 2] for _ in texts], lambda words: [[len(word)] for word in words])
    for texts in (["a bb"], ["ccc dddd a"], ["a bb ccc dddd eeeee"]):
        assert made(texts) == [[1, *map(len, text.split()), 2] for text in texts]
    assert len(made._table) <= 5


def test_threads_that_make_room_for_each_others_words(tokenizer, monkeypatch):
    monkeypatch.setattr(module, "MOST_WORDS", 6)
    encode, made = whole(tokenizer), by_words(tokenizer, whole(tokenizer))
    works = [[" ".join(shared.WORDS[(i * j) % len(shared.WORDS)] for j in range(1, 6))] * 2 for i in range(1, 60)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(made, works))
    assert found == [encode(texts) for texts in works]


def test_another_thread_that_learns_the_same_words_once_there_is_room(tokenizer, monkeypatch):
    """The tokenizer refuses to be asked for the ids of no words."""
    monkeypatch.setattr(module, "MOST_WORDS", 2)
    made = by_words(tokenizer, whole(tokenizer))
    made(["a red"])
    table = made._table

    class Raced:
        """The table, into which another thread puts these words as soon as it is empty."""

        def clear(self):
            table.clear()
            table.learn(["cat", "dog"], made._inner(["cat", "dog"]))

        def __getattr__(self, name):
            return getattr(table, name)

        def __len__(self):
            return len(table)

    made._table = Raced()
    assert made(["cat dog"]) == whole(tokenizer)(["cat dog"])
    assert len(table) == 2


def test_a_copy_of_an_encoders_tokens_has_the_same_ids(tokenizer):
    tokens = from_transformers(SimpleNamespace(tokenizer=tokenizer), 77, end=True, full=False)
    for copied in (copy.copy(tokens), copy.deepcopy(tokens)):
        assert copied.encode(["a red cat"]) == tokens.encode(["a red cat"])


def test_long_words_are_not_remembered(tokenizer):
    encode = whole(tokenizer)
    made = by_words(tokenizer, encode)
    texts = ["a red " + "x" * 9000, "!?" * 4000, "a red cat"]
    assert made(texts) == encode(texts)
    assert len(made._table) == 3
    assert made._table.encode(["A cat, red; a cat"]) == ([None], [",", ";"])


def test_special_tokens_that_stand_elsewhere_are_found_out(tokenizer):
    other = lambda texts: [[1, 2, *row[1:-1]] for row in whole(tokenizer)(texts)]  # noqa: E731
    assert by_words(tokenizer, other) is other


CHANGES = {
    "no normalizer": lambda made: setattr(made.backend_tokenizer, "normalizer", None),
    "another normalizer": lambda made: setattr(
        made.backend_tokenizer, "normalizer", normalizers.Sequence([normalizers.NFC()])
    ),
    "no splitter": lambda made: setattr(made.backend_tokenizer, "pre_tokenizer", None),
    "another splitter": lambda made: setattr(made.backend_tokenizer, "pre_tokenizer", pre_tokenizers.Whitespace()),
    "dropout": lambda made: setattr(made.backend_tokenizer.model, "dropout", 0.1),
    "another model": lambda made: setattr(made.backend_tokenizer, "model", models.WordLevel({"a": 0}, "a")),
    "a token of two words": lambda made: made.add_tokens(["left of"]),
    "a token that is a part of words": lambda made: made.add_tokens(["e"]),  # which the vocabulary has already
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_tokenizer_is_asked_for_whole_captions(change):
    made = shared.tiny_tokenizer()
    assert isinstance(by_words(made, whole(made)), Words)
    change(made)
    encode = whole(made)
    assert by_words(made, encode) is encode


def test_a_tokenizer_that_is_none_of_the_tokenizers_library(tokenizer):
    encode = whole(tokenizer)
    assert by_words(SimpleNamespace(), encode) is encode


@pytest.mark.parametrize("token", ["left of", "e", AddedToken("cat", normalized=False), "<here>"])
def test_tokens_that_are_added_later_are_noticed(token):
    made = shared.tiny_tokenizer()
    encode = whole(made)
    tokens = from_transformers(SimpleNamespace(tokenizer=made), 77, end=True, full=False)
    texts = ["a red cat left of the chair", "the <here> cat", "", "a chair"]
    before = tokens.encode(texts)
    assert before == [tuple(row) for row in encode(texts)]
    made.add_tokens([token])
    assert tokens.encode(texts) == [tuple(row) for row in encode(texts)]
    assert tokens.encode(texts) != before
    assert tokens.encode([]) == []


def test_a_part_in_python_is_left_alone():
    from tokenizers.pre_tokenizers import PreTokenizer

    class Whole:
        def pre_tokenize(self, text):
            text.split(lambda _, piece: [piece])

    made = shared.tiny_tokenizer()
    made.backend_tokenizer.pre_tokenizer = PreTokenizer.custom(Whole())
    encode = whole(made)
    assert by_words(made, encode) is encode


def test_an_encoders_tokens_go_by_words(tokenizer):
    tokens = from_transformers(SimpleNamespace(tokenizer=tokenizer), 77, end=True, full=False)
    assert isinstance(tokens._encode, Words)
    assert tokens.encode(["a red cat", "caf\u00e9"]) == [
        tuple(row) for row in whole(tokenizer)(["a red cat", "caf\u00e9"])
    ]
