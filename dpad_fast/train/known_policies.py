"""Facts of policies by their names on the hub: sizes of the architecture and rules for pictures, without a network.

All of it was written down from memory: the repositories of these names (Qwen, HuggingFaceTB, OpenGVLab) could not be
read here. The sizes of the architectures are backed by one thing: a test builds every model on the meta device, and
it has exactly the number of parameters that its repository states. That says nothing of what adds no parameters: heads
that share a width, windows, which layers see the whole picture, positions. The rules for pictures (`images`,
`tokens`) are backed by nothing but what transformers' processors take. A folder with the policy's own `config.json` and
`preprocessor_config.json` goes before all of this. Of Qwen2.5-VL-72B and InternVL3-14B and up the number of parameters
was not at hand, so they are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpad_fast.checkpoints import POLICIES, checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class KnownPolicy:
    """Facts of a policy.

    Attributes:
        name: on the hub.
        model_type: as `config.json` has it: names the classes in transformers.
        parameters: the published number, tied weights counted once.
        config: fields of the configuration, the parts `text_config` and `vision_config` as dictionaries.
        images: settings of the image processor.
        tokens: tokens per tile, for families that cut pictures into tiles; 0 where the size of the picture decides.
    """

    name: str
    model_type: str
    parameters: int
    config: dict[str, Any]
    images: dict[str, Any] = field(default_factory=dict)
    tokens: int = 0


def _text(width: int, mlp: int, layers: int, heads: int, kv: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocabulary,
        **more,
    }


def _qwen25(name: str, parameters: int, text: dict[str, Any], *, tied: bool, vision_mlp: int = 3420) -> KnownPolicy:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    vision = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": vision_mlp,
        "num_heads": 16,
        "out_hidden_size": text["hidden_size"],
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }
    return KnownPolicy(
        f"Qwen/Qwen2.5-VL-{name}-Instruct",
        "qwen2_5_vl",
        parameters,
        {
            "text_config": {**text, "rope_parameters": rope, "tie_word_embeddings": tied},
            "vision_config": vision,
            "tie_word_embeddings": tied,
        },
        _whole_patches(14, 56 * 56, 28 * 28 * 16384),
    )


def _qwen2(name: str, parameters: int, text: dict[str, Any], *, tied: bool) -> KnownPolicy:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    vision = {"depth": 32, "embed_dim": 1280, "hidden_size": text["hidden_size"], "mlp_ratio": 4, "num_heads": 16}
    vision |= {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
    return KnownPolicy(
        f"Qwen/Qwen2-VL-{name}-Instruct",
        "qwen2_vl",
        parameters,
        {
            "text_config": {**text, "rope_parameters": rope, "tie_word_embeddings": tied},
            "vision_config": vision,
            "tie_word_embeddings": tied,
        },
        _whole_patches(14, 56 * 56, 28 * 28 * 16384),
    )


def _qwen3(name: str, parameters: int, text: dict[str, Any], *, tied: bool, large_tower: bool = False) -> KnownPolicy:
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}
    tower = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_visual_indexes": [5, 11, 17]}
    if large_tower:
        tower = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "deepstack_visual_indexes": [8, 16, 24]}
    vision = {"num_heads": 16, "out_hidden_size": text["hidden_size"], "num_position_embeddings": 2304}
    vision |= {"patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2}
    return KnownPolicy(
        f"Qwen/Qwen3-VL-{name}-Instruct",
        "qwen3_vl",
        parameters,
        {
            "text_config": {**text, "head_dim": 128, "rope_parameters": rope, "tie_word_embeddings": tied},
            "vision_config": {**tower, **vision},
            "tie_word_embeddings": tied,
        },
        {**_whole_patches(16, 256 * 256, 4096 * 4096), "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    )


def _smolvlm(name: str, parameters: int, text: dict[str, Any], kind: str = "idefics3") -> KnownPolicy:
    """SmolVLM has Idefics3's classes, SmolVLM2 its own of the same shape; the tower is SigLIP, base or so400m."""
    small = text["hidden_size"] < 2048
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    if not small:
        vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
    side = 512 if small else 384
    images = {"size": {"longest_edge": 4 * side}, "max_image_size": {"longest_edge": side}, "do_image_splitting": True}
    config = {
        "text_config": {"model_type": "llama", **text, "head_dim": 64, "tie_word_embeddings": False},
        "vision_config": {**vision, "image_size": side, "patch_size": 16 if small else 14},
        "scale_factor": 4 if small else 3,
        "tie_word_embeddings": False,
    }
    rule = {**images, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return KnownPolicy(f"HuggingFaceTB/{name}", kind, parameters, config, rule, 64 if small else 81)


def _internvl(name: str, parameters: int, text: dict[str, Any]) -> KnownPolicy:
    vision: dict[str, Any] = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    vision |= {"num_attention_heads": 16, "attention_bias": True, "image_size": [448, 448], "patch_size": [14, 14]}
    rope = {"rope_type": "default", "rope_theta": 1e6}
    config = {
        "text_config": {"model_type": "qwen2", **text, "rope_parameters": rope, "tie_word_embeddings": False},
        "vision_config": vision,
        "downsample_ratio": 0.5,
        "image_seq_length": 256,
        "tie_word_embeddings": False,
    }
    images = {"size": {"height": 448, "width": 448}, "min_patches": 1, "max_patches": 12}
    images |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    return KnownPolicy(f"OpenGVLab/InternVL3-{name}-hf", "internvl", parameters, config, images, 256)


def _whole_patches(patch: int, least: int, most: int) -> dict[str, Any]:
    area = {"shortest_edge": least, "longest_edge": most}
    return {"patch_size": patch, "temporal_patch_size": 2, "merge_size": 2, "size": area}


_SMOL_256 = _text(576, 1536, 30, 9, 3, 49280)
_SMOL_500 = _text(960, 2560, 32, 15, 5, 49280)
_QWEN25_7B = _text(3584, 18944, 28, 28, 4, 152064)

KNOWN: dict[str, KnownPolicy] = {
    known.name: known
    for known in (
        _qwen2("2B", 2208985600, _text(1536, 8960, 28, 12, 2, 151936), tied=True),
        _qwen2("7B", 8291375616, _QWEN25_7B, tied=False),
        _qwen25("3B", 3754622976, _text(2048, 11008, 36, 16, 2, 151936), tied=True),
        _qwen25("7B", 8292166656, _QWEN25_7B, tied=False),
        _qwen25("32B", 33452718336, _text(5120, 27648, 64, 40, 8, 152064), tied=False, vision_mlp=3456),
        _qwen3("2B", 2127532032, _text(2048, 6144, 28, 16, 8, 151936), tied=True),
        _qwen3("4B", 4437815808, _text(2560, 9728, 36, 32, 8, 151936), tied=True),
        _qwen3("8B", 8767123696, _text(4096, 12288, 36, 32, 8, 151936), tied=False, large_tower=True),
        _smolvlm("SmolVLM-256M-Instruct", 256484928, _SMOL_256),
        _smolvlm("SmolVLM-500M-Instruct", 507482304, _SMOL_500),
        _smolvlm("SmolVLM-Instruct", 2246272880, _text(2048, 8192, 24, 32, 32, 49155)),
        _smolvlm("SmolVLM2-256M-Video-Instruct", 256484928, _SMOL_256, "smolvlm"),
        _smolvlm("SmolVLM2-500M-Video-Instruct", 507482304, _SMOL_500, "smolvlm"),
        _smolvlm("SmolVLM2-2.2B-Instruct", 2246784880, _text(2048, 8192, 24, 32, 32, 49280), "smolvlm"),
        _internvl("1B", 938193024, _text(896, 4864, 24, 14, 2, 151674)),
        _internvl("2B", 2088957440, _text(1536, 8960, 28, 12, 2, 151674)),
        _internvl("8B", 7944373760, _text(3584, 18944, 28, 28, 4, 151674)),
    )
}


def local_folder(name_or_path: str | Path) -> Path | None:
    """The folder of a policy that is on this machine: a folder with a `config.json`, or a shipped policy's.

    Args:
        name_or_path: a folder, a shipped name, or a name on the hub.

    Returns:
        The folder, or None for a name on the hub.

    Raises:
        ValueError: a folder without `config.json`.
    """
    text = str(name_or_path)
    if text in POLICIES:
        return checkpoint(text)
    folder = Path(name_or_path)
    if not folder.is_dir():
        return None
    if not (folder / "config.json").is_file():
        raise ValueError(f"policy {text!r:.200} is a folder without config.json")
    return folder


def true_config(name_or_path: str | Path) -> PreTrainedConfig:
    """The configuration of a policy at its true size, without a network.

    Args:
        name_or_path: a folder with `config.json`, a shipped name, or one of `KNOWN`.

    Returns:
        The configuration of transformers.

    Raises:
        ValueError: a name that is none of these; says which are known.
    """
    from transformers import AutoConfig

    folder = local_folder(name_or_path)
    if folder is not None:
        try:
            return AutoConfig.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"policy {str(name_or_path)!r:.200}: config.json cannot be read: {error}") from error
    known = KNOWN.get(str(name_or_path))
    if known is None:
        raise ValueError(
            f"policy {str(name_or_path)!r:.200} is no folder, and its sizes are not known here. Give a folder with its "
            f"config.json, or one of {', '.join(KNOWN)}"
        )
    return AutoConfig.for_model(known.model_type, **known.config)


def count_parameters(config: PreTrainedConfig) -> int:
    """Parameters of a model of this configuration, tied weights counted once. Builds it on the meta device.

    Args:
        config: of a policy.

    Returns:
        The number.
    """
    return sum(parameter.numel() for parameter in meta_model(config).parameters())


def meta_model(config: PreTrainedConfig) -> Any:
    """The model of a configuration, with shapes and no numbers: takes no memory, whatever its size.

    Args:
        config: of a policy.

    Returns:
        The model, on the meta device.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    model.tie_weights()
    return model
