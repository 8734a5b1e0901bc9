"""Training of the small CLIP that stands in for CLIP ViT-B/32 in the shapes world.

It is a stock transformers `CLIPModel` (0.5 M parameters, 48-pixel pictures). The loss has two terms, both over every
description that the world knows. InfoNCE compares crops and whole scenes with descriptions. The ranking term is about
what the reward reads, S1 - S2: it must be positive for the right description of a crop and negative for every other
one. A description with the wrong texture weighs more there, because InfoNCE alone learns texture last. InfoNCE leaves
out a scene with the names of its own shapes, which are neither right nor wrong descriptions of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

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


@dataclass(frozen=True)
class ClipTraining:
    """How the small CLIP is trained.

    Attributes:
        steps: optimiser steps.
        scenes: scenes a step; each gives the whole picture and one crop.
        lr: peak learning rate of AdamW: a cosine down to a tenth, times a linear warm-up over the first 50 steps.
        seed: of the weights and of the draws.
    """

    steps: int = 400
    scenes: int = 64
    lr: float = 1.5e-3
    seed: int = 0


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


def _embed(model: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    hidden = model.vision_model(pixel_values=pixels).pooler_output
    return F.normalize(model.visual_projection(hidden), dim=-1)


def _embed_texts(model: CLIPModel, texts: list[str]) -> torch.Tensor:
    tokens = caption_tokenizer()(texts, padding=True, return_tensors="pt")
    hidden = model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).pooler_output
    return F.normalize(model.text_projection(hidden), dim=-1)


def _texts(rng: np.random.Generator) -> list[str]:
    """Every name in a template drawn at random, then the generic captions."""
    templates = [TEMPLATES[int(i)] for i in rng.integers(len(TEMPLATES), size=len(NAMES))]
    names = [template.format(name) for template, name in zip(templates, NAMES, strict=True)]
    return [*names, *GENERIC_CAPTIONS, *OTHER_GENERIC]


def _draw(
    items: list[ShapesSample], rng: np.random.Generator
) -> tuple[list[Image.Image], list[int], NDArray[np.bool_]]:
    """One crop of each scene, which name it has, and which names each scene holds, [n, names]."""
    crops, right = [], []
    holds = np.zeros((len(items), len(NAMES)), dtype=bool)
    for row, item in enumerate(items):
        chosen = item.scene.objects[int(rng.integers(len(item.scene.objects)))]
        crops.append(item.image.crop(chosen.box))
        right.append(NAMES.index(chosen.name))
        for shape in item.scene.objects:
            holds[row, NAMES.index(shape.name)] = True
    return crops, right, holds


def _loss(model: CLIPModel, items: list[ShapesSample], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """InfoNCE and ranking terms of one batch."""
    crops, right, holds = _draw(items, rng)
    count, named = len(items), len(NAMES)
    both = _embed(model, torch.cat([_pixels(crops), _pixels([item.image for item in items])]))
    texts = _embed_texts(model, _texts(rng))  # [T, 64]
    similarity = both @ texts.T  # [2n, T]
    crop, scene = similarity[:count], similarity[count:]

    labels = torch.tensor(right)
    scale = model.logit_scale.exp().clamp(max=60.0)
    neutral = torch.zeros(count, texts.shape[0], dtype=torch.bool)
    neutral[:, :named] = torch.from_numpy(holds)
    logp_scene = (scale * scene).masked_fill(neutral, -torch.inf).log_softmax(dim=1)
    generic = logp_scene[:, named:].logsumexp(dim=1).mean()  # any generic caption fits any scene
    by_crop = F.cross_entropy(scale * crop, labels)
    fits = (labels[:, None] == torch.arange(named)[None, :]).T  # [names, n]
    present = fits.any(dim=1)
    by_text = (scale * crop[:, :named].T).log_softmax(dim=1).masked_fill(~fits, -torch.inf).logsumexp(dim=1)
    contrastive = by_crop - by_text[present].mean() - 0.5 * generic

    delta = crop - scene  # [n, T]; what the reward reads
    target = torch.zeros_like(delta)
    target[torch.arange(count), labels] = 1.0
    weight = torch.full_like(delta, 1.0 / delta.shape[1])
    weight[torch.arange(count), labels] = 1.0
    weight[torch.arange(count), _other_texture(labels)] = 0.6
    rows, columns = np.nonzero(holds)
    others = torch.zeros_like(neutral)
    others[rows, columns] = True
    others[torch.arange(count), labels] = False
    weight[others] = 0.2
    ranking = F.binary_cross_entropy_with_logits((delta - 0.02) * 40.0, target, weight, reduction="sum") / count
    return contrastive, ranking


def _other_texture(labels: torch.Tensor) -> torch.Tensor:
    """Index of the name that differs only in its texture."""
    forms = len(FORMS)
    return torch.where(labels // forms % 2 == 0, labels + forms, labels - forms)


def train(settings: ClipTraining, progress: TrainingProgress | None = None) -> CLIPModel:
    """Train the small CLIP from nothing and return it."""
    model = build(settings.seed).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=0.02, betas=(0.9, 0.98))
    rng = np.random.default_rng(settings.seed)
    for step in range(settings.steps):
        warm = min(1.0, (step + 1) / 50)
        fade = 0.55 + 0.45 * np.cos(np.pi * step / settings.steps)
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * warm * fade
        items = [sample(SEED, step * settings.scenes + i) for i in range(settings.scenes)]
        contrastive, ranking = _loss(model, items, rng)
        optimiser.zero_grad(set_to_none=True)
        (contrastive + ranking).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if progress is not None:
            progress(
                step + 1, settings.steps, {"infonce": float(contrastive.detach()), "ranking": float(ranking.detach())}
            )
    return model.eval()


@torch.no_grad()
def held_out(model: CLIPModel, seed: int = 9, count: int = 600) -> dict[str, float]:
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


def save(model: CLIPModel, folder: Path) -> None:
    """Write half-precision weights, configuration, tokenizer and image processor to `folder`."""
    import copy

    copy.deepcopy(model).half().save_pretrained(folder)
    processor().save_pretrained(folder)
