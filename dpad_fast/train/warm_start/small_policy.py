"""Warm start of the small policy: dense training of its vision tower, then supervised training of its language model.

Supervised training from scratch does not learn to localise. So the vision tower is trained first: for every merged
token it predicts the colour, form, texture and box of the shape there. Then it is frozen, and the language model is
trained on the completions of a `Mixture`, and in a share of the batches on lists of the shapes with their boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from dpad_fast.data.shapes import COLOURS, FORMS, GRID, SIDE, TEXTURES, ShapesSample, sample
from dpad_fast.data.shapes_text import Mixture, completion_of, listing_of, policy_tokenizer
from dpad_fast.train.policy import build_processor

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

VISION_SEED, LANGUAGE_SEED = 72, 73  # worlds that the two stages draw their scenes from
CELL = 28  # pixels, side of what one merged token sees
CELLS = SIDE // CELL
NOWHERE = SIDE // GRID + 1  # class of a coordinate where there is no shape; the classes before it are grid lines
WORDS = ((*COLOURS, "background"), (*FORMS, "background"), (*TEXTURES, "background"))

TrainingProgress = Callable[[int, int, dict[str, float]], None]
"""Called with (step, steps, losses) after every step."""

T = TypeVar("T")


@dataclass(frozen=True)
class TrainingStage:
    """One stage of supervised training.

    Attributes:
        steps: optimiser steps.
        batch: scenes a step.
        lr: peak learning rate of AdamW: a cosine down to a twentieth, times a linear warm-up over the first 50 steps.
        seed: of the draws; also moves the scenes, so that no two stages see the same.
    """

    steps: int
    batch: int
    lr: float
    seed: int = 0


def _schedule(optimiser: torch.optim.Optimizer, stage: TrainingStage, step: int) -> None:
    fade = 0.525 + 0.475 * np.cos(np.pi * step / stage.steps)
    for group in optimiser.param_groups:
        group["lr"] = stage.lr * min(1.0, (step + 1) / 50) * fade


def _scenes(seed: int, stage: TrainingStage, step: int) -> list[ShapesSample]:
    first = stage.seed * 10_000_000 + step * stage.batch
    return [sample(seed, first + i) for i in range(stage.batch)]


def _prefetched(make: Callable[[int], T], steps: int) -> Iterator[T]:
    """Yields `make(0)`, `make(1)`, ...; a thread makes the next one while the caller trains on this one."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(make, 0)
        for step in range(1, steps):
            current, following = following, pool.submit(make, step)
            yield current.result()
        yield following.result()


