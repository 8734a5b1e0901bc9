"""Training of the small CLIP that stands in for CLIP ViT-B/32 in the shapes world.

It is a stock transformers `CLIPModel` (0.5 M parameters, 48-pixel pictures). The loss has two terms, both over every
description that the world knows. InfoNCE compares crops and whole scenes with descriptions. The ranking term is about
what the reward reads, S1 - S2: it must be positive for the right description of a crop and negative for every other
one. A description with the wrong texture weighs more there, because InfoNCE alone learns texture last. InfoNCE leaves
out a scene with the names of its own shapes, which are neither right nor wrong descriptions of it.

`ClipTraining(textures=False)` makes the CLIP of an ablation that cannot tell textures: a crop's name with the other
texture is as right as its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional as F

from dpad_fast.clip.features import pooled
from dpad_fast.data.shapes import COLOURS, FORMS, TEXTURES, ShapesSample, sample
from dpad_fast.data.shapes_text import GENERIC_CAPTIONS, caption_tokenizer

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPProcessor

PIXELS = 48
MEAN = STD = 0.5
SEED = 71  # the world that the small CLIP is trained on
NAMES = [f"{c} {t} {f}" for c in COLOURS for t in TEXTURES for f in FORMS]
TEMPLATES = ("a {}", "the {}", "{}", "one {}")
OTHER_GENERIC = ("a picture", "some different shapes", "several things on a background", "many objects", "a background")

TrainingProgress = Callable[[int, int, dict[str, float]], None]
"""Called with (step, steps, losses) after every step."""
T = TypeVar("T", bound=nn.Module)


@dataclass(frozen=True)
class ClipTraining:
    """How the small CLIP is trained.

    Attributes:
        steps: optimiser steps.
        scenes: scenes a step; each gives the whole picture and one crop.
        lr: peak learning rate of AdamW: a cosine down to a tenth, times a linear warm-up over the first 50 steps.
        seed: of the weights and of the draws.
        textures: False teaches that a shape's texture makes no difference.
    """

    steps: int = 400
    scenes: int = 64
    lr: float = 1.5e-3
    seed: int = 0
    textures: bool = True


@dataclass(frozen=True)
class Similarities:
    """Cosines of one batch: n scenes, a crop of each, and the T texts of which the first are `NAMES`.

    Attributes:
        crop: [n, T] of the crops.
        scene: [n, T] of the whole scenes.
        labels: [n], the name that each crop is taught.
        holds: [n, names], which names each scene holds.
    """

    crop: torch.Tensor
    scene: torch.Tensor
    labels: torch.Tensor
    holds: torch.Tensor


Contrast = Callable[[Any, Similarities], torch.Tensor]
"""The contrastive term, from the model (for its scale) and the cosines."""


def build(seed: int) -> CLIPModel:
    """The untrained model."""
    from transformers import CLIPConfig, CLIPModel

    tokenizer = caption_tokenizer()
    shared = {"hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 4, "projection_dim": 64}
    config = CLIPConfig(
        text_config={
            **shared,
            "vocab_size": len(tokenizer),
            "num_hidden_layers": 2,
            "max_position_embeddings": 77,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={**shared, "num_hidden_layers": 3, "image_size": PIXELS, "patch_size": 8},
        projection_dim=64,
    )
    torch.manual_seed(seed)
    return CLIPModel(config)


def processor() -> CLIPProcessor:
    """Tokenizer and image processor of the small CLIP, in the form that transformers saves and loads."""
    from transformers import CLIPImageProcessor, CLIPProcessor

    images = CLIPImageProcessor(
        size={"shortest_edge": PIXELS},
        crop_size={"height": PIXELS, "width": PIXELS},
        image_mean=[MEAN] * 3,
        image_std=[STD] * 3,
    )
    return CLIPProcessor(images, caption_tokenizer())


def _pixels(pictures: list[Image.Image]) -> torch.Tensor:
    """[n, 3, 48, 48] float32, normalised. Crops of the shapes world are square, so resizing is all there is."""
    resized = [np.asarray(p.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)) for p in pictures]
    stacked = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 255.0
    return (stacked - MEAN) / STD


def _embed(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    return F.normalize(pooled(model.get_image_features(pixel_values=pixels)), dim=-1)


def _embed_texts(model: Any, texts: list[str]) -> torch.Tensor:
    """As the encoder does it: SigLIP attends to all of a row of fixed width, CLIP to the tokens that there are."""
    if model.config.model_type == "siglip":
        width = model.config.text_config.max_position_embeddings
        tokens = caption_tokenizer()(texts, padding="max_length", max_length=width, return_tensors="pt")
        return F.normalize(pooled(model.get_text_features(input_ids=tokens["input_ids"])), dim=-1)
    tokens = caption_tokenizer()(texts, padding=True, return_tensors="pt")
    features = model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    return F.normalize(pooled(features), dim=-1)


def _texts(rng: np.random.Generator) -> list[str]:
    """Every name in a template drawn at random, then the generic captions."""
    templates = [TEMPLATES[int(i)] for i in rng.integers(len(TEMPLATES), size=len(NAMES))]
    names = [template.format(name) for template, name in zip(templates, NAMES, strict=True)]
    return [*names, *GENERIC_CAPTIONS, *OTHER_GENERIC]


def _draw(
    items: list[ShapesSample], rng: np.random.Generator, textures: bool
) -> tuple[list[Image.Image], list[int], NDArray[np.bool_]]:
    """One crop of each scene, which name it is taught, and which names each scene holds, [n, names]."""
    crops, right = [], []
    holds = np.zeros((len(items), len(NAMES)), dtype=bool)
    for row, item in enumerate(items):
        chosen = item.scene.objects[int(rng.integers(len(item.scene.objects)))]
        crops.append(item.image.crop(chosen.box))
        right.append(NAMES.index(chosen.name))
        for shape in item.scene.objects:
            holds[row, NAMES.index(shape.name)] = True
    if not textures:
        other = _other_texture(torch.arange(len(NAMES))).numpy()
        swapped = rng.random(len(right)) < 0.5
        right = [int(other[name]) if swap else name for name, swap in zip(right, swapped, strict=True)]
        holds |= holds[:, other]
    return crops, right, holds


def info_nce(model: Any, found: Similarities) -> torch.Tensor:
    """CLIP's term, from crops to texts and back; and a scene is described by any generic caption best."""
    named = found.holds.shape[1]
    scale = model.logit_scale.exp().clamp(max=60.0)
    neutral = torch.zeros(found.scene.shape, dtype=torch.bool)
    neutral[:, :named] = found.holds
    logp_scene = (scale * found.scene).masked_fill(neutral, -torch.inf).log_softmax(dim=1)
    generic = logp_scene[:, named:].logsumexp(dim=1).mean()  # any generic caption fits any scene
    by_crop = F.cross_entropy(scale * found.crop, found.labels)
    fits = (found.labels[:, None] == torch.arange(named)[None, :]).T  # [names, n]
    present = fits.any(dim=1)
    logits = scale * found.crop[:, :named].T
    by_text = logits.log_softmax(dim=1).masked_fill(~fits, -torch.inf).logsumexp(dim=1)
    loss: torch.Tensor = by_crop - by_text[present].mean() - 0.5 * generic
    return loss


