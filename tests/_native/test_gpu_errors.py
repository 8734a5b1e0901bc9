"""A GPU that fails is no mistake of the caller's and chooses no slower way: its error is raised as it is."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import pytest
import torch

import dpad_fast as df
from dpad_fast._native.gpu_errors import has_no_kernel, is_gpu_failure
from dpad_fast.clip import features, load
from dpad_fast.model_size import whole_size
from dpad_fast.ops import _mask_values, masks, packed_masks

front = import_module("dpad_fast.ops.discriminative_reward")  # the package's name is the function's
ILLEGAL = "CUDA error: an illegal memory access was encountered"
FAILURES = {
    "out of memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "illegal access": RuntimeError(ILLEGAL),
    "missing kernel": RuntimeError("CUDA error: no kernel image is available for execution on the device"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    "Triton": RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
}
if hasattr(torch, "AcceleratorError"):
    FAILURES["accelerator"] = torch.AcceleratorError(ILLEGAL)
failing = pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)


@failing
def test_a_failure_is_known(failure: Exception) -> None:
    assert is_gpu_failure(failure)
    assert has_no_kernel(failure) == ("no kernel image" in str(failure))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("a Tensor with 2 elements cannot be converted to Scalar"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        ValueError("CUDA error: written by somebody"),
        MemoryError(),
    ],
)
def test_other_errors_are_none(error: Exception) -> None:
    assert not is_gpu_failure(error)
    assert not has_no_kernel(error)


class Failing:
    """A value that lies on a GPU that fails when it is read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __float__(self) -> float:
        raise self.error

    def tolist(self) -> list[float]:
        raise self.error

    def detach(self) -> Failing:
        raise self.error


@failing
def test_numbers_that_cannot_be_read(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    value: Any = Failing(failure)

    def refuse(*_args: object, **_named: object) -> None:
        raise failure

    for read in (lambda: front._number(value, "alpha"), lambda: _mask_values._as_threshold(value)):
        with pytest.raises(type(failure), match=re.escape(str(failure))):
            read()
    with pytest.raises(type(failure), match=re.escape(str(failure))):
        df.Target(box=value, image_size=(9, 9))
    with pytest.raises(type(failure), match=re.escape(str(failure))):
        whole_size(value, "image_size")
    monkeypatch.setattr(torch, "as_tensor", refuse)
    for read in (
        lambda: masks._as_crowd([True], 1),
        lambda: packed_masks._as_index([0], 1, torch.device("cpu")),
    ):
        with pytest.raises(type(failure), match=re.escape(str(failure))):
            read()


@failing
def test_an_encoder_that_cannot_be_loaded(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_named: object) -> None:
        raise failure

    monkeypatch.setattr(load.ClipEncoder, "from_transformers", refuse)
    with pytest.raises(type(failure), match=re.escape(str(failure))):
        df.load_encoder("shapes")


@failing
def test_a_context_that_is_tried(failure: Exception) -> None:
    class Model(torch.nn.Module):
        context_length = 77

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def encode_text(self, _ids: torch.Tensor) -> None:
            raise failure

    class Tokenizer:
        context_length = 20

        def __call__(self, texts: list[str], context_length: int) -> torch.Tensor:
            return torch.zeros(len(texts), context_length, dtype=torch.long)

    with pytest.raises(type(failure), match=re.escape(str(failure))):
        features.open_clip_context(Model(), Tokenizer())
