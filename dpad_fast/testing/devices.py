"""Devices of tests: whether there is a GPU, and memory that shows elements that were never written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

REQUIRE_CUDA = "DPAD_FAST_REQUIRE_CUDA"


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
