"""Small SAM models with random weights, true in class and processor to the large ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

_SIDE = 64  # of the square that pictures are squashed to; the released models' is 1024


def small_sam2(seed: int = 0) -> tuple[Any, Any]:
    """A `Sam2Model` of 64 x 64 pixels and its processor.

    Args:
        seed: of its weights; the caller's random state is left as it was.

    Returns:
        The model, in evaluation mode, and the processor.
    """
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2ImageProcessor,
        Sam2MaskDecoderConfig,
        Sam2Model,
        Sam2Processor,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[_SIDE, _SIDE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[3],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=32,
    )
    prompts = Sam2PromptEncoderConfig(hidden_size=32, image_size=_SIDE, patch_size=16, mask_input_channels=4)
    decoder = Sam2MaskDecoderConfig(hidden_size=32, mlp_dim=64, num_attention_heads=4, iou_head_hidden_dim=32)
    config = Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    return _filled(Sam2Model, config, seed), Sam2Processor(Sam2ImageProcessor(**_sizes(16)))


def small_sam3(seed: int = 0) -> tuple[Any, Any]:
    """A `Sam3TrackerModel` of 64 x 64 pixels and its processor; arguments and results as `small_sam2`."""
    from transformers import (
        Sam3ImageProcessor,
        Sam3TrackerConfig,
        Sam3TrackerModel,
        Sam3TrackerProcessor,
        Sam3VisionConfig,
        Sam3ViTConfig,
    )
    from transformers.models.sam3_tracker.configuration_sam3_tracker import (
        Sam3TrackerMaskDecoderConfig,
        Sam3TrackerPromptEncoderConfig,
    )

    backbone = Sam3ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=_SIDE,
        patch_size=16,
        window_size=2,
        global_attn_indexes=[1],
        pretrain_image_size=_SIDE,
    )
    vision = Sam3VisionConfig(
        backbone_config=backbone, fpn_hidden_size=32, backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]]
    )
    prompts = Sam3TrackerPromptEncoderConfig(hidden_size=32, image_size=_SIDE, patch_size=16, mask_input_channels=4)
    decoder = Sam3TrackerMaskDecoderConfig(hidden_size=32, mlp_dim=64, num_attention_heads=4, iou_head_hidden_dim=32)
    config = Sam3TrackerConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    return _filled(Sam3TrackerModel, config, seed), Sam3TrackerProcessor(Sam3ImageProcessor(**_sizes(16)))


def write_small_sam2(folder: str | Path, seed: int = 0) -> str:
    """Saves `small_sam2` as transformers does.

    Args:
        folder: where to.
        seed: of its weights.

    Returns:
        The folder.
    """
    for part in small_sam2(seed):
        part.save_pretrained(folder)
    return str(folder)


def _sizes(mask_side: int) -> dict[str, Any]:
    return {
        "size": {"height": _SIDE, "width": _SIDE},
        "mask_size": {"height": mask_side, "width": mask_side},
    }


def _filled(kind: Any, config: Any, seed: int) -> Any:
    """Weights wide enough that masks of different prompts differ: the classes' own are made for training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config).eval()
        with torch.no_grad():
            for name, value in model.named_parameters():
                if value.dim() > 1:
                    value.normal_(0.0, 1.5 / max(1, value[0].numel()) ** 0.5)
                elif name.endswith("bias"):
                    value.normal_(0.0, 0.1)
    return model
