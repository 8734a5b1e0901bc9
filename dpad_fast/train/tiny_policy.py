"""A tiny random policy of the same class and with the same processor's rules as a real one, made without a network.

It runs where the real one does, on a CPU, in seconds: dry runs and tests go through prompt, picture, generation, reward
and update with it. Its answers are noise.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dpad_fast.train.known_policies import KNOWN, KnownPolicy, local_folder, true_config
from dpad_fast.train.policy import quiet
from dpad_fast.train.tiny_tokenizer import QWEN_TOKENS, chat_template, tiny_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "idefics3", "smolvlm", "internvl")
_WIDTH, _HEADS, _HEAD, _LAYERS = 32, 2, 16, 2
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model")


def tiny_policy(name_or_path: str | Path, seed: int = 0) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A tiny random model and its processor.

    Args:
        name_or_path: the real policy: a folder with its `config.json` (its tokenizer and picture rules are taken where
            they are there too), a shipped name, or a name of `known_policies.KNOWN`.
        seed: of the weights.

    Returns:
        The model, float32 on the CPU, of the real one's class in transformers and under 2 M parameters with the
        tokenizer made here; and the processor, which cuts pictures and builds prompts as the real one's does. Where
        there is no tokenizer to read, every byte of a text is one token.

    Raises:
        ValueError: a policy whose sizes or family are not known here.
    """
    folder = local_folder(name_or_path)
    config = true_config(name_or_path)
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"policy {str(name_or_path)!r:.200} is a {config.model_type!r:.40}; a tiny one can be made of "
            f"{', '.join(FAMILIES)}"
        )
    with quiet():
        processor = _processor(folder, config, KNOWN.get(str(name_or_path)))
        small = shrink(config, processor.tokenizer)
        from transformers import AutoModelForImageTextToText

        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            model = AutoModelForImageTextToText.from_config(small, dtype=torch.float32)
    _set_generation(model, processor.tokenizer)
    return model, processor


def write_tiny_policy(folder: str | Path, name: str | Path, seed: int = 0) -> Path:
    """Save a tiny policy, so that transformers' Auto classes (and `load_policy`) load it from the folder.

    Args:
        folder: is made where it is not there.
        name: see `tiny_policy`.
        seed: of the weights.

    Returns:
        The folder.

    Raises:
        ValueError: see `tiny_policy`.
    """
    model, processor = tiny_policy(name, seed)
    with quiet():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return Path(folder)


def shrink(config: PreTrainedConfig, tokenizer: Any) -> PreTrainedConfig:
    """The same configuration with few and narrow layers. Patch, merge, window and tile sizes stay.

    Args:
        config: of a family of `FAMILIES`.
        tokenizer: whose vocabulary and special tokens the small model has.

    Returns:
        A new configuration.
    """
    small = deepcopy(config)
    text, vision = small.text_config, small.vision_config
    kinds = getattr(text, "layer_types", None)
    grouped = text.num_key_value_heads < text.num_attention_heads
    text.num_hidden_layers, text.hidden_size, text.intermediate_size = _LAYERS, _WIDTH, 2 * _WIDTH
    text.num_attention_heads, text.num_key_value_heads = _HEADS, 1 if grouped else _HEADS
    if getattr(text, "head_dim", None) is not None:
        text.head_dim = _HEAD
    if kinds:
        text.layer_types = list(kinds[:_LAYERS])
    rope = dict(text.rope_parameters or {})
    if "mrope_section" in rope:
        text.rope_parameters = {**rope, "mrope_section": [4, 2, 2]}
    _shrink_vision(vision, config.model_type)
    text.vocab_size = len(tokenizer)
    _set_tokens(small, tokenizer)
    return small


def _shrink_vision(vision: Any, model_type: str) -> None:
    if model_type == "qwen2_vl":  # its hidden_size is what comes out, embed_dim the width of the tower
        vision.depth, vision.embed_dim, vision.hidden_size, vision.num_heads = _LAYERS, _WIDTH, _WIDTH, _HEADS
        return
    vision.hidden_size, vision.intermediate_size = _WIDTH, 2 * _WIDTH
    if not model_type.startswith("qwen"):
        vision.num_hidden_layers, vision.num_attention_heads = _LAYERS, _HEADS
        return
    vision.depth, vision.num_heads, vision.out_hidden_size = _LAYERS, _HEADS, _WIDTH
    if model_type == "qwen2_5_vl":
        vision.fullatt_block_indexes = [_LAYERS - 1]
    else:
        vision.deepstack_visual_indexes = [0]


