"""The second small encoder, of the ablations: a stock `SiglipModel` that is trained SigLIP's way.

A sigmoid for every pair of a picture and a text, with a learnt scale and bias, stands in InfoNCE's place (Zhai et al.,
2023). The towers are SigLIP's too: no class token but a pooling head, and texts that are padded to one width and read
at its end. Scenes, texts, and the ranking of S1 - S2 are the small CLIP's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from dpad_fast.data.shapes_text import caption_tokenizer
from dpad_fast.train.warm_start import small_clip
from dpad_fast.train.warm_start.small_clip import MEAN, PIXELS, STD, ClipTraining, Similarities, TrainingProgress

if TYPE_CHECKING:
    from transformers import SiglipModel, SiglipProcessor

WIDTH = 64  # tokens of every row, as in SigLIP
SCALE, BIAS = 10.0, -10.0  # of the cosine, at the start; as in SigLIP


def build(seed: int) -> SiglipModel:
    """The untrained model."""
    from transformers import SiglipConfig, SiglipModel

    tokenizer = caption_tokenizer()
    shared = {"hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 4}
    config = SiglipConfig(
        text_config={
            **shared,
            "vocab_size": len(tokenizer),
            "num_hidden_layers": 2,
            "max_position_embeddings": WIDTH,
            "projection_size": 96,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**shared, "num_hidden_layers": 3, "image_size": PIXELS, "patch_size": 8},
    )
    torch.manual_seed(seed)
    model = SiglipModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(float(torch.tensor(SCALE).log()))
        model.logit_bias.fill_(BIAS)
    return model


def processor() -> SiglipProcessor:
    """Tokenizer and image processor, in the form that transformers saves and loads."""
    from transformers import SiglipImageProcessor, SiglipProcessor

    tokenizer = caption_tokenizer()
    tokenizer.model_max_length = WIDTH
    images = SiglipImageProcessor(
        size={"height": PIXELS, "width": PIXELS}, resample=3, image_mean=[MEAN] * 3, image_std=[STD] * 3
    )
    return SiglipProcessor(images, tokenizer)


def pair_sigmoid(model: Any, found: Similarities) -> torch.Tensor:
    """SigLIP's term: each picture and text is a pair or none; a scene and the name of what it holds is left out."""
    rows, named = torch.arange(len(found.labels)), found.holds.shape[1]
    crop, scene = -torch.ones_like(found.crop), -torch.ones_like(found.scene)
    crop[rows, found.labels] = 1.0
    scene[:, named:] = 1.0  # any generic caption fits any scene
    scene[:, :named].masked_fill_(found.holds, 0.0)
    signs = torch.cat([crop, scene])
    logits = torch.cat([found.crop, found.scene]) * model.logit_scale.exp() + model.logit_bias
    return -(F.logsigmoid(signs * logits) * signs.abs()).sum() / len(signs)


def train(settings: ClipTraining, progress: TrainingProgress | None = None) -> SiglipModel:
    """Train it from nothing and return it."""
    return small_clip.fit(build(settings.seed), settings, pair_sigmoid, progress)


def save(model: SiglipModel, folder: Path) -> None:
    """Write half-precision weights, configuration, tokenizer and image processor to `folder`."""
    small_clip.save(model, folder, processor())
