"""Packed attention as a GPU runs it. Only the provider's call is replaced on the CPU, by a loop over its sequences."""

import inspect

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dpad_fast.clip.tower import gpu_attention
from dpad_fast.clip.tower.gpu_attention import GpuProducts, Ragged, padded, ragged
from dpad_fast.clip.tower.packing import Paths, pack_tokens, whole_sequences
from dpad_fast.clip.tower.products import TorchProducts
from dpad_fast.clip.tower.towers import Towers
from dpad_fast.clip.tower.weights import read_weights

needs_gpu = pytest.mark.gpu
CPU = torch.device("cpu")


def sequences(q, k, v, starts_q, starts_k, longest_q, longest_k, causal, corner="bottom right"):
    """Attention of each sequence by itself, in float64; refuses what the real ones would misread."""
    for starts, rows, longest in ((starts_q, q, longest_q), (starts_k, k, longest_k)):
        assert starts.dtype == torch.int32
        assert starts[0] == 0
        assert int(starts[-1]) == len(rows)
        assert int(starts.diff().max()) == longest
        assert int(starts.diff().min()) > 0
    assert len(starts_q) == len(starts_k)
    assert k.shape == v.shape
    assert q.shape[1:] == k.shape[1:]
    assert {part.stride(-1) for part in (q, k, v)} == {1}
    out = torch.empty_like(q)
    for i in range(len(starts_q) - 1):
        asks, keys = (slice(int(starts[i]), int(starts[i + 1])) for starts in (starts_q, starts_k))
        query, key, value = (part.transpose(0, 1).double() for part in (q[asks], k[keys], v[keys]))
        scores = query @ key.transpose(1, 2) / q.shape[-1] ** 0.5
        if causal:
            ahead = scores.shape[2] - scores.shape[1] if corner == "bottom right" else 0
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(ahead + 1), float("-inf"))
        out[asks] = (scores.softmax(-1) @ value).transpose(0, 1).to(out.dtype)
    return out


def flash_attn_varlen_func(
    q,
    k,
    v,
    cu_seqlens_q,
    cu_seqlens_k,
    max_seqlen_q,
    max_seqlen_k,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
):
    return sequences(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal)


def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
    assert window_size in ((-1, -1), (-1, 0))
    return sequences(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, window_size == (-1, 0))


def varlen_attn_of_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
    return sequences(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal)


PROVIDERS = {
    "flash-attn": gpu_attention.from_flash_attn(flash_attn_varlen_func),
    "torch 2.10": gpu_attention.from_torch(varlen_attn_of_2_10),
    "torch": gpu_attention.from_torch(varlen_attn),
    "padded": None,
}


@pytest.fixture(params=PROVIDERS)
def provider(request):
    return PROVIDERS[request.param]


def test_paths_as_variable_lengths():
    paths = pack_tokens([(1, 2, 3), (1, 2, 3, 4), (1, 5), (6,)]).paths
    part = ragged(paths, CPU)
    assert part.keys.tolist() == [0, 1, 2, 0, 1, 2, 3, 0, 4, 5]
    assert part.starts_k.tolist() == [0, 3, 7, 9, 10]
    assert part.starts_q.tolist() == [0, 3, 4, 5, 6]
    assert (part.longest_q, part.longest_k, part.causal) == (3, 4, True)
    ends = ragged(paths.only_ends, CPU)
    assert ends.starts_q.tolist() == [0, 1, 2, 3, 4]
    assert (ends.longest_q, ends.longest_k, ends.causal) == (1, 4, False)
    images = ragged(whole_sequences(3, 5), CPU)
    assert images.keys is None  # nothing is shared, so nothing is gathered
    assert images.starts_q.tolist() == images.starts_k.tolist() == [0, 5, 10, 15]
    assert (images.longest_q, images.longest_k, images.causal) == (5, 5, False)
    one = ragged(pack_tokens([(6,)]).paths, CPU)
    assert (one.starts_q.tolist(), one.starts_k.tolist(), one.longest_q, one.longest_k) == ([0, 1], [0, 1], 1, 1)


def test_queries_of_causal_paths_end_with_their_sequence():
    whole = whole_sequences(2, 3)
    short = Paths(whole.path, whole.offsets, whole.first, torch.tensor([3, 2]), causal=True)
    with pytest.raises(ValueError, match=r"last\[1\] must be its sequence's length 3, got 2"):
        ragged(short, CPU)


