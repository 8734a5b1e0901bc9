"""What tests and benchmarks share: devices, tolerances, and memory in which forgotten elements show."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

REQUIRE_CUDA = "DPAD_FAST_REQUIRE_CUDA"

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
"""Absolute and relative tolerance against a float64 reference, for values around 1: a few units in the last place."""


def cases(count: int) -> int:
    """How many random cases a property is tried on: `count` times DPAD_FAST_CASES (1), as `make thorough` sets it."""
    return count * int(os.environ.get("DPAD_FAST_CASES", "1"))


def noisy_pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """A picture [height, width, channels] half of which is black or white: sums of it overshoot 0 and 255."""
    rng = np.random.default_rng([seed, height, width])
    pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    extreme = rng.integers(0, 2, (height, width, channels), dtype=np.uint8) * 255
    return np.where(rng.random((height, width, channels)) < 0.5, pixels, extreme)


def missing_cuda() -> str | None:
    """Why tests that need a GPU should be skipped.

    Returns:
        The reason, or None where they should run: there is a GPU, or DPAD_FAST_REQUIRE_CUDA=1 says that there must be
        one, so that they fail where it cannot be used.
    """
    if torch.cuda.is_available() or os.environ.get(REQUIRE_CUDA) == "1":
        return None
    return f"needs a GPU, and torch finds none ({REQUIRE_CUDA}=1 makes this a failure)"


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Let torch fill what it allocates with NaN or the largest integer, so that an element never written is seen."""
    deterministic: Any = torch.utils.deterministic  # a module whose attribute torch does not declare
    before = torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        deterministic.fill_uninitialized_memory = before[1]
