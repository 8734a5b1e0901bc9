"""Encoders as on a GPU: which towers they get, whether their embeddings are the model's, and where regions are made."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

import dpad_fast as df
from dpad_fast.clip.tokens import Layout
from dpad_fast.clip.tower import choose, gpu_attention
from dpad_fast.clip.tower.forward import OwnForward
from dpad_fast.clip.tower.gpu_attention import GpuProducts
from dpad_fast.clip.tower.towers import Towers
from dpad_fast.clip.tower.weights import read_weights
from dpad_fast.testing import rewards as shared

needs_gpu = pytest.mark.gpu
CPU = torch.device("cpu")


def captions(tokenizer):
    words = ["", "a", "a red", "a red cat left of a dog", "two red cats", " ".join(["cat"] * 70)]
    return [tuple(row) for row in tokenizer(words)["input_ids"]]


def one_by_one(q, k, v, part):
    """Variable-length attention, sequence by sequence."""
    out = torch.empty_like(q)
    for i in range(len(part.starts_q) - 1):
        asks, keys = (slice(int(starts[i]), int(starts[i + 1])) for starts in (part.starts_q, part.starts_k))
        query, key, value = (rows.transpose(0, 1) for rows in (q[asks], k[keys], v[keys]))
        ahead = key.shape[1] - query.shape[1]
        seen = torch.ones(query.shape[1], key.shape[1], dtype=torch.bool).tril(ahead) if part.causal else None
        out[asks] = F.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(0, 1)
    return out


@pytest.fixture
def as_on_gpu(monkeypatch):
    """Encoders are made as on a GPU with flash-attn, on the CPU."""
    from dpad_fast.clip import encoder

    monkeypatch.setattr(gpu_attention, "installed", lambda: iter([("flash-attn", one_by_one)]))

    def made(model, device, precision, own, probe, side):
        return choose._on_gpu(model, device, precision, own, probe, side) or real(
            model, device, precision, own, probe, side
        )

    real = encoder.make_forwards
    monkeypatch.setattr(encoder, "make_forwards", made)


def test_encoders_as_on_a_gpu(tiny, as_on_gpu):
    exact = "float32, packed towers, padded attention"
    reduced = "bfloat16, packed towers, flash-attn"
    for precision, names in (
        ("float32", {"float32": exact}),
        ("bfloat16", {"reduced": reduced}),
        ("guarded", {"float32": exact, "reduced": reduced}),
    ):
        encoder = df.ClipEncoder.from_transformers(*tiny, precision=precision)
        assert encoder.forward == names
        if precision == "guarded":
            assert 0 < encoder.margin < 0.2


def test_embeddings_as_on_a_gpu(tiny, as_on_gpu):
    guarded = df.ClipEncoder.from_transformers(*tiny, precision="guarded")
    exact = OwnForward(tiny[0], *own_features(), None, Layout(0))
    ids = [row for row in guarded.tokens.encode(["a red cat", "a dog", "two cats"]) if not isinstance(row, str)]
    unit = torch.nn.functional.normalize(exact.texts(ids, 1), dim=-1)
    torch.testing.assert_close(guarded.embed_ids(ids, exact=True), unit, atol=1e-6, rtol=0)
    reduced = guarded.embed_ids(ids)
    assert 0 < float((reduced - unit).abs().max()) < 3e-2


def own_features():
    return (
        lambda model, ids, _lengths: model.get_text_features(input_ids=ids).pooler_output,
        lambda model, pixels: model.get_image_features(pixel_values=pixels).pooler_output,
    )


class Scaled(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return 1.01 * self.inner(x)


def test_a_changed_model_is_left_to_itself(tiny, as_on_gpu):
    model = copy.deepcopy(tiny[0])
    mlp = model.text_model.encoder.layers[1].mlp
    mlp.activation_fn = Scaled(mlp.activation_fn)
    encoder = df.ClipEncoder.from_transformers(model, tiny[1])
    assert encoder.forward == {"float32": "float32, the model's own forward"}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "guarded"])
def test_a_gpu_that_computes_something_else_is_not_used(tiny, as_on_gpu, monkeypatch, precision):
    monkeypatch.setattr(GpuProducts, "normalise", lambda self, x, norm, threads: x)
    encoder = df.ClipEncoder.from_transformers(*tiny, precision=precision)
    assert not any("padded attention" in name or "flash-attn" in name for name in encoder.forward.values())


def test_weights_are_not_kept_twice(tiny):
    model = tiny[0]
    weights = read_weights(model)
    assert weights.text.tokens.data_ptr() == model.text_model.embeddings.token_embedding.weight.data_ptr()
    layer = model.text_model.encoder.layers[0]
    fast = Towers(weights, GpuProducts(torch.float32))
    assert fast._text.layers[0].up.weight.data_ptr() == layer.mlp.fc1.weight.data_ptr()
    assert fast._weights.text.body.layers == fast._weights.image.body.layers == ()
    half = Towers(weights, GpuProducts(torch.bfloat16))
    assert {part.weight.dtype for part in (half._text.layers[0].qkv, half._patch, *half._projections)} == {
        torch.bfloat16
    }


def test_regions_are_made_on_the_gpu(tiny, monkeypatch):
    encoder = df.ClipEncoder.from_transformers(*tiny)
    pictures = [
        SimpleNamespace(key=i, new_pixels=2000, pixels=lambda i=i: torch.full((40, 50, 3), 20 * i, dtype=torch.uint8))
        for i in (1, 2)
    ]
    regions = [(0, None), (1, (3, 4, 30, 20)), (0, (1, 2, 9, 9))]
    expected = encoder.embed_regions(pictures, regions)
    encoder.cache.clear()
    with FakeTensorMode():
        image = torch.zeros(40, 50, 3, dtype=torch.uint8, device="cuda")
        there = encoder.preprocess([image], [None, (1, 2, 9, 9)], [0, 0], torch.device("cuda"))
    assert (tuple(there.shape), there.device.type) == ((2, 3, 32, 32), "cuda")
    # The wiring: preprocessing gets the encoder's own stream and device; here it runs on the CPU.
    stream, entered, asked = SimpleNamespace(device=CPU), [], []

    def on_stream(it):
        entered.append(it)
        return nullcontext()

    def recorded(images, boxes, index, device=None):
        asked.append(device)
        return real(images, boxes, index)

    real = encoder.preprocess
    recorded.read = real.read
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", on_stream)
    encoder.preprocess, encoder.device = recorded, torch.device("cuda")
    assert torch.equal(encoder.embed_regions(pictures, regions), expected)
    assert (entered, asked) == ([stream], [CPU])


def gpu_and_cpu(tiny, precision):
    return (df.ClipEncoder.from_transformers(*tiny, precision=precision, device=device) for device in ("cuda", "cpu"))


@needs_gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2), ("guarded", 3e-2)])
def test_embeddings_on_a_gpu_are_the_cpus(tiny, precision, tolerance):
    there, here = gpu_and_cpu(tiny, precision)
    assert all("packed towers" in name for name in there.forward.values())
    ids, pictures = captions(tiny[1].tokenizer), [shared.picture(i) for i in range(4)]
    regions = [(i, box) for i in range(4) for box in (None, (3, 4, 30, 20))]
    from dpad_fast.clip.images import find_pictures

    found = find_pictures(pictures, None)[0]
    for exact in (False, True):
        close_to = tolerance if precision != "guarded" or not exact else 1e-5
        for one, other in (
            (there.embed_ids(ids, exact=exact), here.embed_ids(ids, exact=True)),
            (there.embed_regions(found, regions, exact=exact), here.embed_regions(found, regions, exact=True)),
        ):
            assert one.device == CPU
            torch.testing.assert_close(one, other, atol=close_to, rtol=0)


@needs_gpu
def test_embeddings_on_another_stream(tiny):
    there, here = gpu_and_cpu(tiny, "float32")
    ids = captions(tiny[1].tokenizer)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        found = there.embed_ids(ids)
    torch.testing.assert_close(found, here.embed_ids(ids), atol=1e-5, rtol=0)
