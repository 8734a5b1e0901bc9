"""Encoders as on a GPU: which towers they get, whether their embeddings are the model's, and where regions are made."""

import copy

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import dpad_fast as df
from dpad_fast.clip.tower import choose, gpu_attention
from dpad_fast.clip.tower.gpu_attention import GpuProducts
from dpad_fast.clip.tower.towers import Towers
from dpad_fast.clip.tower.weights import read_weights
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.towers import by_sequence, own_forward

needs_gpu = pytest.mark.gpu
CPU = torch.device("cpu")
OWN = "float32, the model's own forward"


def captions(tokenizer):
    words = ["", "a", "a red", "a red cat left of a dog", "two red cats", " ".join(["cat"] * 70)]
    return [tuple(row) for row in tokenizer(words, truncation=True, max_length=77)["input_ids"]]


@pytest.fixture
def as_on_gpu(monkeypatch):
    """Encoders are made as on a GPU with flash-attn, on the CPU."""
    from dpad_fast.clip import encoder

    monkeypatch.setattr(gpu_attention, "installed", lambda: iter([("flash-attn", by_sequence)]))
    monkeypatch.setattr(encoder, "make_forwards", choose.gpu_forwards)


def test_encoders_as_on_a_gpu(tiny, as_on_gpu):
    exact = "float32, packed towers, padded attention"
    reduced = "float16, packed towers, flash-attn"
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
    exact = own_forward(tiny[0])
    ids = [row for row in guarded.tokens.encode(["a red cat", "a dog", "two cats"]) if not isinstance(row, str)]
    unit = torch.nn.functional.normalize(exact.texts(ids, 1), dim=-1)
    torch.testing.assert_close(guarded.embed_ids(ids, exact=True), unit, atol=1e-6, rtol=0)
    reduced = guarded.embed_ids(ids)
    assert 0 < float((reduced - unit).abs().max()) < 4e-3


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
    assert encoder.forward == {"float32": OWN}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "guarded"])
def test_a_gpu_that_computes_something_else_is_not_used(tiny, as_on_gpu, monkeypatch, precision):
    monkeypatch.setattr(GpuProducts, "normalise", lambda self, x, norm, threads: x)
    assert choose.gpu_forwards(tiny[0], CPU, precision, own_forward, [(0, 5, 1)], 32).exact.name == OWN
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
    with FakeTensorMode():
        image = torch.zeros(40, 50, 3, dtype=torch.uint8, device="cuda")
        made = encoder.preprocess([image], [None, (1, 2, 9, 9)], [0, 0], torch.device("cuda"))
    assert (tuple(made.shape), made.device.type) == ((2, 3, 32, 32), "cuda")


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


def two_scorers(tiny, precision="float32"):
    config = df.RewardConfig.preset("dpad", shape="margin")
    return [df.RewardScorer(config, encoder) for encoder in gpu_and_cpu(tiny, precision)]


def rows(count, images):
    texts = [shared.completion(caption=f"{shared.WORDS[i % len(shared.WORDS)]} near the table") for i in range(count)]
    return texts, [df.Target.parse(shared.SOLUTION)] * count, [images[i % len(images)] for i in range(count)]


def close(one, other):
    torch.testing.assert_close(one.total, other.total, atol=1e-5, rtol=0)
    for name in ("roi", "aoi"):
        torch.testing.assert_close(one.similarity[name], other.similarity[name], atol=1e-5, rtol=0)


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "guarded"])
def test_a_step_on_a_gpu_has_no_hidden_wait(tiny, precision, monkeypatch):
    there, here = two_scorers(tiny, precision)
    gpu, waits = there.encoder._way.gpu, []
    wait = gpu.wait
    monkeypatch.setattr(gpu, "wait", lambda event: waits.append(event) or wait(event))
    for batch in range(3):
        images = [shared.picture(10 * batch + i) for i in range(5)]
        expected, before = here.score(*rows(20, images)), there.recomputed
        waits.clear()
        torch.cuda.set_sync_debug_mode("error" if batch == 2 else "default")  # the first ones load and capture
        try:
            found = there.score(*rows(20, images))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert len(waits) in ((2, 3) if there.recomputed > before else (1,))
        if precision == "float32":
            close(found, expected)
        decisions = [scores.similarity["roi"] > scores.similarity["aoi"] for scores in (found, expected)]
        assert torch.equal(*decisions)


@needs_gpu
def test_pinned_memory_is_not_overwritten_under_way(tiny):
    there, here = gpu_and_cpu(tiny, "float32")
    batches = [[shared.picture(100 * k + i, (700, 500)) for i in range(6)] for k in range(6)]
    expected = [here.embed_images(batch) for batch in batches]
    there.embed_images(batches[0])
    there.cache.clear()
    busy = torch.randn(4096, 4096, device="cuda")
    for _ in range(20):
        busy = busy @ busy / 64
    steps = [there.step() for _ in batches]
    queued = []
    for step, batch in zip(steps, batches, strict=True):  # no wait between them
        from dpad_fast.clip.images import find_pictures

        pictures = find_pictures(batch, None)[0]
        queued.append(step.regions(pictures, [(i, None) for i in range(len(batch))], exact=True))
    for step, values, wanted in zip(steps, queued, expected, strict=True):
        torch.testing.assert_close(step.finish(values)[0], wanted, atol=1e-5, rtol=0)


@needs_gpu
def test_scores_beside_a_trainers_stream(tiny):
    there, here = two_scorers(tiny)
    pixels = [torch.from_numpy(np.asarray(shared.picture(i)).copy()) for i in range(4)]
    expected = here.score(*rows(12, pixels))
    late = torch.cuda.Stream()
    with torch.cuda.stream(late):
        torch.cuda._sleep(200_000_000)
        images = [image.to("cuda", non_blocking=True) + 0 for image in pixels]
        pending = there.score_async(*rows(12, images))
        images.clear()
        for _ in range(50):  # what the trainer does next may reuse memory that it let go of
            torch.full((1 << 20,), 7, dtype=torch.uint8, device="cuda")
    close(pending.result(60), expected)


@needs_gpu
def test_rows_beside_a_trainers_stream(tiny):
    there, here = two_scorers(tiny)
    pixels = [torch.from_numpy(np.asarray(shared.picture(i)).copy()) for i in range(4)]
    texts, targets, given = rows(12, pixels)
    expected = here.score(texts, targets, given)
    late = torch.cuda.Stream()
    with df.MicroBatcher(there, window_ms=50) as batcher, torch.cuda.stream(late):
        torch.cuda._sleep(200_000_000)
        images = [image.to("cuda", non_blocking=True) + 0 for image in pixels]
        pending = [batcher.submit(texts[i], targets[i], images[i % 4]) for i in range(12)]
        images.clear()
        for _ in range(50):
            torch.full((1 << 20,), 7, dtype=torch.uint8, device="cuda")
        found = [row.result(60) for row in pending]
    torch.testing.assert_close(torch.tensor([row.total for row in found]), expected.total, atol=1e-5, rtol=0)
