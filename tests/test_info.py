"""`dpad_fast.info` says for each GPU what it is and which attention encoders use there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from dpad_fast import info
from dpad_fast.clip.tower import gpu_attention
from dpad_fast.clip.tower.gpu_attention import Offer

GPUS = ((8, 0), (9, 0), (10, 0), (7, 5))


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def properties(index: int) -> SimpleNamespace:
        major, minor = GPUS[index]
        return SimpleNamespace(
            name="a card", major=major, minor=minor, total_memory=80 << 30, multi_processor_count=132
        )

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(GPUS))
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)


@pytest.mark.usefixtures("gpus")
def test_each_gpu_has_its_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = [Offer("flash-attn", None, "not installed"), Offer("torch's", lambda *args: args[0])]
    monkeypatch.setattr(gpu_attention, "offers", lambda: iter(offers))
    rows = info.collect()["GPU"]
    assert rows["cuda:1"] == "a card, sm_90, 80 GiB, 132 multiprocessors"
    named = [rows[f"cuda:{index}, encoders' attention"] for index in range(len(GPUS))]
    assert named[:3] == ["torch's (flash-attn: not installed)"] * 3
    assert named[3].startswith("padded attention (others need compute capability 8.0")


@pytest.mark.usefixtures("gpus")
def test_the_report_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(gpu_attention, "offers", fails)
    assert info.collect()["GPU"]["cuda:0, encoders' attention"] == "unknown: RuntimeError: CUDA error: out of memory"