def plain(q, k, v, paths, heads):
    """By the definition of `Paths`, one query at a time."""
    rows = []
    for i in range(paths.count):
        path = paths.path[paths.offsets[i] : paths.offsets[i + 1]]
        for position in range(int(paths.first[i]), int(paths.last[i])):
            seen = path[: position + 1] if paths.causal else path
            query, key, value = (part.unflatten(-1, (heads, -1)).double() for part in (q[len(rows)], k[seen], v[seen]))
            weights = torch.einsum("hd,khd->hk", query / query.shape[-1] ** 0.5, key).softmax(-1)
            rows.append(torch.einsum("hk,khd->hd", weights, value).flatten().float())
    return torch.stack(rows)


def some_paths():
    torch.manual_seed(0)
    lengths = (1, 2, 3, 4, 6, 9, 16, 17, 33, 40, 70)
    rows = sorted({(9, *torch.randint(0, 3, (length,)).tolist()) for length in lengths for _ in range(4)})
    return {
        "shared prefixes": pack_tokens(rows).paths,
        "nothing shared": pack_tokens([(i, *range(10, 10 + 7 * i)) for i in range(6)]).paths,
        "one token each": pack_tokens([(3,), (4,), (5,)]).paths,
        "one token": pack_tokens([(3,)]).paths,
        "one sequence": pack_tokens([tuple(range(20))]).paths,
        "images": whole_sequences(3, 50),
    }


@pytest.mark.parametrize("which", some_paths())
@pytest.mark.parametrize("width", [4, 34])
def test_attention(provider, which, width):
    paths = some_paths()[which]
    kernel = GpuProducts(torch.float32, provider)
    qkv = torch.randn(int(paths.path.max()) + 1, 3 * width)
    q, k, v = qkv.chunk(3, dim=1)
    torch.testing.assert_close(kernel.attend(q, k, v, paths, 2, 1), plain(q, k, v, paths, 2), atol=2e-6, rtol=1e-5)
    ends, q = paths.only_ends, q[paths.ends]
    torch.testing.assert_close(kernel.attend(q, k, v, ends, 2, 1), plain(q, k, v, ends, 2), atol=2e-6, rtol=1e-5)


def test_padding_stays_within_sixteen():
    paths = some_paths()["shared prefixes"]
    buckets = padded(paths, CPU).buckets
    assert len(buckets) == 4  # lengths 2 to 71 in steps of 16, none from 49 to 64
    assert sum(bucket.keys.numel() for bucket in buckets) < len(paths.path) + 15 * paths.count
    assert padded(whole_sequences(3, 50), CPU).buckets[0].seen is None


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("provider", [None, lambda q, k, v, part: q + v[: len(q)]], ids=["padded", "variable lengths"])
def test_layers_do_not_ask_the_host(tiny, provider):
    fast = Towers(read_weights(tiny[0]), GpuProducts(torch.bfloat16, provider))
    paths = some_paths()["shared prefixes"]
    for body in (fast._text, fast._image):
        x = torch.randn(int(paths.path.max()) + 1, 32)
        body(x.clone(), paths, paths.ends, 1)  # describes the paths
        with Operations() as seen:
            body(x, paths, paths.ends, 1)
        assert {"addmm", "native_layer_norm"} <= set(seen.names)
        # Values read by Python, sizes that depend on values, and boolean indices: each would wait for the GPU.
        assert not {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "lift_fresh"} & set(seen.names)
    assert {key[0] for key in paths._cached} == {"padded" if provider is None else "ragged"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_only_the_next_product_reads_is_half(dtype):
    kernel, weight = GpuProducts(dtype), torch.randn(5, 8)
    layer = kernel.prepare([gpu_attention.Affine(weight, torch.randn(5))])
    x = torch.randn(3, 8)
    assert kernel.linear(x, layer, 1).dtype == dtype
    total = torch.zeros(3, 5)
    assert kernel.linear(x, layer, 1, add=total) is total
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, x @ weight.T + layer.bias.float(), atol=0.1, rtol=0.02)


def texts(tokenizer):
    captions = ["", "a", "a red", "a red cat", "a red cat left of a dog", "dog", "two red cats", " ".join(["cat"] * 70)]
    rows = [tuple(row) for row in tokenizer(captions)["input_ids"]]
    return [row for row in rows if len(row) <= 77]


def close(found, expected, tolerance):
    assert found.dtype == torch.float32
    assert float((found - expected).norm() / expected.norm()) < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
def test_towers_of_transformers(tiny, provider, dtype, tolerance):
    model, processor = tiny
    fast = Towers(read_weights(model), GpuProducts(dtype, provider))
    rows, pixels = texts(processor.tokenizer), torch.randn(5, 3, 32, 32)
    with torch.inference_mode():
        expected = torch.cat([model.get_text_features(input_ids=torch.tensor([row])).pooler_output for row in rows])
        close(fast.texts(rows, 1), expected, tolerance)
        close(fast.texts(rows[2:3], 1), expected[2:3], tolerance)
        close(fast.images(pixels, 1), model.get_image_features(pixel_values=pixels).pooler_output, tolerance)