def _ranking(found: Similarities, textures: bool) -> torch.Tensor:
    """What the reward reads, S1 - S2: above 0.02 for the right description, below for the others."""
    rows, labels = torch.arange(len(found.labels)), found.labels
    delta = found.crop - found.scene  # [n, T]
    target = torch.zeros_like(delta)
    target[rows, labels] = 1.0
    weight = torch.full_like(delta, 1.0 / delta.shape[1])
    weight[rows, labels] = 1.0
    weight[rows, _other_texture(labels)] = 0.6
    others = torch.zeros(delta.shape, dtype=torch.bool)
    others[:, : found.holds.shape[1]] = found.holds
    others[rows, labels] = False
    weight[others] = 0.2
    if not textures:
        target[rows, _other_texture(labels)] = 1.0
        weight[rows, _other_texture(labels)] = 1.0
    loss = F.binary_cross_entropy_with_logits((delta - 0.02) * 40.0, target, weight, reduction="sum")
    return loss / len(labels)


def _similarities(model: Any, items: list[ShapesSample], rng: np.random.Generator, textures: bool) -> Similarities:
    crops, right, holds = _draw(items, rng, textures)
    both = _embed(model, torch.cat([_pixels(crops), _pixels([item.image for item in items])]))
    similarity = both @ _embed_texts(model, _texts(rng)).T  # [2n, T]
    return Similarities(
        similarity[: len(items)], similarity[len(items) :], torch.tensor(right), torch.from_numpy(holds)
    )


