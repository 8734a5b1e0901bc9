"""A byte-level tokenizer with a family's special tokens and chat template, made from nothing."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

QWEN_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_INTERNVL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>", "<ref>", "</ref>",
    "<box>", "</box>",
)  # fmt: skip
_SMOLVLM_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>",
    "<global-img>", *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)  # fmt: skip
# How the Qwen families cut a text into words before they look tokens up; SmolLM2 and GPT-2 do as tokenizers' ByteLevel.
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_INTERNVL_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<IMG_CONTEXT>\n"
    "{% elif part['type'] == 'video' %}<video>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer(model_type: str) -> PreTrainedTokenizerFast:
    """One token per byte, and the special tokens of a family. Decoding gives the text back, whatever its characters.

    Args:
        model_type: of `tiny_policy.FAMILIES`.

    Returns:
        The tokenizer; the same at every call.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special, roles = _special(model_type)
    vocabulary = {character: index for index, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = words(model_type)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(special))
    # Set by hand: a decoded text keeps its spaces before punctuation, as the families' own tokenizers have it.
    return PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **roles)


def words(model_type: str) -> Any:
    """The family's own way to cut a text into words, before tokens are looked up.

    Args:
        model_type: of `tiny_policy.FAMILIES`.

    Returns:
        A pre-tokenizer of `tokenizers`.
    """
    from tokenizers import Regex, pre_tokenizers

    if model_type in ("idefics3", "smolvlm"):
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    split = pre_tokenizers.Split(Regex(QWEN_WORDS), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


@cache
def chat_template(model_type: str) -> str:
    """The family's chat template.

    Args:
        model_type: of `tiny_policy.FAMILIES`.

    Returns:
        Jinja text.
    """
    if model_type == "internvl":
        return _INTERNVL_TEMPLATE
    from trl import chat_template_utils as templates

    if model_type == "qwen3_vl":
        return str(templates.qwen3_vl_chat_template)
    return str(templates.qwen2_5_vl_chat_template if model_type.startswith("qwen") else templates.smolvlm_chat_template)


def _special(model_type: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Special tokens of a family, and their roles as keywords of the tokenizer."""
    if model_type.startswith("qwen"):
        return QWEN_TOKENS, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    if model_type == "internvl":
        marks = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
        roles = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        return _INTERNVL_TOKENS, {**roles, "extra_special_tokens": {**marks, "video_token": "<video>"}}
    roles = {"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>"}
    if model_type == "smolvlm":
        marks = {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>"}
        marks |= {"global_image_token": "<global-img>", "end_of_utterance_token": "<end_of_utterance>"}
        return _SMOLVLM_TOKENS, {**roles, "extra_special_tokens": marks}
    return _SMOLVLM_TOKENS, roles
