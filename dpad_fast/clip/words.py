"""CLIP's captions word by word: what its tokenizer does to plain English depends on one word at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from dpad_fast._native import extension

Encode = Callable[[list[str]], list[list[int]]]

_CLIPS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_NORMALIZERS = [
    {"type": "NFC"},
    {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    {"type": "Lowercase"},
]
MOST_WORDS = 1 << 16  # words; a training set of captions has some ten thousand
LONGEST_WORD = 64  # characters; longer ones, which a failing policy repeats at will, are not remembered


class Words:
    """The ids of captions, where each distinct word is tokenised once. Safe to use from several threads.

    A caption is split where it is printable ASCII without "<", with which every special token begins: nothing there is
    normalised but the case. Other captions are tokenised as a whole.

    Args:
        encode: texts to full id lists, with start and end tokens; CLIP's own tokenizer.
        inner: words to their ids, without these tokens.
        added: how many tokens were added to the tokenizer so far. One that is added later may span words, so that from
            then on every caption is tokenised as a whole.
    """

    def __init__(self, encode: Encode, inner: Encode, added: Callable[[], int] = lambda: 0) -> None:
        self._encode, self._inner, self._added = encode, inner, added
        start, end = encode([""])[0]
        self._table = extension.C.WordTable(start, end, LONGEST_WORD)
        self._added_before = added()

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """As `encode`."""
        if self._added() != self._added_before:
            return self._encode(texts) if texts else []
        rows, new = self._table.encode(texts)
        if new:
            self._learn(texts, new)
            rows, _ = self._table.encode(texts)
        # Those that are not split, and any whose words another thread has made room for meanwhile.
        if None in rows:
            rest = [i for i, ids in enumerate(rows) if ids is None]
            for i, ids in zip(rest, self._encode([texts[i] for i in rest]), strict=True):
                rows[i] = ids
        found: list[list[int]] = rows
        return found

    def __deepcopy__(self, _memo: object) -> Words:
        """Itself, as a copy of a function is."""
        return self

    def _learn(self, texts: list[str], new: list[str]) -> None:
        """Remembers the new words of these captions; where there are too many, theirs alone."""
        if len(self._table) + len(new) > MOST_WORDS:
            self._table.clear()
            _, new = self._table.encode(texts)
        if new:  # else another thread has learnt them since, and a tokenizer may refuse to be asked for nothing
            self._table.learn(new, self._inner(new))


def by_words(tokenizer: Any, encode: Encode) -> Encode:
    """`encode`, by words where the tokenizer is CLIP's own and nothing was changed or added that spans words.

    Tokens that are added later are noticed, see `Words`. Its other parts must stay what they are.

    Args:
        tokenizer: one of transformers.
        encode: texts to its full id lists.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not _is_clips(backend):
        return encode

    def inner(words: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(
            words, truncation=False, padding=False, verbose=False, add_special_tokens=False
        )["input_ids"]
        return ids

    (ends,), (letter,) = encode([""]), inner(["a"])
    # What puts the special tokens there may put them elsewhere.
    if len(ends) != 2 or encode(["a"]) != [[ends[0], *letter, ends[1]]]:
        return encode
    return Words(encode, inner, lambda: len(backend.get_added_tokens_decoder()))


def _is_clips(backend: Any) -> bool:
    """Whether a tokenizer of the tokenizers library splits captions as CLIP's does."""
    if type(backend.model).__name__ != "BPE" or backend.model.dropout is not None:
        return False
    try:
        normalizer, splitter = _described(backend.normalizer), _described(backend.pre_tokenizer)
    except Exception:  # what tokenizers raises where a part is written in Python, as RoFormer's and a user's own may be
        return False
    splits = splitter.get("pretokenizers", ())
    if [one["type"] for one in splits] != ["Split", "ByteLevel"]:
        return False
    split, levels = splits
    # Some releases name the special tokens first.
    pattern = re.sub(r"^(<\\\|\w+\\\|>\|)*", "", split["pattern"].get("Regex", ""))
    return (
        pattern == _CLIPS
        and (split["behavior"], split["invert"]) == ("Removed", True)
        and not levels["add_prefix_space"]
        and normalizer.get("normalizers") == _NORMALIZERS
        and all(token.content.startswith("<") for token in backend.get_added_tokens_decoder().values())
    )


def _described(part: Any) -> dict[str, Any]:
    """A part's own JSON: that of the whole tokenizer has the vocabulary, and takes tens of milliseconds."""
    found: dict[str, Any] = {} if part is None else json.loads(part.__getstate__())
    return found
