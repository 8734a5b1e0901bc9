"""Inputs of random tests: how many of them, and pictures that stress resampling."""

import os

import numpy as np
from numpy.typing import NDArray


def cases(count: int) -> int:
    """How many random cases a property is tried on: `count` times DPAD_FAST_CASES (1), as `make thorough` sets it."""
    return count * int(os.environ.get("DPAD_FAST_CASES", "1"))


def noisy_pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """A picture [height, width, channels] half of which is black or white: sums of it overshoot 0 and 255."""
    rng = np.random.default_rng([seed, height, width])
    pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    extreme = rng.integers(0, 2, (height, width, channels), dtype=np.uint8) * 255
    return np.where(rng.random((height, width, channels)) < 0.5, pixels, extreme)