def _set_tokens(config: Any, tokenizer: Any) -> None:
    """Ids of the special tokens as this tokenizer has them."""
    ids = tokenizer.get_vocab()
    for field, tokens in {
        "image_token_id": ("<|image_pad|>", "<image>", "<IMG_CONTEXT>"),
        "video_token_id": ("<|video_pad|>", "<video>"),
        "vision_start_token_id": ("<|vision_start|>",),
        "vision_end_token_id": ("<|vision_end|>",),
    }.items():
        found = [ids[token] for token in tokens if token in ids]
        if found and getattr(config, field, None) is not None:
            setattr(config, field, found[0])
    for part in (config, config.text_config):
        for field in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if hasattr(part, field):
                setattr(part, field, getattr(tokenizer, field))


def _set_generation(model: Any, tokenizer: Any) -> None:
    """A random model says any token; of those that stand for a picture there must be as many as the picture has."""
    marks = {*QWEN_TOKENS, "<image>", "<fake_token_around_image>", "<IMG_CONTEXT>", "<img>", "</img>", "<video>"}
    ids = tokenizer.get_vocab()
    never = sorted(ids[mark] for mark in marks if mark in ids and ids[mark] != tokenizer.eos_token_id)
    model.generation_config.suppress_tokens = never
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def _processor(folder: Path | None, config: Any, known: KnownPolicy | None) -> Any:
    if folder is not None and any((folder / name).is_file() for name in _TOKENIZER_FILES):
        from transformers import AutoProcessor

        try:
            return AutoProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise ValueError(f"policy {str(folder)!r:.200}: its processor cannot be read: {error}") from error
    kind = config.model_type
    images = _image_processor(folder, config, known)
    tokenizer = tiny_tokenizer(kind)
    template = chat_template(kind)
    if kind in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        return _qwen_processor(kind, images, tokenizer, template)
    if kind == "internvl":
        from transformers import InternVLProcessor, InternVLVideoProcessor

        tokens = config.image_seq_length
        video = InternVLVideoProcessor()
        return InternVLProcessor(images, tokenizer, video, image_seq_length=tokens, chat_template=template)
    side, patch, factor = config.vision_config.image_size, config.vision_config.patch_size, config.scale_factor
    tokens = (side // patch) ** 2 // factor**2
    if kind == "idefics3":
        from transformers import Idefics3Processor

        return Idefics3Processor(images, tokenizer, image_seq_len=tokens, chat_template=template)
    from transformers import SmolVLMProcessor, SmolVLMVideoProcessor

    try:
        video_processor = SmolVLMVideoProcessor()
        return SmolVLMProcessor(images, tokenizer, video_processor, image_seq_len=tokens, chat_template=template)
    except ImportError as error:
        raise ValueError(f"the processor of SmolVLM2 cannot be made: {' '.join(str(error).split())}") from error


def _qwen_processor(kind: str, images: Any, tokenizer: Any, template: str) -> Any:
    import transformers

    classes = {"qwen2_vl": ("Qwen2VL", "Qwen2VL"), "qwen2_5_vl": ("Qwen2_5_VL", "Qwen2VL")}
    name, video_name = classes.get(kind, ("Qwen3VL", "Qwen3VL"))
    shared = {field: getattr(images, field) for field in ("patch_size", "temporal_patch_size", "merge_size")}
    video = getattr(transformers, f"{video_name}VideoProcessor")(**shared)
    return getattr(transformers, f"{name}Processor")(images, tokenizer, video, chat_template=template)


def _image_processor(folder: Path | None, config: Any, known: KnownPolicy | None) -> Any:
    """With the folder's own settings, else those of the name, else those of the family."""
    import transformers

    if folder is not None and (folder / "preprocessor_config.json").is_file():
        return transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    kind = config.model_type
    if known is None:
        known = _most_alike(config)
    name = {"internvl": "GotOcr2", "idefics3": "Idefics3", "smolvlm": "SmolVLM"}.get(kind, "Qwen2VL")
    return getattr(transformers, f"{name}ImageProcessor")(**known.images)


def _most_alike(config: Any) -> KnownPolicy:
    """The known policy of the family whose vision tower has the same patches and tiles."""
    family = [known for known in KNOWN.values() if known.model_type == config.model_type]
    vision = config.vision_config

    def alike(known: KnownPolicy) -> int:
        fields = ("patch_size", "image_size")
        return sum(known.config["vision_config"].get(field) == getattr(vision, field, None) for field in fields)

    return max(family, key=alike)