def test_towers_of_open_clip(provider):
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
        text_cfg={"context_length": 20, "vocab_size": 100, "width": 32, "heads": 2, "layers": 2},
    ).eval()
    rows = [(98, 5, 7, 99), (98, 5, 99), (98, 99), (99,), (98, 5, 7, 8, 9, 99)]
    tokens, pixels = torch.tensor([[*row, *[0] * (20 - len(row))] for row in rows]), torch.randn(2, 3, 32, 32)
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)):
        fast = Towers(read_weights(model), GpuProducts(dtype, provider))
        with torch.inference_mode():
            close(fast.texts(rows, 1), model.encode_text(tokens), tolerance)
            close(fast.images(pixels, 1), model.encode_image(pixels), tolerance)


def top_left(q, k, v, part):
    sizes = part.starts_q, part.starts_k, part.longest_q, part.longest_k
    return sequences(q, k, v, *sizes, part.causal, corner="top left")


def others_rows(q, k, v, part):
    return PROVIDERS["torch"](q, k.roll(1, 0), v.roll(1, 0), part)


def forgets_the_last(q, k, v, part):
    out = PROVIDERS["torch"](q, k, v, part)
    out[-1] = float("nan")
    return out


def test_an_installation_is_tried_before_it_is_used(monkeypatch):
    bad = {"top left": top_left, "others' rows": others_rows, "forgets": forgets_the_last}
    heads = [(2, 16), (3, 8)]
    monkeypatch.setattr(gpu_attention, "installed", lambda: iter([*bad.items(), ("good", PROVIDERS["flash-attn"])]))
    assert gpu_attention.choose_gpu_products(torch.bfloat16, CPU, heads).attention == "good"
    assert gpu_attention.choose_gpu_products(torch.float32, CPU, heads).attention == "padded attention"
    monkeypatch.setattr(gpu_attention, "installed", lambda: iter(bad.items()))
    assert gpu_attention.choose_gpu_products(torch.bfloat16, CPU, heads).attention == "padded attention"
    for name, call in bad.items():
        assert not gpu_attention.attends(GpuProducts(torch.bfloat16, call), torch.bfloat16, CPU, 2, 16), name


def test_real_signatures_are_those_of_the_stand_ins():
    for name, module, stand_in in (
        ("flash_attn_varlen_func", "flash_attn", flash_attn_varlen_func),
        ("varlen_attn", "torch.nn.attention.varlen", varlen_attn),
    ):
        try:
            real = getattr(__import__(module, fromlist=[name]), name)
        except ImportError:
            continue
        if "is_causal" in inspect.signature(real).parameters:
            stand_in = varlen_attn_of_2_10
        there, here = (inspect.signature(function).parameters for function in (real, stand_in))
        assert list(there)[:7] == list(here)[:7]
        for used in ("causal", "window_size", "is_causal"):
            if used in here:
                assert there[used].kind == here[used].kind
                assert there[used].default == here[used].default


def test_torchs_own_takes_what_it_is_given():
    real = pytest.importorskip("torch.nn.attention.varlen", reason="torch before 2.10").varlen_attn
    for causal in (True, False):
        with FakeTensorMode():
            q, k, v = (torch.empty(rows, 2, 64, dtype=torch.bfloat16, device="cuda") for rows in (5, 9, 9))
            starts = [torch.empty(4, dtype=torch.int32, device="cuda") for _ in range(2)]
            found = gpu_attention.from_torch(real)(q, k, v, Ragged(None, *starts, 3, 5, causal))
        assert (tuple(found.shape), found.dtype, found.device.type) == ((5, 2, 64), torch.bfloat16, "cuda")


@needs_gpu
@pytest.mark.parametrize("width", [16, 64])
def test_some_variable_length_attention_serves_bfloat16(width):
    pytest.importorskip("torch.nn.attention.varlen", reason="torch before 2.10")
    chosen = gpu_attention.choose_gpu_products(torch.bfloat16, torch.device("cuda"), [(2, width)])
    assert chosen.attention != "padded attention"


@needs_gpu
def test_padded_attention_is_that_of_torch_kernels():
    for paths in some_paths().values():
        q, k, v = torch.randn(int(paths.path.max()) + 1, 3 * 64).chunk(3, dim=1)
        expected = TorchProducts().attend(q, k, v, paths, 2, 1)
        found = GpuProducts(torch.float32).attend(q.cuda(), k.cuda(), v.cuda(), paths, 2, 1)
        torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-5)
