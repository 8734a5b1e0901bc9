"""The towers of our own: products, attention and whole models against torch, transformers and open_clip."""

import copy
import os
import subprocess
import sys

import pytest
import torch

import dpad_fast as df
from dpad_fast._native import extension as _extension
from dpad_fast.clip.tower.packing import Paths, pack_tokens, whole_sequences
from dpad_fast.clip.tower.products import NativeProducts, TorchProducts
from dpad_fast.clip.tower.towers import Towers
from dpad_fast.clip.tower.weights import Affine, Norm, read_weights
from dpad_fast.testing import rewards as shared

PRODUCTS = {
    "float32": (lambda: NativeProducts("float32"), 3e-6),
    "int16": (lambda: NativeProducts("int16"), 2e-3),
    "digits2": (lambda: NativeProducts("digits2"), 2e-3),
    "digits3": (lambda: NativeProducts("digits3"), 3e-6),
    "torch": (lambda: TorchProducts(), 3e-6),
    "torch, weights where they are": (lambda: TorchProducts(join=False), 3e-6),
}


@pytest.fixture(params=PRODUCTS)
def implementation(request):
    make, tolerance = PRODUCTS[request.param]
    return make(), tolerance


def close(found, expected, tolerance):
    assert bool(torch.isfinite(found).all())
    assert float((found - expected).norm() / expected.norm()) < tolerance


