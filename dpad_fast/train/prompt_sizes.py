"""How many tokens and patches a prompt is, by a policy's own processor."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from dpad_fast.train.tiny_policy import has_tokenizer
from dpad_fast.train.tiny_tokenizer import words


@dataclass(frozen=True)
class PromptSize:
    """Sizes of one prompt.

    Attributes:
        tokens: in all.
        text: tokens of the text, the chat template's included.
        picture: tokens that stand for the picture.
        patches: patches of the vision tower.
        text_by: what counted the text.
        picture_by: what counted the picture.
    """

    tokens: int
    text: int
    picture: int
    patches: int
    text_by: str
    picture_by: str


def render(processor: Any, prompt: Any, image: Any) -> str:
    """A prompt as the chat template writes it, with a place for the picture.

    Args:
        processor: the policy's.
        prompt: the turns of a row.
        image: the picture.

    Returns:
        The text that the tokenizer gets.
    """
    from trl import prepare_multimodal_messages

    turns = prepare_multimodal_messages(prompt, images=[image])
    return str(processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))


def prompt_size(policy: str, config: Any, processor: Any, prompt: Any, image: Any) -> PromptSize:
    """Count the tokens of a prompt at the true size of its picture.

    Args:
        policy: name or folder of the policy. Where its tokenizer can be read it counts the text; else words do, as the
            family's tokenizer cuts them: of plain English a word is a token, of other texts it may be several.
        config: of the policy, as transformers has it.
        processor: the policy's, or the one that `tiny_policy` made in its place.
        prompt: the turns of a row.
        image: its picture.

    Returns:
        The sizes.
    """
    text = render(processor, prompt, image)
    plain = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
    given = processor(text=[text], images=[image], return_tensors="pt", add_special_tokens=False)
    picture = int(given["input_ids"].shape[1]) - plain + 1  # the template's one place is among the plain tokens
    known = has_tokenizer(policy)
    patch = config.vision_config.patch_size
    side = int(patch[0] if isinstance(patch, list | tuple) else patch)
    count = plain - 1 if known else count_words(processor.tokenizer, config.model_type, text) - 1
    by = f"tokenizer of {policy}" if known else "words of the family's tokenizer: about"
    return PromptSize(
        tokens=count + picture,
        text=count,
        picture=picture,
        patches=count_patches(given["pixel_values"], side),
        text_by=by,
        picture_by=type(processor.image_processor).__name__,
    )


def count_words(tokenizer: Any, model_type: str, text: str) -> int:
    """Special tokens, and words between them as the family's pre-tokenizer cuts them.

    Args:
        tokenizer: of `tiny_tokenizer`.
        model_type: of the policy.
        text: any.

    Returns:
        The number.
    """
    special = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
    parts = re.split("(" + "|".join(map(re.escape, special)) + ")", text)
    cut = words(model_type)
    return sum(1 if part in special else len(cut.pre_tokenize_str(part)) for part in parts if part)


def count_patches(pixels: Any, side: int) -> int:
    """Patches in what a processor gives to the vision tower.

    Args:
        pixels: [patches, C], or tiles [..., 3, H, W].
        side: of a patch, in pixels, where tiles are given.

    Returns:
        The number.
    """
    if pixels.dim() == 2:
        return int(pixels.shape[0])
    height, width = (int(value) for value in pixels.shape[-2:])
    return int(pixels.numel() // (3 * height * width)) * (height // side) * (width // side)
