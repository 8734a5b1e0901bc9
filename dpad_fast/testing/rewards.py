"""Helpers of tests and benchmarks of rewards: a tiny CLIP, a picture, and completions good and hostile."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

_TEXT = """a an the of in on at with and red green blue white black small large round striped cat dog person van table
kettle circle square left right near behind beside standing water handle metal image picture edge object that one"""
WORDS = tuple(_TEXT.split())
SOLUTION = "<box>(20,12),(64,52)</box><points>(30,24),(50,40)</points>"
SIZE = (96, 72)


def tiny_clip(seed: int = 7, side: int = 32) -> tuple[Any, Any]:
    """A CLIPModel with random weights and a processor (tokenizer and Pillow image processor); takes milliseconds.

    The tokenizer is byte-level; the context is 77 tokens, as in the real models.
    """
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    tokenizer = tiny_tokenizer()
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(
        text_config={**tower, **ends, "vocab_size": len(tokenizer), "max_position_embeddings": 77},
        vision_config={**tower, "image_size": side, "patch_size": 8},
        projection_dim=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(config).eval()
        # The default initialisation leaves all captions nearly the same; under seed 7 both signs of S1 - S2 are common.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
    size = {"height": side, "width": side}
    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=size)
    return model, SimpleNamespace(tokenizer=tokenizer, image_processor=processor)


def tiny_tokenizer() -> Any:
    """CLIP's tokenizer over bytes, with merges that make few tokens of each of `WORDS`; a letter alone is one token."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    vocabulary = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        for i in range(1, len(parts)):
            pair = ("".join(parts[:i]), parts[i])
            if pair not in merges:
                merges.append(pair)
                vocabulary.append("".join(pair))
    entries = dict.fromkeys([*vocabulary, "<|startoftext|>", "<|endoftext|>"])
    return CLIPTokenizer(vocab={entry: i for i, entry in enumerate(entries)}, merges=merges)


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    """An RGB picture with structure at several scales."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for side in (3, 9, 27):
        coarse = Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8))
        total += np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), float)
    return Image.fromarray((total / 3).astype(np.uint8))


def completion(
    box: object = (20, 12, 64, 52),
    first: object = (30, 24),
    second: object = (50, 40),
    caption: str = "a small red cat near the table",
    think: str = "The cat is near the table.",
) -> str:
    """A well-formed completion."""
    answer = json.dumps({"bbox": box, "points_1": first, "points_2": second})
    return f"<think>{think}</think> <answer>{answer}</answer> <caption>{caption}</caption>"


_VALUES: tuple[Any, ...] = (
    0, 1, -1, 20, 12, 64, 52, 30, 24, 50, 40, 66, 9.5, 20.4, True, False, None, "12", "x", [], [1], {}, 10**9,
    -(10**12), 10**400, 1e308, -1e308, float("nan"), float("inf"), float("-inf"), [20, 12], "", 1e-320,
)  # fmt: skip
_PIECES = (
    "<think>", "</think>", "<answer>", "</answer>", "<caption>", "</caption>", "{", "}", "{}", "[", "]", '"', ",", " ",
    "\n", "\t", "\x00", "\ud800", "\udfff", "\u00a0", "\u2028", "\x1c", "é", "é", "你好", "🦊", "1e999", "-1e999",
    "NaN", "Infinity", '"bbox":', '"points_1":', '"points_2":', "[20,12,64,52]", "[30,24]", "a red cat", "<box>",
    "</box>", "(20,12),(64,52)", "<|endoftext|>", "<|startoftext|>",
    "&amp;lt;", "9" * 5000, "[" * 3000, '{"a":' * 500, "\\u0000",
    "٣", ".", "the cat.", "the cat.",
)  # fmt: skip


def hostile(rng: random.Random) -> str:
    """One completion that something may be wrong with: values, structure, encoding, repetition."""
    kind = rng.randrange(7)
    if kind == 0:
        return "".join(rng.choice(_PIECES) for _ in range(rng.randrange(30)))
    if kind == 1:
        values = [rng.choice(_VALUES) for _ in range(rng.choice((0, 2, 3, 4, 4, 4, 5)))]
        return completion(values, _random_value(rng), _random_value(rng), caption=_caption(rng))
    if kind == 2:
        box = [value + rng.randrange(-12, 13) for value in (20, 12, 64, 52)]
        first, second = ([rng.randrange(96), rng.randrange(72)] for _ in range(2))
        return completion(
            box, first, second, caption=_caption(rng), think=rng.choice(("", "so {20} it is", "<answer>x</answer>"))
        )
    text = completion(caption=_caption(rng))
    if kind == 3:
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(len(text) + 1)
            text = text[:place] + rng.choice(_PIECES) + text[place + rng.randrange(6) :]
        return text
    if kind == 4:
        return text[rng.randrange(len(text)) :] + text[: rng.randrange(len(text))]
    if kind == 5:
        return rng.choice(("", " ", "\n")) + text + rng.choice(("", " ", "\n", "<caption>two</caption>", text))
    left, right = (rng.choice(_PIECES) for _ in range(2))
    return (left * rng.randrange(20) + right * rng.randrange(20))[:20_000] + text


def _random_value(rng: random.Random) -> Any:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(_VALUES)
    return [rng.choice(_VALUES) for _ in range(rng.choice((0, 1, 2, 2, 2, 2, 3)))]


def _caption(rng: random.Random) -> str:
    count = rng.choice((0, 1, 4, 8, 8, 8, 12, 74, 75, 76, 200))
    # Around the limit of 77 tokens words are letters, of one token each.
    words = " ".join(rng.choice("abcdef" if 70 < count < 80 else WORDS) for _ in range(count))
    return words if rng.random() < 0.8 else words + rng.choice(_PIECES)[:200] + words
