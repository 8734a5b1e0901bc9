"""Where the kernels of these tests run."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture
def device() -> torch.device:
    """The GPU, or the CPU in Triton's interpreter."""
    pytest.importorskip("triton")
    return torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for `device` here is a test of a GPU; the interpreter stands in where there is none."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and "device" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.gpu(interpreter=True))
