"""Captions to token ids, without truncation, in time linear in the caption's length."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dpad_fast.clip.words import LONGEST_WORD, MOST_WORDS, by_words

Ids = tuple[int, ...]

# Normalisation (NFC, lower case) merges at most four characters into one.
_MERGED = 4
# HTML entities that open_clip unescapes twice are up to some 35 characters long.
_ENTITY = 35
_SPACES = re.compile(r"[ \t\n\v\f\r]+")
_NOT_CLIPS_SPACE = "\x1c\x1d\x1e\x1f"  # str.split() takes these for white space, CLIP's tokenizer does not


# Texts that wrappers treat specially: case, punctuation, spaces, HTML, accents, other scripts, special tokens, no text.
_PROBES = (
    "a photo of a cat",
    "",
    "The LEFT-most cat's_bowl, near   the table!!",
    " it's\n39 lives &amp; caf\u00e9 ",
    "\u4f60\u597d a cat",
    "a [SEP] cat </s> <eos> <|endoftext|> <pad>",
)


@dataclass(frozen=True)
class Layout:
    """Where ids stand in a row of the model's input.

    Attributes:
        pad: the id that fills shorter rows.
        left: whether it stands before the caption.
        last: ids that every row ends with, after the padding.
    """

    pad: int
    left: bool = False
    last: Ids = ()

    def rows(self, captions: Sequence[Ids], width: int) -> torch.Tensor:
        """Rows of one width, int64 [N, width], on the CPU."""
        found = torch.full((len(captions), width), self.pad, dtype=torch.long, device="cpu")
        room = width - len(self.last)
        if self.last:
            found[:, room:] = torch.tensor(self.last, dtype=torch.long, device="cpu")
        for i, ids in enumerate(captions):
            start = room - len(ids) if self.left else 0
            found[i, start : start + len(ids)] = torch.tensor(ids, dtype=torch.long, device="cpu")
        return found


class Tokens:
    """A tokenizer with its context length.

    Args:
        encode: texts to full id lists, with start and end tokens and no truncation.
        context: the most tokens that a caption may have, start and end tokens included.
        layout: where they stand in the model's input.
        longest: characters of the longest vocabulary entry; a caption beyond what `context` such entries could spell is
            too long without being tokenised.
        slack: characters of raw text that may become one character before tokenisation.
        keep_end: whether `truncate` drops the first tokens instead of the last.

    Attributes:
        width: of a full row: `context`, and what `layout` puts behind every caption.
        rows: of the model's table of tokens, where known. A tokenizer may know more: added tokens whose table was not
            resized, or a pair that does not belong together.
    """

    def __init__(
        self,
        encode: Callable[[list[str]], list[list[int]]],
        context: int,
        layout: Layout,
        longest: int,
        slack: int = _MERGED,
        keep_end: bool = False,
    ) -> None:
        self._encode = encode
        self.context = context
        self.layout = layout
        self.width = context + len(layout.last)
        self.rows: int | None = None
        self._keep_end = keep_end
        self._limit = context * longest * slack
        empty, letter = encode(["", "a"])
        shared = 0
        while shared < min(len(empty), len(letter)) and empty[shared] == letter[shared]:
            shared += 1
        self.prefix, self.suffix = tuple(empty[:shared]), tuple(empty[shared:])
        if len(empty) >= context:
            raise ValueError(f"the context of {context} tokens holds nothing but the special tokens {empty}")

    def encode(self, texts: Sequence[str]) -> list[Ids | str]:
        """Per text its ids, or the reason why there are none: "too-long" (by far), or "bad-text".

        A bad text is no valid Unicode, or holds a token that the model has no row for.
        """
        found: list[Ids | str] = ["bad-text"] * len(texts)
        kept, cleaned = [], []
        for i, text in enumerate(texts):
            if not (text.isascii() or _is_unicode(text)):
                continue
            if len(text) > self._limit:
                if _visible(text) > self._limit:
                    found[i] = "too-long"
                    continue
                text = _SPACES.sub(" ", text)
            kept.append(i)
            cleaned.append(text)
        for i, ids in zip(kept, self._encode(cleaned) if cleaned else [], strict=True):
            if self.rows is None or not ids or max(ids) < self.rows:
                found[i] = tuple(ids)
        return found

    def fits(self, ids: Ids) -> bool:
        """Whether `ids` are within the model's context."""
        return len(ids) <= self.context

    def truncate(self, ids: Ids) -> Ids:
        """The ids cut to the context, with start and end tokens: the first tokens stay, under `keep_end` the last."""
        if self.fits(ids):
            return ids
        if not self._keep_end:
            return self.windows(ids)[0]
        inner = ids[len(self.prefix) : len(ids) - len(self.suffix)]
        step = self.context - len(self.prefix) - len(self.suffix)
        return (*self.prefix, *inner[-step:], *self.suffix)

    def windows(self, ids: Ids) -> list[Ids]:
        """Consecutive windows that fit the context, each with its own start and end tokens."""
        inner = ids[len(self.prefix) : len(ids) - len(self.suffix)]
        step = self.context - len(self.prefix) - len(self.suffix)
        parts = [inner[i : i + step] for i in range(0, len(inner), step)] or [()]
        return [(*self.prefix, *part, *self.suffix) for part in parts]

    def check(self, name: str, theirs: Callable[[list[str]], Any], *, padded: bool) -> None:
        """Compares the ids of a few captions, one of them beyond the context, with those of the original.

        Args:
            name: of the original, for messages.
            theirs: texts to N rows of ids, truncated and, if `padded`, of the full width.
            padded: whether padding is compared as well; where the model does not look at it, it need not be.

        Raises:
            ValueError: the ids differ, or the original fails; names it and the caption.
        """
        for text in (*_PROBES, "a cat near " * self.context):
            try:
                made = theirs([text])
            except Exception as error:  # whatever a foreign tokenizer raises
                raise ValueError(f"{name} fails on {text[:40]!r}: {type(error).__name__}: {error}") from error
            expected = [int(number) for number in made[0]]
            (ids,) = self.encode([text])
            kept = () if isinstance(ids, str) else self.truncate(ids)
            own = self.layout.rows([kept], self.width)[0].tolist() if padded else list(kept)
            if own != expected:
                raise ValueError(
                    f"{name} does more to captions than is known here: {text[:40]!r} becomes {_short(expected)}, "
                    f"where its inner tokenizer gives {_short(own)}"
                )