class DenseHeads(nn.Module):
    """Read-outs of one merged token: colour, form and texture (or background), and the four box coordinates (or none).

    Colour, form and texture are read with the language model's own embeddings of those words, which are not trained
    here. So a picture token learns to hold the words that describe it, and the language model can find the place that
    a word describes by one rule for all words. The four coordinates share the same words, so a linear head reads them.
    Where there is no shape every property has a class for that: an untrained token would match words by chance.

    Args:
        embeddings: [vocabulary, width], the language model's token embeddings.
    """

    def __init__(self, embeddings: torch.Tensor) -> None:
        super().__init__()
        tokenizer = policy_tokenizer()
        for kind, words in enumerate(WORDS):
            ids = tokenizer.convert_tokens_to_ids([f" {word}" for word in words])
            self.register_buffer(f"words_{kind}", embeddings[ids].detach().clone())
        self.coordinates = nn.Linear(embeddings.shape[1], 4 * (NOWHERE + 1))

    def forward(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """Logits of each of the seven properties, [tokens, classes] each."""
        words = [tokens @ self.get_buffer(f"words_{kind}").T for kind in range(3)]
        return [*words, *self.coordinates(tokens).split(NOWHERE + 1, dim=-1)]


def dense_labels(item: ShapesSample) -> NDArray[np.int64]:
    """[16, 7]: for each cell in reading order, the properties of the shape that covers most of it, or of background.

    A shape covers a cell by its box, and by a fifth of the cell at least.
    """
    nothing = [*(len(words) - 1 for words in WORDS), *[NOWHERE] * 4]
    labels = np.tile(np.array(nothing, dtype=np.int64), (CELLS * CELLS, 1))
    covered = np.full(CELLS * CELLS, CELL * CELL // 5)  # less than a fifth of the cell counts as nothing
    for shape in item.scene.objects:
        x1, y1, x2, y2 = shape.box
        for cell in range(CELLS * CELLS):
            left, top = cell % CELLS * CELL, cell // CELLS * CELL
            wide, high = min(x2, left + CELL) - max(x1, left), min(y2, top + CELL) - max(y1, top)
            if wide > 0 and high > 0 and wide * high > covered[cell]:
                covered[cell] = wide * high
                kinds = [list(COLOURS).index(shape.colour), FORMS.index(shape.form), TEXTURES.index(shape.texture)]
                labels[cell] = [*kinds, *(v // GRID for v in shape.box)]
    return labels


def train_vision(
    model: Qwen2_5_VLForConditionalGeneration, stage: TrainingStage, progress: TrainingProgress | None = None
) -> float:
    """Train the vision tower densely, in place.

    Returns:
        Share of the last 20 batches' covered cells whose seven properties are all right.
    """
    images = build_processor().image_processor
    visual = model.model.visual
    torch.manual_seed(stage.seed)
    heads = DenseHeads(model.get_input_embeddings().weight)
    trained = [*visual.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(trained, lr=stage.lr, weight_decay=0.01)
    right: list[float] = []

    def batch(step: int) -> tuple[Any, torch.Tensor]:
        items = _scenes(VISION_SEED, stage, step)
        labels = np.concatenate([dense_labels(item) for item in items])  # [16 n, 7]
        return images([item.image for item in items], return_tensors="pt"), torch.from_numpy(labels)

    for step, (inputs, labels) in enumerate(_prefetched(batch, stage.steps)):
        _schedule(optimiser, stage, step)
        tokens = visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        logits = heads(tokens)
        losses = [F.cross_entropy(z, labels[:, i]) for i, z in enumerate(logits)]
        loss = torch.stack(losses).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        guesses = torch.stack([z.argmax(dim=-1) for z in logits], dim=1)
        whole = (guesses == labels).all(dim=1)[labels[:, 3] != NOWHERE]
        right.append(float(whole.float().mean()))
        if progress is not None:
            progress(step + 1, stage.steps, {"loss": float(loss.detach()), "right": float(np.mean(right[-20:]))})
    return float(np.mean(right[-20:]))


def _batch(
    processor: Qwen2_5_VLProcessor, items: list[ShapesSample], prompts: Sequence[str], answers: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Model inputs with labels on the answers only."""
    turns = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}] for text in prompts]
    starts = [processor.apply_chat_template(turn) for turn in turns]
    end = processor.tokenizer.eos_token
    texts = [start + answer + end for start, answer in zip(starts, answers, strict=True)]
    inputs = processor(
        text=texts, images=[item.image for item in items], padding=True, padding_side="right", return_tensors="pt"
    )
    ids = inputs["input_ids"]
    before = (ids == processor.tokenizer.bos_token_id).long().cumsum(dim=1).eq(0) | ids.eq(
        processor.tokenizer.bos_token_id
    )
    inputs["labels"] = ids.masked_fill(before | inputs["attention_mask"].eq(0), -100)
    return dict(inputs)


def train_language(
    model: Qwen2_5_VLForConditionalGeneration,
    mixture: Mixture,
    stage: TrainingStage,
    *,
    listing: float = 0.0,
    progress: TrainingProgress | None = None,
) -> None:
    """Supervised training of the language model on a mixture, in place; the vision tower stays as it is.

    Args:
        model: the policy.
        mixture: what completions are drawn from.
        stage: steps, batch, learning rate and seed.
        listing: share of the batches that list shapes with their boxes (`listing_of`) instead of answering.
        progress: called with (step, steps, losses) after every step.
    """
    processor = build_processor()
    model.model.visual.requires_grad_(False)
    model.train()
    rng = np.random.default_rng([stage.seed, 1])
    torch.manual_seed(stage.seed)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=stage.lr, weight_decay=0.01, betas=(0.9, 0.98))
    losses = {"listing": float("nan"), "answer": float("nan")}

    def batch(step: int) -> tuple[bool, dict[str, torch.Tensor]]:
        items = _scenes(LANGUAGE_SEED, stage, step)
        if rng.random() < listing:
            prompts, lists = zip(*(listing_of(item, rng) for item in items), strict=True)
            return True, _batch(processor, items, prompts, lists)
        answers = [completion_of(item, mixture, rng) for item in items]
        return False, _batch(processor, items, [item.query for item in items], answers)

    for step, (lists, inputs) in enumerate(_prefetched(batch, stage.steps)):
        _schedule(optimiser, stage, step)
        loss = model(**inputs).loss
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        losses["listing" if lists else "answer"] = float(loss.detach())
        if progress is not None:
            progress(step + 1, stage.steps, losses)
    model.eval()


def save(model: Qwen2_5_VLForConditionalGeneration, folder: Path) -> None:
    """Write half-precision weights, configuration, tokenizer and processor to `folder`."""
    import copy

    copy.deepcopy(model).half().save_pretrained(folder)
    build_processor().save_pretrained(folder)