@pytest.mark.parametrize(
    ("rows", "depth", "columns"), [(1, 1, 1), (5, 63, 65), (97, 130, 64), (200, 512, 200), (13, 1000, 3)]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_linear(implementation, rows, depth, columns, threads):
    torch.manual_seed(rows)
    products, tolerance = implementation
    x, weight, bias = torch.randn(rows, depth) * 3, torch.randn(columns, depth), torch.randn(columns)
    norm = Norm(torch.rand(depth) + 0.5, torch.randn(depth), 1e-5)
    layer = products.prepare([Affine(weight, bias)])
    expected = (x.double() @ weight.double().T + bias).float()
    close(products.linear(x, layer, threads), expected, tolerance)
    before = torch.randn(rows, columns)
    close(products.linear(x, layer, threads, add=before.clone()) - before, expected, tolerance + 1e-5)
    normed = torch.nn.functional.layer_norm(x, (depth,), norm.weight, norm.bias, norm.eps)
    close(products.linear(x, layer, threads, norm=norm), normed @ weight.T + bias, tolerance)
    close(products.normalise(x, norm, threads), normed, 1e-5)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("rows", [1, 7, 250])
def test_mlp(implementation, activation, rows):
    torch.manual_seed(0)
    products, tolerance = implementation
    x, norm = torch.randn(rows, 48), Norm(torch.rand(48) + 0.5, torch.randn(48), 1e-5)
    up, down = Affine(torch.randn(130, 48), torch.randn(130)), Affine(torch.randn(48, 130), torch.randn(48))
    hidden = torch.nn.functional.layer_norm(x, (48,), norm.weight, norm.bias, norm.eps) @ up.weight.T + up.bias
    hidden = hidden * torch.sigmoid(1.702 * hidden) if activation == "quick_gelu" else torch.nn.functional.gelu(hidden)
    expected = x + hidden @ down.weight.T + down.bias
    found = x.clone()
    products.mlp(found, norm, products.prepare([up]), products.prepare([down]), activation, 2)
    close(found, expected, 2 * tolerance)


@pytest.mark.parametrize(("kind", "tolerance"), [("int16", 4e-4), ("digits2", 4e-4), ("digits3", 5e-7)])
def test_integers_take_any_scale(kind, tolerance):
    products = NativeProducts(kind)
    torch.manual_seed(0)
    weight = torch.randn(64, 256) * torch.logspace(-12, 12, 64)[:, None]
    x = torch.randn(40, 256) * torch.logspace(-15, 15, 40)[:, None]
    x[3] = 0
    x[5, 7] = 1e4  # an outlier, as real towers have
    found = products.linear(x, products.prepare([Affine(weight, None)]), 2)
    expected = (x.double() @ weight.double().T).float()
    size = x.norm(dim=1)[:, None] * weight.norm(dim=1)
    assert bool(((found - expected).abs() <= tolerance * size).all())
    assert bool((found[3] == 0).all())


@pytest.mark.parametrize(("kind", "tolerance"), [("int16", 3e-4), ("digits2", 3e-4), ("digits3", 1e-6)])
def test_integers_never_overflow(kind, tolerance):
    # All elements of one sign and size: the largest sums that the norms allow.
    products = NativeProducts(kind)
    for depth in (1, 2, 127, 128, 129, 768, 1024, 3072):
        x, weight = torch.full((7, depth), 5.0), torch.full((3, depth), -0.25)
        found = products.linear(x, products.prepare([Affine(weight, None)]), 1)
        torch.testing.assert_close(found, torch.full((7, 3), -1.25 * depth), rtol=tolerance, atol=0)


def digit_results():
    """Products in digits: whole and cut tiles, several blocks of the depth, few rows and many."""
    generator, found = torch.Generator().manual_seed(0), {}
    shapes = [(1, 1, 1), (16, 64, 16), (17, 63, 31), (33, 65, 33), (300, 769, 40), (40, 1600, 70), (530, 96, 64)]
    for rows, depth, columns in shapes:
        x = torch.randn(rows, depth, generator=generator) * torch.logspace(-3, 3, rows)[:, None]
        weight, bias = torch.randn(columns, depth, generator=generator), torch.randn(columns, generator=generator)
        x[0, : depth // 2] = 0
        for kind in ("digits2", "digits3"):
            products = NativeProducts(kind)
            layer = products.prepare([Affine(weight, bias)])
            for threads in (1, 2, 3):
                stored = products.linear(x, layer, threads).clone()
                found[rows, depth, columns, kind, threads] = stored
                found[rows, depth, columns, kind, threads, "add"] = products.linear(x, layer, threads, add=stored * 2)
    return found


@pytest.mark.skipif(_extension.C.simd_report()["tower"] != "amx", reason="no AMX here")
def test_amx_does_what_plain_code_does(tmp_path):
    # Equal in every bit. The other process is needed because the instruction set is chosen once per process.
    environment, saved = {**os.environ, "DPAD_FAST_SIMD": "avx512"}, tmp_path / "plain.pt"
    command = [sys.executable, __file__, str(saved)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plain, here = torch.load(saved), digit_results()
    assert plain.keys() == here.keys()
    for key, expected in plain.items():
        assert torch.equal(here[key], expected), key
        assert torch.equal(expected, plain[(*key[:4], 1, *key[5:])]), key


@pytest.mark.parametrize("kind", ["digits2", "digits3"])
def test_few_rows_are_split_otherwise_and_stay_the_same(kind):
    torch.manual_seed(0)
    products = NativeProducts(kind)
    norm = Norm(torch.rand(96) + 0.5, torch.randn(96), 1e-5)
    up = products.prepare([Affine(torch.randn(1700, 96), torch.randn(1700))])
    down = products.prepare([Affine(torch.randn(96, 1700), torch.randn(96))])
    x = torch.randn(600, 96)
    many, few = x.clone(), x[:20].clone()
    products.mlp(many, norm, up, down, "quick_gelu", 2)
    products.mlp(few, norm, up, down, "quick_gelu", 2)
    assert torch.equal(few, many[:20])


def test_two_digits_from_three():
    torch.manual_seed(0)
    x, weight = torch.randn(50, 200), torch.randn(30, 200)
    layer = NativeProducts("digits3").prepare([Affine(weight, None)])
    close(NativeProducts("digits2").linear(x, layer, 2), x @ weight.T, 3e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(implementation, bad):
    products, _ = implementation
    x = torch.randn(3, 64)
    x[1, 5] = bad
    found = products.linear(x, products.prepare([Affine(torch.randn(8, 64), None)]), 1)
    assert torch.isfinite(found).all(dim=1).tolist() == [True, False, True]


def test_a_row_is_the_same_in_any_batch():
    torch.manual_seed(0)
    x, layer = torch.randn(300, 200), [Affine(torch.randn(70, 200), torch.randn(70))]
    for kind in ("float32", "int16", "digits2", "digits3"):
        products = NativeProducts(kind)
        prepared = products.prepare(layer)
        whole = products.linear(x, prepared, 2).clone()
        for part in (slice(0, 1), slice(17, 40), slice(100, 300)):
            assert torch.equal(products.linear(x[part].contiguous(), prepared, 1), whole[part])


def attention(q, k, v, causal):
    heads = [part.unflatten(-1, (2, -1)).transpose(0, 1).double() for part in (q, k, v)]
    return torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=causal).transpose(0, 1).flatten(1).float()


@pytest.mark.parametrize("width", [4, 34, 192])
def test_attention_over_shared_rows(implementation, width):
    torch.manual_seed(0)
    products, _ = implementation
    rows = sorted(
        {(9, *torch.randint(0, 3, (length,)).tolist()) for length in (1, 2, 3, 4, 6, 9, 40, 70) for _ in range(4)}
    )
    packed = pack_tokens(rows)
    assert packed.paths.count == len(rows)
    assert len(packed.tokens) < sum(map(len, rows))  # something is shared
    count = len(packed.tokens)
    qkv = torch.randn(count, 3 * width)
    found = products.attend(*qkv.chunk(3, dim=1), packed.paths, 2, 2).clone()
    ends = products.attend(
        qkv[packed.paths.ends][:, :width].contiguous(), *qkv.chunk(3, dim=1)[1:], packed.paths.only_ends, 2, 2
    )
    for i, row in enumerate(rows):
        path = packed.paths.path[packed.paths.offsets[i] : packed.paths.offsets[i + 1]]
        assert packed.tokens[path].tolist() == list(row)
        assert packed.positions[path].tolist() == list(range(len(row)))
        expected = attention(*qkv[path].chunk(3, dim=1), causal=True)
        torch.testing.assert_close(found[path], expected, atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(ends[i], expected[-1], atol=2e-6, rtol=1e-5)


def test_attention_without_an_order(implementation):
    products, _ = implementation
    qkv = torch.randn(3 * 50, 3 * 32)
    found = products.attend(*qkv.chunk(3, dim=1), whole_sequences(3, 50), 2, 2)
    for i in range(3):
        rows = slice(50 * i, 50 * i + 50)
        torch.testing.assert_close(
            found[rows], attention(*qkv[rows].chunk(3, dim=1), causal=False), atol=2e-6, rtol=1e-5
        )


def test_prefixes_are_packed_once():
    packed = pack_tokens([(1, 2, 3), (1, 2, 3, 4), (1, 5), (6,)])
    assert packed.tokens.tolist() == [1, 2, 3, 4, 5, 6]
    assert packed.paths.path.tolist() == [0, 1, 2, 0, 1, 2, 3, 0, 4, 5]
    assert isinstance(packed.paths, Paths)
    assert packed.paths.first.tolist() == [0, 3, 1, 0]
    assert packed.paths.ends.tolist() == [2, 3, 4, 5]


def texts(tokenizer, count=60):
    import random

    rng = random.Random(1)
    words = [" ".join(rng.choice(shared.WORDS) for _ in range(rng.choice((0, 1, 3, 8, 30)))) for _ in range(count)]
    return [tuple(row) for row in tokenizer([*words, words[3], "a cat <|endoftext|> dog"])["input_ids"]]


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("legacy_end", [False, True])
def test_towers_of_transformers(tiny, implementation, activation, legacy_end):
    model, processor = copy.deepcopy(tiny[0]), tiny[1]
    rows = [row for row in texts(processor.tokenizer) if len(row) <= 77]
    for tower in (model.text_model, model.vision_model):
        tower.config.hidden_act = activation
        for layer in tower.encoder.layers:
            layer.mlp.activation_fn = torch.nn.GELU() if activation == "gelu" else layer.mlp.activation_fn
    if legacy_end:
        model.text_model.eos_token_id = 2
    weights = read_weights(model)
    assert weights is not None
    assert (weights.text.end is None) == legacy_end
    products, tolerance = implementation
    fast = Towers(weights, products)
    pixels = torch.randn(5, 3, model.config.vision_config.image_size, model.config.vision_config.image_size)
    with torch.inference_mode():
        expected = torch.cat([model.get_text_features(input_ids=torch.tensor([row])).pooler_output for row in rows])
        close(fast.texts(rows, 2), expected, 20 * tolerance)
        close(fast.images(pixels, 2), model.get_image_features(pixel_values=pixels).pooler_output, 20 * tolerance)


def test_many_chunks_agree_with_one(tiny):
    fast = Towers(read_weights(tiny[0]), NativeProducts("float32"))
    rows = [row for row in texts(tiny[1].tokenizer) if len(row) <= 77]
    whole, pixels = fast.texts(rows, 2), torch.randn(9, 3, *[tiny[0].config.vision_config.image_size] * 2)
    images = fast.images(pixels, 2)
    fast = Towers(read_weights(tiny[0]), NativeProducts("float32"), rows_at_once=80)
    calls = []
    linear = fast.products.linear
    fast.products.linear = lambda x, *args, **more: calls.append(len(x)) or linear(x, *args, **more)
    torch.testing.assert_close(fast.texts(rows, 1), whole, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(fast.images(pixels, 1), images, atol=1e-6, rtol=1e-6)
    assert 40 < max(calls) <= 80


@pytest.mark.parametrize("bad", [76, 0, -1, True, 100.0, "many"])
def test_one_text_and_one_picture_have_room(tiny, bad):
    wanted = r"rows_at_once must be a whole number of at least 77, the rows of one text or picture, got " + repr(bad)
    with pytest.raises(ValueError, match=wanted):
        Towers(read_weights(tiny[0]), NativeProducts("float32"), rows_at_once=bad)
    with pytest.raises(ValueError, match=wanted):
        df.ClipEncoder.from_transformers(*tiny, rows_at_once=bad)


def test_a_bound_without_room_is_refused_by_name():
    with pytest.raises(ValueError, match=r"cannot be loaded.*: rows_at_once must be a whole number"):
        df.load_encoder("shapes", rows_at_once=5)


def test_rows_at_once_reaches_the_towers(tiny):
    encoders = [df.ClipEncoder.from_transformers(*tiny, rows_at_once=80), df.load_encoder("shapes", rows_at_once=1000)]
    for encoder, rows in zip(encoders, (80, 1000), strict=True):
        assert {made._clip.rows_at_once for made in encoder._forwards.values()} == {rows}
    assert df.ClipEncoder.from_transformers(*tiny)._forwards[True]._clip.rows_at_once == 2048


def test_a_changed_model_is_left_to_itself(tiny):
    model = copy.deepcopy(tiny[0])
    assert read_weights(model) is not None
    hook = model.text_model.encoder.layers[0].register_forward_hook(lambda *_: None)
    assert read_weights(model) is None
    hook.remove()

    class Scaled(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return 1.01 * self.inner(x)

    # Looks the same to the reader, but computes something else: found by the probe at load time.
    mlp = model.text_model.encoder.layers[1].mlp
    mlp.activation_fn = Scaled(mlp.activation_fn)
    assert read_weights(model) is not None
    encoder = df.ClipEncoder.from_transformers(model, tiny[1])
    assert encoder.forward == {"float32": "float32, the model's own forward"}
    ids = encoder.tokens.encode(["a red cat"])
    with torch.inference_mode():
        own = torch.nn.functional.normalize(model.get_text_features(input_ids=torch.tensor(ids)).pooler_output, dim=-1)
    torch.testing.assert_close(encoder.embed_ids(ids), own, atol=1e-6, rtol=0)
    assert "towers" in df.ClipEncoder.from_transformers(*tiny).forward["float32"]


@pytest.mark.skipif(_extension.C.simd_report()["tower"] != "amx", reason="no AMX here")
def test_outliers_that_digits_do_not_bear(tiny):
    assert "AMX" in df.ClipEncoder.from_transformers(*tiny).forward["float32"]
    # An element of every row is 100,000 times as large as the others, and what it is multiplied by is 0.
    model = copy.deepcopy(tiny[0])
    for layer in [*model.text_model.encoder.layers, *model.vision_model.encoder.layers]:
        layer.layer_norm1.bias.data[3] += 1e5
        for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            part.weight.data[:, 3] = 0
    for precision in ("float32", "bfloat16", "guarded"):
        encoder = df.ClipEncoder.from_transformers(model, tiny[1], precision=precision)
        assert encoder.forward
        assert all("towers" in name and "AMX" not in name for name in encoder.forward.values())


def test_open_clip_has_towers():
    open_clip = pytest.importorskip("open_clip")
    for quick in (False, True):
        model = open_clip.CLIP(
            embed_dim=16,
            vision_cfg={"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
            text_cfg={"context_length": 20, "vocab_size": 100, "width": 32, "heads": 2, "layers": 2},
            quick_gelu=quick,
        ).eval()
        fast = Towers(read_weights(model), NativeProducts("float32"))
        rows = [(98, 5, 7, 99), (98, 5, 99), (98, 99)]
        padded = torch.tensor([[*row, *[0] * (20 - len(row))] for row in rows])
        pixels = torch.randn(2, 3, 32, 32)
        with torch.inference_mode():
            close(fast.texts(rows, 2), model.encode_text(padded), 1e-5)
            close(fast.images(pixels, 2), model.encode_image(pixels), 1e-5)
    model.visual.pool_type = "avg"
    assert read_weights(model) is None


def test_threads_are_explicit(tiny):
    encoder = df.ClipEncoder.from_transformers(*tiny, threads=1)
    before = torch.get_num_threads()
    one = encoder.embed_ids(encoder.tokens.encode(["a cat", "a dog"]))
    assert torch.get_num_threads() == before
    encoder = df.ClipEncoder.from_transformers(*tiny, threads=2)
    torch.testing.assert_close(encoder.embed_ids(encoder.tokens.encode(["a cat", "a dog"])), one, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        df.ClipEncoder.from_transformers(*tiny, threads=0)


@pytest.mark.skipif("DPAD_FAST_SIMD" in os.environ, reason="a run of this very test")
def test_portable_products():
    # The same tests without AVX-512, in another process, because the instruction set is chosen once per process.
    chosen = "test_linear or test_integers or test_attention_over or two_digits"
    environment = {**os.environ, "DPAD_FAST_SIMD": "scalar"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", chosen, __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


if __name__ == "__main__":
    torch.save(digit_results(), sys.argv[1])
