"""Packages, files and the GPU that a configuration asks for: named before anything is loaded."""

import importlib.util

import pytest

from dpad_fast.train.config import from_dict
from dpad_fast.train.packages import check_packages


@pytest.mark.parametrize(
    ("values", "missing", "complaint"),
    [
        ({"lora": {"r": 8}}, {"peft"}, r"lora\.r needs the package peft.*pip install 'dpad-fast\[lora\]'"),
        ({"device": "auto", "vllm": {"mode": "server"}}, {"vllm"}, r"vllm\.mode needs the package vllm.*\[vllm\]"),
        ({"device": "auto", "grpo": {"deepspeed": "x"}}, {"deepspeed"}, r"grpo\.deepspeed needs the package deepspeed"),
        (
            {"device": "auto", "attention": "flash_attention_2"},
            {"flash_attn", "kernels"},
            r"attention 'flash_attention_2' needs the package flash_attn, .*\[flash\]",
        ),
        ({"attention": "some/kernels"}, {"kernels"}, r"attention 'some/kernels' needs the package kernels"),
        ({}, {"trl"}, r"training needs the package trl, .*\[train\]"),
    ],
)
def test_a_missing_package_is_one_line(monkeypatch, values, missing, complaint):
    config = from_dict(values)
    found = importlib.util.find_spec
    here = {"trl", "peft", "vllm", "deepspeed", "flash_attn", "kernels"} - missing
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in missing else name in here or found(name)
    )
    with pytest.raises(ValueError, match=complaint) as error:
        check_packages(config)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with pytest.raises(ValueError, match=r"grpo\.fsdp: there is no file 'no/fsdp\.yaml'"):
        check_packages(from_dict({"device": "auto", "grpo": {"fsdp": "no/fsdp.yaml"}}))


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float16", "float32"])
@pytest.mark.parametrize("there", [True, False])
def test_a_missing_gpu_is_named(monkeypatch, dtype, there):
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    monkeypatch.setattr("transformers.utils.is_torch_bf16_gpu_available", lambda: there)
    config = from_dict({"device": "auto", "dtype": dtype})
    if there or dtype == "float32":
        check_packages(config)
        return
    shown = "float16" if dtype == "float16" else "bfloat16"
    with pytest.raises(ValueError, match=f"device auto finds no GPU here that computes in {shown}: set device to cpu"):
        check_packages(config)
    check_packages(from_dict({"device": "cpu", "dtype": "float32"}))
