"""Where the kernels of these tests run."""

import os

import pytest
import torch


@pytest.fixture
def device() -> torch.device:
    """The GPU, or the CPU in Triton's interpreter."""
    pytest.importorskip("triton")
    return torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
