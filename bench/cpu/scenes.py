"""What the mask and polygon benchmarks look at: 128 blobs of 40 vertices on 640 x 480, seeded."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

HEIGHT, WIDTH, COUNT, VERTICES = 480, 640, 128, 40

Array = np.ndarray[Any, Any]


@functools.cache
def blobs(seed: int) -> list[Array]:
    """Outlines float64 [40, 2]: wobbling circles of 30 to 200 pixels across, all inside the picture."""
    rng = np.random.default_rng(seed)
    turn = np.linspace(0, 2 * np.pi, VERTICES, endpoint=False)
    out = []
    for _ in range(COUNT):
        radius = rng.uniform(15, 100)
        centre = rng.uniform([radius, radius], [WIDTH - radius, HEIGHT - radius])
        wobble = radius * (0.75 + 0.25 * np.sin(turn * rng.integers(2, 6) + rng.uniform(0, 6)))
        out.append(centre + np.stack([np.cos(turn), np.sin(turn)], axis=1) * wobble[:, None])
    return out


def draw(outlines: list[Array]) -> Array:
    """Bool [N, 480, 640]."""
    import cv2

    canvas = np.zeros((len(outlines), HEIGHT, WIDTH), np.uint8)
    for mask, outline in zip(canvas, outlines, strict=True):
        cv2.fillPoly(mask, [outline.astype(np.int32)], 1)
    return canvas.astype(bool)


@functools.cache
def masks(seed: int, count: int = COUNT) -> Array:
    """The first `count` blobs of a seed, drawn: bool [count, 480, 640]."""
    return draw(blobs(seed)[:count])
