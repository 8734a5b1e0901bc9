"""Captions to token ids, without truncation, in time linear in the caption's length."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

Ids = tuple[int, ...]

# Normalisation (NFC, lower case) merges at most four characters into one.
_MERGED = 4
# HTML entities that open_clip unescapes twice are up to some 35 characters long.
_ENTITY = 35
_SPACES = re.compile(r"[ \t\n\v\f\r]+")
_NOT_CLIPS_SPACE = "\x1c\x1d\x1e\x1f"  # str.split() takes these for white space, CLIP's tokenizer does not


class Tokens:
    """A tokenizer with its context length.

    Args:
        encode: texts to full id lists, with start and end tokens and no truncation.
        context: the most tokens that the model takes, start and end tokens included.
        pad: the id that fills shorter rows.
        longest: characters of the longest vocabulary entry; a caption beyond what `context` such entries could spell is
            too long without being tokenised.
        slack: characters of raw text that may become one character before tokenisation.
    """

    def __init__(
        self, encode: Callable[[list[str]], list[list[int]]], context: int, pad: int, longest: int, slack: int = _MERGED
    ) -> None:
        self._encode = encode
        self.context = context
        self.pad = pad
        self._limit = context * longest * slack
        empty, letter = encode(["", "a"])
        shared = 0
        while shared < min(len(empty), len(letter)) and empty[shared] == letter[shared]:
            shared += 1
        self.prefix, self.suffix = tuple(empty[:shared]), tuple(empty[shared:])
        if len(empty) >= context:
            raise ValueError(f"the context of {context} tokens holds nothing but the special tokens {empty}")

    def encode(self, texts: Sequence[str]) -> list[Ids | str]:
        """Per text its ids, or the reason why there are none: "bad-text" (no valid Unicode) or "too-long" (by far)."""
        found: list[Ids | str] = ["bad-text"] * len(texts)
        kept, cleaned = [], []
        for i, text in enumerate(texts):
            if not _is_unicode(text):
                continue
            if len(text) > self._limit:
                if _visible(text) > self._limit:
                    found[i] = "too-long"
                    continue
                text = _SPACES.sub(" ", text)
            kept.append(i)
            cleaned.append(text)
        for i, ids in zip(kept, self._encode(cleaned) if cleaned else [], strict=True):
            found[i] = tuple(ids)
        return found

    def fits(self, ids: Ids) -> bool:
        """Whether the model takes all of `ids`."""
        return len(ids) <= self.context

    def truncate(self, ids: Ids) -> Ids:
        """The first tokens, with the end token last."""
        return ids if self.fits(ids) else self.windows(ids)[0]

    def windows(self, ids: Ids) -> list[Ids]:
        """Consecutive windows that fit the context, each with its own start and end tokens."""
        inner = ids[len(self.prefix) : len(ids) - len(self.suffix)]
        step = self.context - len(self.prefix) - len(self.suffix)
        parts = [inner[i : i + step] for i in range(0, len(inner), step)] or [()]
        return [(*self.prefix, *part, *self.suffix) for part in parts]


def from_transformers(tokenizer: Any, context: int, pad: int | None) -> Tokens:
    """Wraps a tokenizer of transformers."""

    def encode(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
        return ids

    longest = max((len(entry) for entry in tokenizer.get_vocab()), default=1)
    if pad is None:
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    return Tokens(encode, context, pad, longest)


def from_open_clip(tokenizer: Any, context: int) -> Tokens:
    """Wraps open_clip's tokenizers: its own byte-pair encoder, or one of transformers inside `HFTokenizer`.

    Raises:
        ValueError: a tokenizer that drops tokens by a reduction mask, or of an unknown kind.
    """
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is not None:
        clean = getattr(tokenizer, "clean_fn", str)

        def encode_inner(texts: list[str]) -> list[list[int]]:
            ids: list[list[int]] = inner([clean(text) for text in texts], truncation=False, verbose=False)["input_ids"]
            return ids

        longest = max((len(entry) for entry in inner.get_vocab()), default=1)
        return Tokens(encode_inner, context, inner.pad_token_id or 0, longest, _MERGED * _ENTITY)
    if not hasattr(tokenizer, "bpe_ranks") or getattr(tokenizer, "reduction_fn", None) is not None:
        raise ValueError(f"tokenizer {type(tokenizer).__name__} is not one of open_clip's, or it uses a reduction mask")
    words = _word_encoder(tokenizer)

    def encode(texts: list[str]) -> list[list[int]]:
        return [[tokenizer.sot_token_id, *words(text), tokenizer.eot_token_id] for text in texts]

    longest = max(len(entry) for entry in tokenizer.encoder)
    return Tokens(encode, context, 0, longest, _MERGED * _ENTITY)


def _word_encoder(tokenizer: Any) -> Callable[[str], list[int]]:
    """`SimpleTokenizer.encode` with its merges run by the tokenizers library.

    open_clip's own loop is quadratic in the length of a word, so one long hostile word would take seconds.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    fast = Tokenizer(BPE(vocab=tokenizer.encoder, merges=merges, end_of_word_suffix="</w>"))

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        for word in tokenizer.pat.findall(tokenizer.clean_fn(text)):
            if tokenizer.cache.get(word) == word:  # a special token, spelt out in the text
                ids.append(tokenizer.encoder[word])
            else:
                spelt = "".join(tokenizer.byte_encoder[byte] for byte in word.encode("utf-8"))
                ids.extend(fast.encode(spelt).ids)
        return ids

    return encode


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _visible(text: str) -> int:
    return sum(map(len, text.split())) + sum(text.count(space) for space in _NOT_CLIPS_SPACE)
