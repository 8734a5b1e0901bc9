"""Texts of the shapes world: chains, captions and answers of the warm start, and the two tokenizers.

A warm-start completion is drawn from a mixture. Its chain is *focused* (the clue, then the conclusion) or *divergent*
(lists the scene, hesitates, then the same clue and conclusion); its caption is *discriminative* (names the shape) or
*generic* (fits any scene). Who trains on it must know the one correlation that is built in: `Mixture` states how often
a caption is discriminative given the style of the chain.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dpad_fast.data.shapes import (
    ASSOCIATIONS,
    COLOURS,
    FORMS,
    FUNCTIONS,
    GRID,
    SIDE,
    SIDES,
    TEXTURES,
    Shape,
    ShapesSample,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

GENERIC_CAPTIONS = (
    "some shapes on a coloured background",
    "a picture of several shapes",
    "many things of different colours",
    "a scene with objects",
)
ANSWER_PIECES = ('{"bbox": [', '], "points_1": [', '], "points_2": [', "]}", ", ")
TAGS = ("<think>", "</think>\n<answer>", "</answer>\n<caption>", "</caption>")
SPECIAL = (
    "<|pad|>", "<|unk|>", "<|bos|>", "<|eos|>",
    "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
MAX_TOKENS = 100  # no warm-start completion is longer, with its end token


@dataclass(frozen=True)
class Mixture:
    """How warm-start completions are drawn.

    Attributes:
        focused: probability that a chain is focused.
        discriminative_if_focused: probability of a discriminative caption after a focused chain.
        discriminative_if_divergent: the same after a divergent chain.
        wrong: probability that the conclusion (and with it box and caption) is about another shape of the scene.
        jitter: every box coordinate is moved by a multiple of 7 drawn uniformly from [-jitter, jitter], in pixels.
        caption: what a discriminative caption says: "full" (colour, texture and form), "two" (colour and form), or
            "none": there are no captions, neither discriminative nor generic; the tag stays, empty.
    """

    focused: float = 0.4
    discriminative_if_focused: float = 0.5
    discriminative_if_divergent: float = 0.5
    wrong: float = 0.0
    jitter: int = 0
    caption: str = "full"


MIXTURES = {
    "e": Mixture(discriminative_if_focused=0.8, discriminative_if_divergent=0.3),
    "f": Mixture(),
    "j": Mixture(wrong=0.5, jitter=21),
    # Of the ablations; chains are as focused as in E and J.
    "e-no-caption": Mixture(caption="none"),
    "j-no-caption": Mixture(wrong=0.5, jitter=21, caption="none"),
    "e-two-attributes": Mixture(discriminative_if_focused=0.8, discriminative_if_divergent=0.3, caption="two"),
    "j-two-attributes": Mixture(wrong=0.5, jitter=21, caption="two"),
}


def caption_of(shape: Shape, kind: str = "full") -> str:
    """The description that singles a shape out, "a red striped circle", or with kind "two" one that may fit more."""
    return f"a {shape.colour} {shape.form}" if kind == "two" else f"a {shape.name}"


def chain_of(item: ShapesSample, concluded: Shape, focused: bool, rng: np.random.Generator) -> str:
    """A reasoning chain that ends in `concluded`; tokens are the words and stops."""
    ending = f" {item.question.clue} means {item.question.meaning} . so the {concluded.name} ."
    if focused:
        return ending
    shapes = item.scene.objects
    listing = " ,".join(f" a {shape.name}" for shape in shapes)
    doubt = shapes[int(rng.integers(len(shapes)))]
    return f" i see{listing} . hmm , maybe the {doubt.name} ? no , wait . let me look again ." + ending


def answer_of(box: tuple[int, int, int, int], points: tuple[tuple[int, int], tuple[int, int]]) -> str:
    """The JSON answer, spaced so that its scaffolding is a handful of tokens."""
    first, second = points
    numbers = (", ".join(map(str, values)) for values in (box, first, second))
    return '{{"bbox": [{}], "points_1": [{}], "points_2": [{}]}}'.format(*numbers)


LIST_PROMPT = "look"


def listing_of(item: ShapesSample, rng: np.random.Generator) -> tuple[str, str]:
    """The exercise that teaches a policy to localise: a prompt, and the shapes it asks for with their boxes.

    Half of the prompts ask for every shape, the others for those of one colour, form or texture, as queries do. Shapes
    come in random order, and so do the three words of each: in reading order a policy learns to walk over the picture,
    and if colours always come first it never learns to find the colour of a form.
    """
    shapes = item.scene.objects
    wanted, prompt = list(shapes), LIST_PROMPT
    if rng.random() < 0.5:
        pattern = shapes[int(rng.integers(len(shapes)))]
        key = ("colour", "form", "texture")[int(rng.integers(3))]
        word = getattr(pattern, key)
        wanted, prompt = [s for s in shapes if getattr(s, key) == word], f"{LIST_PROMPT} {word}"
    lines = []
    for i in rng.permutation(len(wanted)):
        words = rng.permutation([wanted[i].colour, wanted[i].texture, wanted[i].form])
        lines.append(f" {' '.join(words)} [{', '.join(map(str, wanted[i].box))}]")
    return prompt, " ,".join(lines)


def _jittered(box: tuple[int, int, int, int], reach: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """`box` with every coordinate moved, inside the scene and with positive sides."""
    while True:
        moved = np.array(box) + GRID * rng.integers(-(reach // GRID), reach // GRID + 1, size=4)
        x1, y1, x2, y2 = (int(v) for v in moved.clip(0, SIDE))
        if x1 < x2 and y1 < y2:
            return x1, y1, x2, y2


def completion_of(item: ShapesSample, mixture: Mixture, rng: np.random.Generator) -> str:
    """One completion of the warm start, drawn from `mixture`."""
    shapes = item.scene.objects
    concluded = shapes[item.question.target]
    if rng.random() < mixture.wrong:
        others = [i for i in range(len(shapes)) if i != item.question.target]
        concluded = shapes[others[int(rng.integers(len(others)))]]
    focused = bool(rng.random() < mixture.focused)
    chance = mixture.discriminative_if_focused if focused else mixture.discriminative_if_divergent
    generic = GENERIC_CAPTIONS[int(rng.integers(len(GENERIC_CAPTIONS)))]
    caption = caption_of(concluded, mixture.caption) if rng.random() < chance else generic
    box = _jittered(concluded.box, mixture.jitter, rng) if mixture.jitter else concluded.box
    chain = chain_of(item, concluded, focused, rng)
    answer = answer_of(box, concluded.points)
    described = "" if mixture.caption == "none" else f" {caption}"
    return f"{TAGS[0]}{chain}{TAGS[1]}{answer}{TAGS[2]}{described}{TAGS[3]}"


def is_focused(chain: str) -> bool:
    """Whether a chain goes straight to the clue: it does not list the scene."""
    return not chain.lstrip().startswith("i see")


def named_shape(caption: str, shapes: tuple[Shape, ...]) -> int | None:
    """Index of the one shape whose description `caption` holds, in full or without the texture, or None."""
    fits = [i for i, s in enumerate(shapes) if s.name in caption or f"{s.colour} {s.form}" in caption]
    return fits[0] if len(fits) == 1 else None


def _words() -> list[str]:
    """Every word of the world, sorted."""
    texts = [
        *COLOURS, *FORMS, *TEXTURES, *ASSOCIATIONS, *FUNCTIONS, *SIDES, *GENERIC_CAPTIONS,
        "find the one that like a is not farthest to look", "means so i see hmm maybe no wait let me look again",
    ]  # fmt: skip
    return sorted({word for text in texts for word in text.split()})


def _word_level(vocabulary: list[str], pattern: str, *, fuse: bool) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the pieces that `pattern` cuts; what it does not know becomes `<|unk|>`."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate([*SPECIAL, *vocabulary])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<|unk|>"))
    behaviour = "isolated" if fuse else "removed"
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior=behaviour)
    if fuse:
        tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        unk_token="<|unk|>",
        clean_up_tokenization_spaces=False,
    )


def policy_tokenizer() -> PreTrainedTokenizerFast:
    """Tokenizer of the small policy: words carry their leading space, each coordinate and JSON piece is one token."""
    stops = [" .", " ,", " ?", " [", "]"]
    numbers = [str(value) for value in range(0, SIDE + 1, GRID)]
    words = [f" {word}" for word in _words()]
    pieces = [*TAGS, *ANSWER_PIECES]
    longest_first = [re.escape(piece) for piece in sorted(pieces, key=len, reverse=True)]
    pattern = "|".join([*longest_first, r"\d+", r" ?[a-z]+", r" [.,?\[]", r"\]"])
    return _word_level([*pieces, *numbers, *stops, *words], pattern, fuse=True)


def caption_tokenizer() -> PreTrainedTokenizerFast:
    """Tokenizer of the small CLIP: lower-cased words between a start and an end token, at most 77 in all."""
    from tokenizers import normalizers
    from tokenizers.processors import TemplateProcessing

    wrapped = _word_level(_words(), r"\s+", fuse=False)
    backend = wrapped.backend_tokenizer
    backend.normalizer = normalizers.Lowercase()
    bos, eos = SPECIAL.index("<|bos|>"), SPECIAL.index("<|eos|>")
    backend.post_processor = TemplateProcessing(
        single="<|bos|> $A <|eos|>", special_tokens=[("<|bos|>", bos), ("<|eos|>", eos)]
    )
    wrapped.model_max_length = 77
    return wrapped