def from_transformers(processor: Any, context: int, *, end: bool, full: bool) -> Tokens:
    """Wraps the tokenizer of a processor of transformers, and checks that the processor adds nothing to it.

    Args:
        processor: has `tokenizer`.
        context: positions of the model. The tokenizer's own `model_max_length` may be less.
        end: rows are filled with the end token, whose first occurrence is what the model reads.
        full: rows are always of the full width, and all of it is attended to.

    Raises:
        ValueError: the processor's ids are not its tokenizer's.
    """
    tokenizer = processor.tokenizer
    context = min(context, int(getattr(tokenizer, "model_max_length", None) or context))

    def encode(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
        return ids

    pad = tokenizer.eos_token_id if end else tokenizer.pad_token_id
    if pad is None:
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    layout = Layout(pad, left=full and _is_left(tokenizer, "padding_side"))
    keep_end = _is_left(tokenizer, "truncation_side")
    tokens = Tokens(by_words(tokenizer, encode), context, layout, _longest(tokenizer), keep_end=keep_end)

    def theirs(texts: list[str]) -> Any:
        # A bare holder of a tokenizer and an image processor does nothing of its own.
        call = (lambda text, **rest: processor(text=text, **rest)) if callable(processor) else tokenizer
        padding = "max_length" if full else False
        made = call(texts, truncation=True, max_length=context, padding=padding)
        if any(map(any, made.get("token_type_ids", ()))):
            raise ValueError("its token types are not all 0")
        return made["input_ids"]

    tokens.check(f"processor {type(processor).__name__}", theirs, padded=full)
    return tokens


def from_open_clip(tokenizer: Any, context: int) -> Tokens:
    """Wraps open_clip's tokenizers: its own byte-pair encoder, or a wrapper of one of transformers.

    Raises:
        ValueError: a tokenizer that drops tokens by a reduction mask, of an unknown kind, or one whose ids are not what
            is made here.
    """
    name = f"tokenizer {type(tokenizer).__name__}"
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is not None:
        tokens = _from_wrapper(tokenizer, inner, context)
    elif not hasattr(tokenizer, "bpe_ranks") or getattr(tokenizer, "reduction_fn", None) is not None:
        raise ValueError(f"{name} is not one of open_clip's, or it uses a reduction mask")
    else:
        words = _word_encoder(tokenizer)

        def encode(texts: list[str]) -> list[list[int]]:
            return [[tokenizer.sot_token_id, *words(text), tokenizer.eot_token_id] for text in texts]

        longest = max(len(entry) for entry in tokenizer.encoder)
        tokens = Tokens(encode, context, Layout(0), longest, _MERGED * _ENTITY)

    def theirs(texts: list[str]) -> Any:
        with torch.device("cpu"):  # whatever the caller's default is
            return tokenizer(texts, context_length=context).tolist()

    tokens.check(name, theirs, padded=True)
    return tokens


def _from_wrapper(tokenizer: Any, inner: Any, context: int) -> Tokens:
    """Does what open_clip's `HFTokenizer` and `SigLipTokenizer` do around a tokenizer of transformers."""
    clean = _cleaning(tokenizer)
    clips = getattr(tokenizer, "tokenizer_mode", "") == "clips"
    # A separator becomes a zero, in the padding too.
    strip = inner.sep_token_id if getattr(tokenizer, "strip_sep_token", False) and not clips else None
    pad = inner.pad_token_id or 0

    def encode(texts: list[str]) -> list[list[int]]:
        cleaned = [clean(text) for text in texts]
        ids: list[list[int]] = inner(cleaned, truncation=False, verbose=False, add_special_tokens=not clips)[
            "input_ids"
        ]
        if clips:
            return [[inner.bos_token_id, *row, inner.eos_token_id] for row in ids]
        return ids if strip is None else [[0 if number == strip else number for number in row] for row in ids]

    if clips:  # always cut and padded on the right, and the class token closes the row
        layout, keep_end = Layout(pad, last=(inner.cls_token_id,)), False
    else:
        layout = Layout(0 if pad == strip else pad, left=_is_left(inner, "padding_side"))
        keep_end = _is_left(inner, "truncation_side")
    return Tokens(encode, context - len(layout.last), layout, _longest(inner), _MERGED * _ENTITY, keep_end)


def _cleaning(tokenizer: Any) -> Callable[[str], str]:
    if hasattr(tokenizer, "clean_fn"):
        clean: Callable[[str], str] = tokenizer.clean_fn
        return clean
    if type(tokenizer).__name__ == "SigLipTokenizer":  # which cleans without saying so in an attribute
        from open_clip.tokenizer import get_clean_fn

        canonical: Callable[[str], str] = get_clean_fn("canonicalize")
        return canonical
    return str


def _is_left(tokenizer: Any, side: str) -> bool:
    return bool(getattr(tokenizer, side, "right") == "left")


def _longest(tokenizer: Any) -> int:
    return max((len(entry) for entry in tokenizer.get_vocab()), default=1)


def _short(ids: list[int]) -> str:
    return str(ids) if len(ids) <= 12 else f"[{', '.join(map(str, ids[:12]))}, ...] ({len(ids)} ids)"


def _word_encoder(tokenizer: Any) -> Callable[[str], list[int]]:
    """`SimpleTokenizer.encode` with its merges run by the tokenizers library.

    open_clip's own loop is quadratic in the length of a word, so one long hostile word would take seconds.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    fast = Tokenizer(BPE(vocab=tokenizer.encoder, merges=merges, end_of_word_suffix="</w>"))

    known: dict[str, list[int]] = {}

    def one(word: str) -> list[int]:
        if tokenizer.cache.get(word) == word:  # a special token, spelt out in the text
            return [tokenizer.encoder[word]]
        ids: list[int] = fast.encode("".join(tokenizer.byte_encoder[byte] for byte in word.encode("utf-8"))).ids
        return ids

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        for word in tokenizer.pat.findall(tokenizer.clean_fn(text)):
            found = known.get(word)
            if found is None:
                found = one(word)
                if len(word) <= LONGEST_WORD:
                    known[word] = found
            ids += found
            if len(known) > MOST_WORDS:
                known.clear()
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
