"""The policies: a stock Qwen2.5-VL small enough for two CPU cores, and loading of any policy by name or path."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dpad_fast import hub
from dpad_fast.checkpoints import POLICIES, checkpoint
from dpad_fast.data.shapes import SIDE
from dpad_fast.data.shapes_text import policy_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

# A picture, the question after it, and <|bos|> where the answer begins. Text parts carry a leading space because the
# policy's words do.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['content'] is string -%}{{ ' ' + message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif part['type'] == 'text' -%}{{ ' ' + part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{ '<|bos|>' if message['role'] == 'user' else '<|eos|>' }}"
    "{%- endfor -%}"
)


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars for loading a few megabytes, and its warnings about names that TRL uses inside."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, message=".*gradient_checkpointing.*")
            yield
    finally:
        if bars:
            logging.enable_progress_bar()


def load_policy(name_or_path: str | Path, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load a policy and its processor.

    Args:
        name_or_path: a shipped name, a folder, or a name that transformers can resolve.
        dtype: of the weights in memory; shipped checkpoints are stored in half precision.

    Raises:
        ValueError: if nothing is found under the name.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        source = str(checkpoint(name_or_path))
    except ValueError:
        source = str(name_or_path)
        if source in POLICIES or Path(source).exists():
            raise
    try:
        local = hub.only_local(source, POLICIES)
        model = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype, local_files_only=local)
        return model, AutoProcessor.from_pretrained(source, local_files_only=local)
    except (
        OSError,
        ValueError,
        RuntimeError,
        SafetensorError,
    ) as error:  # weights that are cut off or of another shape
        raise ValueError(f"policy {str(name_or_path)!r} cannot be loaded: {error}") from error


def build_policy(seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """The untrained small policy: 1.9 M parameters, Qwen2.5-VL's own class and code."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = policy_tokenizer()

    def ids(token: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(token))  # type: ignore[arg-type]

    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5]},
        "bos_token_id": ids("<|bos|>"),
        "eos_token_id": ids("<|eos|>"),
        "pad_token_id": ids("<|pad|>"),
        "tie_word_embeddings": True,
        "initializer_range": 0.05,
    }
    vision: dict[str, Any] = {
        "depth": 3,
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_heads": 4,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 1,
        "window_size": SIDE,
        "out_hidden_size": 128,
        "fullatt_block_indexes": [0, 1, 2],
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    return Qwen2_5_VLForConditionalGeneration(config)


def build_processor() -> Qwen2_5_VLProcessor:
    """Processor of the small policy: 112 x 112 pictures as 16 tokens, the world's tokenizer and its chat template."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    area = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
    shared: dict[str, Any] = {"patch_size": 14, "temporal_patch_size": 1, "merge_size": 2, "size": area}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**shared),
        tokenizer=policy_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(**shared),
        chat_template=CHAT_TEMPLATE,
    )
