"""Where the kernels of these tests run."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The GPU, or the CPU in Triton's interpreter."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        return torch.device("cuda")
    _as_from_triton_3_7(monkeypatch)
    return torch.device("cpu")


def _as_from_triton_3_7(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the interpreter of Triton 3.2 to 3.6 run with NumPy 2.5.

    It calls `int` on arrays of one element, of which NumPy 2.5 takes those without dimensions only. From 3.7 Triton
    drops the dimensions first, and so does this.
    """
    import triton
    from triton.runtime import interpreter

    if tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 7):
        return
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, *scope: Any) -> None:
        patch(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.squeeze())

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for `device` here is a test of a GPU; the interpreter stands in where there is none."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and "device" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.gpu(interpreter=True))