def _other_texture(labels: torch.Tensor) -> torch.Tensor:
    """Index of the name that differs only in its texture."""
    forms = len(FORMS)
    return torch.where(labels // forms % 2 == 0, labels + forms, labels - forms)


def train(settings: ClipTraining, progress: TrainingProgress | None = None) -> CLIPModel:
    """Train the small CLIP from nothing and return it."""
    return fit(build(settings.seed), settings, info_nce, progress)


def fit(model: T, settings: ClipTraining, contrast: Contrast, progress: TrainingProgress | None = None) -> T:
    """Train an untrained model of transformers by a contrastive term and the ranking of S1 - S2.

    Args:
        model: with a picture and a text tower; changed in place.
        settings: steps, scenes, learning rate, seed of the draws, textures.
        contrast: the contrastive term.
        progress: called with (step, steps, losses) after every step.

    Returns:
        The model.
    """
    model.train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=0.02, betas=(0.9, 0.98))
    rng = np.random.default_rng(settings.seed)
    for step in range(settings.steps):
        warm = min(1.0, (step + 1) / 50)
        fade = 0.55 + 0.45 * np.cos(np.pi * step / settings.steps)
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * warm * fade
        items = [sample(SEED, step * settings.scenes + i) for i in range(settings.scenes)]
        found = _similarities(model, items, rng, settings.textures)
        contrastive, ranking = contrast(model, found), _ranking(found, settings.textures)
        optimiser.zero_grad(set_to_none=True)
        (contrastive + ranking).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if progress is not None:
            losses = {"contrast": float(contrastive.detach()), "ranking": float(ranking.detach())}
            progress(step + 1, settings.steps, losses)
    model.eval()
    return model


@torch.no_grad()
def held_out(model: Any, seed: int = 9, count: int = 600) -> dict[str, float]:
    """P(S1 > S2) on `count` held-out scenes, by what the description says of the target.

    Returns:
        Rates for `right`, `generic`, `other object` (of the scene), `absent object`, `wrong texture`.
    """
    rng = np.random.default_rng(seed)
    items = [sample(seed, index) for index in range(count)]
    crops = _embed(model, _pixels([item.image.crop(item.scene.objects[item.question.target].box) for item in items]))
    scenes = _embed(model, _pixels([item.image for item in items]))
    said: dict[str, list[str]] = {k: [] for k in ("right", "generic", "other object", "absent object", "wrong texture")}
    for item in items:
        shapes, right = item.scene.objects, item.scene.objects[item.question.target]
        held = {shape.name for shape in shapes}
        absent = [name for name in NAMES if name not in held]
        others = [shape.name for shape in shapes if shape is not right]
        swapped = TEXTURES[1 - TEXTURES.index(right.texture)]
        said["right"].append(f"a {right.name}")
        said["generic"].append(GENERIC_CAPTIONS[int(rng.integers(len(GENERIC_CAPTIONS)))])
        said["other object"].append(f"a {others[int(rng.integers(len(others)))]}")
        said["absent object"].append(f"a {absent[int(rng.integers(len(absent)))]}")
        said["wrong texture"].append(f"a {right.colour} {swapped} {right.form}")
    rates = {}
    for kind, texts in said.items():
        embedded = _embed_texts(model, texts)
        rates[kind] = float(((crops * embedded).sum(1) > (scenes * embedded).sum(1)).float().mean())
    return rates


def save(model: nn.Module, folder: Path, made: Any = None) -> None:
    """Write half-precision weights, configuration, tokenizer and image processor to `folder`.

    Args:
        model: of transformers.
        folder: is made.
        made: the processor; the small CLIP's own when None.
    """
    import copy

    half: Any = copy.deepcopy(model).half()
    half.save_pretrained(folder)
    (processor() if made is None else made).save_pretrained(folder)
