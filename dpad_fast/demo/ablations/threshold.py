"""The threshold of the arm that looks at the region only (S1 > tau): the one that serves it best."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from dpad_fast.data.shapes import TEXTURES, ShapesSample, sample
from dpad_fast.data.shapes_text import GENERIC_CAPTIONS, caption_of
from dpad_fast.train.warm_start.small_clip import NAMES

if TYPE_CHECKING:
    from dpad_fast.clip import ClipEncoder


def best_tau(encoder: ClipEncoder, seed: int = 1, count: int = 400) -> tuple[float, float]:
    """The threshold on S1 that best tells right descriptions from wrong ones.

    The wrong ones are in equal parts generic, of another object of the scene, of an absent object, and of the target
    with the wrong texture. Best is the highest mean of the share of right ones above and of wrong ones not above.

    Args:
        encoder: the CLIP of the arm.
        seed: the world; that of training, since the arm may be given all that helps it.
        count: scenes.

    Returns:
        The threshold, halfway between two values of S1 and rounded to two digits, and its balanced accuracy in 0..1.
    """
    rng = np.random.default_rng(seed)
    items = [sample(seed, index) for index in range(count)]
    texts = [text for item in items for text in _descriptions(item, rng)]  # five a scene, the right one first
    boxes = [item.scene.objects[item.question.target].box for item in items]
    regions = encoder.embed_images([item.image for item in items], boxes)  # [count, D]
    known = list(dict.fromkeys(texts))
    place = {text: i for i, text in enumerate(known)}
    embedded = encoder.embed_texts(known)[[place[text] for text in texts]].reshape(count, 5, -1)
    s1 = torch.einsum("nd,nkd->nk", regions, embedded).double().numpy()
    right, wrong = np.sort(s1[:, 0]), np.sort(s1[:, 1:].ravel())
    values = np.unique(np.concatenate([right, wrong]))
    taus = np.round((values[1:] + values[:-1]) / 2, 2)
    above = 1 - np.searchsorted(right, taus, side="right") / len(right)
    below = np.searchsorted(wrong, taus, side="right") / len(wrong)
    best = np.flatnonzero((above + below) == (above + below).max())
    middle = int(best[len(best) // 2])  # several thresholds may be equally good
    return float(taus[middle]), float((above + below)[middle] / 2)


def _descriptions(item: ShapesSample, rng: np.random.Generator) -> Iterator[str]:
    shapes, target = item.scene.objects, item.scene.objects[item.question.target]
    held = {shape.name for shape in shapes}
    others = [shape for shape in shapes if shape is not target]
    absent = [name for name in NAMES if name not in held]
    swapped = TEXTURES[1 - TEXTURES.index(target.texture)]
    yield caption_of(target)
    yield GENERIC_CAPTIONS[int(rng.integers(len(GENERIC_CAPTIONS)))]
    yield caption_of(others[int(rng.integers(len(others)))])
    yield f"a {absent[int(rng.integers(len(absent)))]}"
    yield f"a {target.colour} {swapped} {target.form}"
