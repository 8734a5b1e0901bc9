"""The policies: a stock Qwen2.5-VL small enough for two CPU cores, and loading of any policy by name or path."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dpad_fast import hub
from dpad_fast.checkpoints import POLICIES, checkpoint
from dpad_fast.data.shapes import SIDE
from dpad_fast.data.shapes_text import policy_tokenizer
from dpad_fast.model_size import model_size_for
from dpad_fast.train.saving import check_saved

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


def load_policy(
    name_or_path: str | Path,
    dtype: torch.dtype = torch.float32,
    *,
    attention: str = "",
    min_pixels: int = 0,
    max_pixels: int = 0,
    image_processor: Mapping[str, Any] | None = None,
) -> tuple[PreTrainedModel, ProcessorMixin]:
    """Load a policy and its processor.

    Args:
        name_or_path: a shipped name, a folder, or a name that transformers can resolve. A folder with a LoRA adapter
            gives the policy that it was trained on with the adapter merged in.
        dtype: of the weights in memory; shipped checkpoints are stored in half precision.
        attention: transformers' `attn_implementation`; the model's own choice when empty.
        min_pixels: smallest area of a picture; 0 for the processor's own.
        max_pixels: largest area; 0 for the processor's own.
        image_processor: further settings of the processor of pictures, by their names there.

    Returns:
        The model and the processor.

    Raises:
        ValueError: if nothing is found under the name, it is the policy of a run whose saving was interrupted, or a
            setting of pictures that the processor does not have.
    """
    adapter = Path(name_or_path)
    check_saved(adapter)
    base = _base_of(adapter)
    source = base or _source(name_or_path)
    try:  # before transformers is imported, which takes seconds
        local = hub.only_local(source, POLICIES)
    except ValueError as error:
        raise ValueError(f"policy {str(name_or_path)!r} cannot be loaded: {error}") from error
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText, AutoProcessor

    more = {"attn_implementation": attention} if attention else {}
    try:
        model = AutoModelForImageTextToText.from_pretrained(source, dtype=dtype, local_files_only=local, **more)
        processor = AutoProcessor.from_pretrained(source if base is None else adapter, local_files_only=local)
        if base is not None:
            model = _merged(model, adapter)
    except (
        ImportError,  # of an attention whose package is not here
        OSError,
        ValueError,
        RuntimeError,
        SafetensorError,
    ) as error:  # weights that are cut off or of another shape
        raise ValueError(f"policy {str(name_or_path)!r} cannot be loaded: {error}") from error
    set_pixels(processor, min_pixels, max_pixels, image_processor or {})
    return model, processor


def _source(name_or_path: str | Path) -> str:
    try:
        return str(checkpoint(name_or_path))
    except ValueError:
        if str(name_or_path) in POLICIES or Path(name_or_path).exists():
            raise
        return str(name_or_path)


def _base_of(adapter: Path) -> str | None:
    """The base model of a folder's LoRA adapter; None where the folder holds no adapter."""
    path = adapter / "adapter_config.json"
    if not path.is_file():
        return None
    try:
        base = json.loads(path.read_bytes())["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        base = None
    if not isinstance(base, str) or not base:
        raise ValueError(f"policy {str(adapter)!r} cannot be loaded: {path} names no base_model_name_or_path")
    return _source(base)


def _merged(model: Any, adapter: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError:
        raise ValueError("its LoRA adapter needs the package peft: pip install 'dpad-fast[lora]'") from None
    return PeftModel.from_pretrained(model, str(adapter), local_files_only=True).merge_and_unload()


def set_pixels(processor: Any, min_pixels: int, max_pixels: int, others: Mapping[str, Any]) -> None:
    """Limit the areas of pictures, and change other settings of their processor.

    Args:
        processor: changed in place; saved with it, so that evaluation sees pictures as training did.
        min_pixels: smallest area; 0 for its own.
        max_pixels: largest area; 0 for its own.
        others: settings by name.

    Raises:
        ValueError: for a setting that it does not have; names those that it has.
    """
    images = processor.image_processor
    size: Any = getattr(images, "size", None)
    limits = {"shortest_edge": min_pixels, "longest_edge": max_pixels}
    if min_pixels or max_pixels:
        # Only where the size is an area; for SmolVLM a longest_edge is a side, for InternVL there is neither.
        if model_size_for((112, 112), processor) is None:
            raise ValueError(
                f"min_pixels and max_pixels are no settings of {type(images).__name__}: set image_processor to some "
                f"of {_settings_of(images)}"
            )
        images.size = type(size)(**{**dict(size), **{edge: value for edge, value in limits.items() if value}})
        if images.size["shortest_edge"] > images.size["longest_edge"]:
            raise ValueError(
                f"min_pixels is {images.size['shortest_edge']}, above max_pixels {images.size['longest_edge']}; one of "
                "them is the processor's own"
            )
    for name, value in others.items():
        if not hasattr(images, name) or callable(getattr(images, name)):
            raise ValueError(
                f"image_processor.{name} is no setting of {type(images).__name__}, which has {_settings_of(images)}"
            )
        setattr(images, name, type(size)(**value) if name == "size" and isinstance(value, Mapping) else value)


def _settings_of(images: Any) -> str:
    return ", ".join(sorted(name for name in images.to_dict() if not name.startswith("_")))


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
