"""CLIP's captions word by word: what its tokenizer does to plain English depends on one word at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

Encode = Callable[[list[str]], list[list[int]]]

_CLIPS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_NORMALIZERS = [
    {"type": "NFC"},
    {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    {"type": "Lowercase"},
]
# Printable ASCII without "<", with which every special token begins: nothing there is normalised but the case.
_PLAIN = re.compile(r"[ -;=-~]*")
_WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^ a-z0-9]+")
MOST_WORDS = 1 << 16  # words; a training set of captions has some ten thousand
LONGEST_WORD = 64  # characters; longer ones, which a failing policy repeats at will, are not remembered


class Words:
    """The ids of captions, where each distinct word is tokenised once. Safe to use from several threads.

    Args:
        encode: texts to full id lists, with start and end tokens; CLIP's own tokenizer.
        inner: words to their ids, without these tokens.
    """

    def __init__(self, encode: Encode, inner: Encode) -> None:
        self._encode, self._inner = encode, inner
        start, end = encode([""])[0]
        self._start, self._end = start, end
        self._known: dict[str, list[int]] = {}

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """As `encode`."""
        split = [_split(text) for text in texts]
        known = self._learn(split)
        rest = [text for text, words in zip(texts, split, strict=True) if words is None]
        others = iter(self._encode(rest) if rest else ())
        return [next(others) if words is None else self._joined(words, known) for words in split]

    def _learn(self, split: Sequence[list[str] | None]) -> dict[str, list[int]]:
        """The ids of all words of these captions."""
        known = self._known
        new = list({word: None for words in split for word in words or () if word not in known})
        if new:
            if len(known) + len(new) > MOST_WORDS:
                known = self._known = {}
                new = list({word: None for words in split for word in words or ()})
            known.update(zip(new, self._inner(new), strict=True))
        return known

    def _joined(self, words: list[str], known: dict[str, list[int]]) -> list[int]:
        ids = [self._start]
        for word in words:
            ids += known[word]
        ids.append(self._end)
        return ids


def _split(text: str) -> list[str] | None:
    """The words of a caption; None where it is tokenised as a whole."""
    if not _PLAIN.fullmatch(text):
        return None
    words: list[str] = _WORD.findall(text.lower())
    return None if max(map(len, words), default=0) > LONGEST_WORD else words


def by_words(tokenizer: Any, encode: Encode) -> Encode:
    """`encode`, by words where the tokenizer is CLIP's own and nothing was changed or added that spans words.

    Args:
        tokenizer: one of transformers.
        encode: texts to its full id lists.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    try:
        made = None if backend is None else json.loads(backend.to_str())
    except Exception:  # what tokenizers raises where a part is written in Python, as RoFormer's and a user's own may be
        return encode
    if made is None or not _is_clips(made):
        return encode

    def inner(words: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(
            words, truncation=False, padding=False, verbose=False, add_special_tokens=False
        )["input_ids"]
        return ids

    (ends,), (letter,) = encode([""]), inner(["a"])
    # What puts the special tokens there may put them elsewhere.
    return Words(encode, inner) if len(ends) == 2 and encode(["a"]) == [[ends[0], *letter, ends[1]]] else encode


def _is_clips(made: dict[str, Any]) -> bool:
    splits = (made["pre_tokenizer"] or {}).get("pretokenizers", ())
    if [one["type"] for one in splits] != ["Split", "ByteLevel"]:
        return False
    split, levels = splits
    # Some releases name the special tokens first.
    pattern = re.sub(r"^(<\\\|\w+\\\|>\|)*", "", split["pattern"].get("Regex", ""))
    return (
        pattern == _CLIPS
        and (split["behavior"], split["invert"]) == ("Removed", True)
        and not levels["add_prefix_space"]
        and (made["normalizer"] or {}).get("normalizers") == _NORMALIZERS
        and (made["model"].get("type", "BPE"), made["model"].get("dropout")) == ("BPE", None)
        and all(one["content"].startswith("<") for one in made["added_tokens"])
    )
