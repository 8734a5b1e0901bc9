"""Which forwards an encoder gets: by instruction set, by GPU, by the model's sizes, and never because of an error."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import dpad_fast as df
from dpad_fast._native import extension as _extension
from dpad_fast.clip.tokens import Layout
from dpad_fast.clip.tower import choose, exact, forward
from dpad_fast.clip.tower.choose import _cpu_towers
from dpad_fast.clip.tower.forward import OwnForward, TowerForward
from dpad_fast.clip.tower.products import TorchProducts
from dpad_fast.clip.tower.towers import Towers
from dpad_fast.clip.tower.weights import read_weights, sizes_fit
from dpad_fast.testing.towers import own_forward

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


FAILURES = {
    "out of memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "illegal access": RuntimeError("CUDA error: an illegal memory access was encountered"),
    "missing kernel": RuntimeError("CUDA error: no kernel image is available for execution on the device"),
    "sizes": RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    "signature": TypeError("linear() got an unexpected keyword argument"),
    "index": IndexError("index 9 is out of bounds for dimension 0 with size 3"),
    "value": ValueError("wrong"),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("make", [df.ClipEncoder.from_transformers, "as on a GPU"], ids=["cpu", "gpu"])
def test_towers_that_fail_are_no_reason_for_slower_ones(tiny, monkeypatch, failure, make):
    if make == "as on a GPU":
        make = df.ClipEncoder.from_transformers
        monkeypatch.setattr("dpad_fast.clip.encoder.make_forwards", choose.gpu_forwards)

    def fails(self, rows, threads):
        raise failure

    monkeypatch.setattr(Towers, "texts", fails)
    with pytest.raises(type(failure), match=re.escape(str(failure))):
        make(*tiny)


def changed(part, **fields):
    return replace(part, **fields)


def test_sizes_that_do_not_go_together(tiny):
    """A model whose sizes differ from its type's runs by its own forward; nothing is tried that could fail."""
    weights = read_weights(tiny[0])
    assert sizes_fit(weights, 32)
    text, image = weights.text, weights.image
    layer = image.body.layers[0]
    no_bias = changed(layer, key=changed(layer.key, bias=None))
    narrow = changed(layer, down=changed(layer.down, weight=layer.down.weight[:, 1:]))
    for wrong in (
        changed(weights, image=changed(image, positions=image.positions[1:])),
        changed(weights, image=changed(image, first=image.first[1:])),
        changed(weights, image=changed(image, projection=image.projection[1:])),
        changed(weights, image=changed(image, body=changed(image.body, heads=5))),
        changed(weights, image=changed(image, body=changed(image.body, layers=()))),
        changed(weights, image=changed(image, body=changed(image.body, layers=(no_bias,)))),
        changed(weights, image=changed(image, body=changed(image.body, layers=(narrow,)))),
        changed(weights, text=changed(text, tokens=text.tokens[:, 1:])),
        changed(weights, text=changed(text, projection=text.projection[:, 1:])),
    ):
        assert not sizes_fit(wrong, 32)
    assert not sizes_fit(weights, 40)
    assert not sizes_fit(weights, 33)


def test_a_model_of_other_sizes_has_its_own_forward(tiny):
    model = copy.deepcopy(tiny[0])
    table = model.vision_model.embeddings
    # Its preprocessing makes 32 x 32 pixels, which are 16 patches of 8 x 8; this one has patches of 16 x 16.
    table.patch_size = 16
    assert choose.make_forwards(model, CPU, "float32", own_forward, [(0, 5, 1)], 32).exact.name.endswith("own forward")


CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "kinds"),
    [
        ((7, 5), ("float16",)),
        ((8, 0), ("float16", "bfloat16", "tf32")),
        ((9, 0), ("float16", "bfloat16", "tf32")),
        ((10, 0), ("float16", "bfloat16", "tf32")),
    ],
)
def test_precisions_that_a_gpu_is_measured_in(monkeypatch, capability, kinds):
    there = torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability if device == there else None)
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    assert choose.reduced_kinds(there, "guarded") == kinds
    assert choose.reduced_kinds(there, "bfloat16") == ("float16", "bfloat16")
    assert choose.reduced_kinds(there, "float32") == ()
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: False)
    assert "tf32" not in choose.reduced_kinds(there, "guarded")


class Elsewhere:
    """A module or towers that say that they are on a second GPU, and what they were called under."""

    def __init__(self, device):
        self.device, self.products, self.seen = device, TorchProducts(), []
        self.current = None

    def note(self, *_args):
        self.seen.append((self.current, exact._turn._lock._is_owned()))
        return torch.zeros(1, 4)

    texts = images = note

    def parameters(self):
        return iter([SimpleNamespace(device=self.device, dtype=torch.float32)])


@pytest.mark.parametrize("device", [torch.device("cuda", 1), torch.device("cuda", 0), CPU], ids=str)
def test_everything_is_launched_on_the_models_gpu(monkeypatch, device):
    """Kernels of Triton and of other packages go to the current GPU, whatever their arguments' addresses say."""
    there = Elsewhere(device)

    class Current:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            self.before, there.current = there.current, self.device

        def __exit__(self, *_error):
            there.current = self.before

    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: -1)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *_args, **_named: self)
    monkeypatch.setattr(forward, "upload", lambda parts, _device: list(parts))
    # As where torch allows TF32, whatever the tests before have left.
    monkeypatch.setattr(exact, "_force_convolutions", lambda undo: undo.append(lambda: None))
    gpu = device if device.type == "cuda" else None
    towers = TowerForward(there)
    towers.texts([(1, 2)], 1)
    towers.images(torch.zeros(1, 3, 8, 8), 1)
    assert there.seen == [(gpu, False)] * 2
    # A model's own forward has products anywhere, so the setting is made around all of it.
    own = OwnForward(
        there, lambda module, *_args: module.note(), lambda module, _pixels: module.note(), None, Layout(0)
    )
    own.texts([(1, 2)], 1)
    own.images(torch.zeros(1, 3, 8, 8), 1)
    assert there.seen[2:] == [(gpu, gpu is not None)] * 2
    assert there.current is None


def test_a_gpu_without_a_number_is_the_one_that_is_current_now(tiny, monkeypatch):
    seen = []

    def made(model, device, *rest):
        seen.append(device)
        return choose.make_forwards(model, CPU, *rest)

    monkeypatch.setattr("dpad_fast.clip.encoder.make_forwards", made)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    encoder = df.ClipEncoder.from_transformers(*tiny, device="cuda", precision="float32")
    assert seen == [encoder.device] == [torch.device("cuda", 1)]
