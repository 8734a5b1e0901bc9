"""Which products an instruction set gets, for any processor: the report of instruction sets is replaced."""

from __future__ import annotations

import pytest
import torch

import dpad_fast as df
from dpad_fast._native import extension as _extension
from dpad_fast.clip.tower.choose import _cpu_towers
from dpad_fast.clip.tower.weights import read_weights

TORCH, OWN = "TorchProducts float32", "NativeProducts float32"
INT16, I8MM = "NativeProducts int16", "NativeProducts int16 on I8MM"
AMX = ("NativeProducts float32 on AMX", "NativeProducts int16 on AMX")


def pretend(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    real = _extension.C.simd_report()
    monkeypatch.setattr(_extension.C, "simd_report", lambda: {**real, "tower": level})


@pytest.mark.parametrize(
    ("level", "precision", "expected"),
    [
        ("scalar", "float32", [(TORCH, TORCH)]),
        ("scalar", "guarded", [(TORCH, TORCH)]),
        ("neon", "float32", [(OWN, OWN)]),
        ("neon", "bfloat16", [(OWN, OWN)]),
        ("neon", "guarded", [(OWN, OWN)]),
        ("i8mm", "float32", [(OWN, OWN)]),
        ("i8mm", "bfloat16", [(TORCH, I8MM)]),
        ("i8mm", "guarded", [(TORCH, I8MM)]),
        ("avx512", "float32", [(OWN, OWN)]),
        ("avx512", "guarded", [(TORCH, INT16)]),
        ("amx", "float32", [AMX, (OWN, OWN)]),
        ("amx", "guarded", [AMX, (TORCH, INT16)]),
    ],
)
def test_a_level_has_its_products(tiny, monkeypatch, level, precision, expected):
    pretend(monkeypatch, level)
    found = list(_cpu_towers(read_weights(tiny[0]), precision))

    def named(towers):
        return f"{type(towers.products).__name__} {towers.products.name}"

    assert [(named(towers[True]), named(towers[False])) for towers in found] == expected


@pytest.mark.parametrize(("level", "reduced"), [("neon", "float32"), ("i8mm", "int16 on I8MM")])
def test_a_guarded_encoder_of_an_arm(tiny, monkeypatch, level, reduced):
    exact = df.ClipEncoder.from_transformers(*tiny, precision="float32")
    pretend(monkeypatch, level)
    guarded = df.ClipEncoder.from_transformers(*tiny, precision="guarded")
    assert guarded.forward["float32"].split(",")[0] == "float32"
    assert guarded.forward["reduced"].split(",")[0] == reduced
    ids = guarded.tokens.encode(["a red cat", "a dog", "a red hat"])
    torch.testing.assert_close(guarded.embed_ids(ids, exact=True), exact.embed_ids(ids), atol=1e-6, rtol=0)
    torch.testing.assert_close(guarded.embed_ids(ids), exact.embed_ids(ids), atol=2e-3, rtol=0)
