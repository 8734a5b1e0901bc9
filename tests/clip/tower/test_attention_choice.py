"""Which attention an encoder on a GPU takes: by what is installed, by the GPU, and never because something failed."""

import re
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from dpad_fast.clip.tower import gpu_attention
from dpad_fast.clip.tower.gpu_attention import GpuProducts
from dpad_fast.testing.towers import by_sequence

CPU = torch.device("cpu")


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, causal=False
):
    raise AssertionError("only its arguments are looked at")


def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
    raise AssertionError("only its arguments are looked at")


def raising(error):
    def attend(q, k, v, part):
        raise error

    return attend


def test_an_installation_for_other_gpus_is_passed_over(monkeypatch):
    missing = raising(RuntimeError("CUDA error: no kernel image is available for execution on the device"))
    offered = [("flash-attn", missing), ("good", by_sequence)]
    monkeypatch.setattr(gpu_attention, "installed", lambda: iter(offered))
    assert gpu_attention.choose_gpu_products(torch.float16, CPU, [(2, 16)]).attention == "good"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("FlashAttention only supports Ampere GPUs or newer."),
        TypeError("flash_attn_varlen_func() got an unexpected keyword argument 'causal'"),
        ValueError("wrong"),
        AssertionError("no"),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:24]}",
)
def test_any_other_error_is_raised(monkeypatch, error):
    offered = [("flash-attn", raising(error)), ("good", by_sequence)]
    monkeypatch.setattr(gpu_attention, "installed", lambda: iter(offered))
    with pytest.raises(type(error), match=re.escape(str(error))):
        gpu_attention.choose_gpu_products(torch.float16, CPU, [(2, 16)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("capability", "width", "attention"),
    [
        ((7, 0), 64, "padded attention"),
        ((7, 5), 64, "padded attention"),
        ((8, 0), 64, "flash-attn"),
        ((8, 9), 64, "flash-attn"),
        ((9, 0), 64, "flash-attn"),
        ((9, 0), 80, "flash-attn"),
        ((9, 0), 256, "flash-attn"),
        ((9, 0), 264, "padded attention"),
        ((9, 0), 34, "padded attention"),
        ((10, 0), 64, "flash-attn"),
        ((12, 0), 64, "flash-attn"),
    ],
)
def test_attention_by_architecture(monkeypatch, dtype, capability, width, attention):
    tried = []

    def attends(products, dtype, device, heads, width):
        tried.append(products.attention)
        return True

    monkeypatch.setattr(gpu_attention, "attends", attends)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(flash_attn_varlen_func=flash_attn_varlen_func))
    found = gpu_attention.choose_gpu_products(dtype, torch.device("cuda", 1), [(2, 64), (2, width)])
    half = dtype != torch.float32
    assert found.attention == (attention if half else "padded attention")
    assert gpu_attention.attention_on(capability, width).startswith(attention)
    assert tried == (["flash-attn"] * 2 if half and attention == "flash-attn" else [])


def test_why_an_installation_is_not_used(monkeypatch):
    def other(q, k, v, lengths):
        raise AssertionError("its arguments were not looked at")

    torchs = SimpleNamespace(varlen_attn=varlen_attn)
    for module, reason in (
        (SimpleNamespace(flash_attn_varlen_func=other), "a release with another flash_attn_varlen_func"),
        (SimpleNamespace(), "a release without flash_attn_varlen_func"),
        (None, "not installed"),
    ):
        monkeypatch.setitem(sys.modules, "flash_attn", module)
        monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", torchs)
        assert [offer.reason for offer in gpu_attention.offers()] == [reason, ""]
        named = f"torch's variable-length attention (flash-attn: {reason})"
        assert gpu_attention.attention_on((9, 0)) == named
        assert [name for name, _ in gpu_attention.installed()] == ["torch's variable-length attention"]
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", SimpleNamespace(varlen_attn=other))
    assert gpu_attention.attention_on((9, 0)).startswith("padded attention (flash-attn: not installed; torch's")
    assert gpu_attention.attention_on((7, 5)).startswith("padded attention (others need compute capability 8.0")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ImportError("undefined symbol: _ZN3c10\nmore"), "cannot be imported: undefined symbol: _ZN3c10"),
        (OSError("libcudart.so.12: not found"), "cannot be imported: libcudart.so.12: not found"),
        (
            ModuleNotFoundError("No module named 'einops'", name="einops"),
            "cannot be imported: No module named 'einops'",
        ),
        (ModuleNotFoundError("No module named 'flash_attn'", name="flash_attn"), "not installed"),
    ],
)
def test_an_installation_that_cannot_be_imported(monkeypatch, error, reason):
    real = gpu_attention.import_module

    def fails(name):
        if name == "flash_attn":
            raise error
        return real(name)

    monkeypatch.setattr(gpu_attention, "import_module", fails)
    assert next(gpu_attention.offers()).reason == reason


def test_an_import_that_fails_otherwise_is_raised(monkeypatch):
    def fails(name):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(gpu_attention, "import_module", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        next(gpu_attention.offers())


def test_a_product_in_tf32_is_a_convolution_whose_precision_is_an_argument(monkeypatch):
    products = GpuProducts(torch.float32, tf32=True)
    assert (products.precision, products.name) == ("tf32", "tf32")
    real = torch.ops.aten.cudnn_convolution.default._schema
    assert [argument.name for argument in real.arguments] == [
        *("self", "weight", "padding", "stride", "dilation", "groups", "benchmark", "deterministic", "allow_tf32"),
    ]
    given = []

    def on_the_cpu(x, weight, padding, stride, dilation, groups, benchmark, deterministic, allow_tf32):
        given.append((benchmark, deterministic, allow_tf32))
        assert x.is_contiguous(memory_format=torch.channels_last)  # so that neither is copied
        assert weight.is_contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, weight, None, stride, padding, dilation, groups)

    monkeypatch.setattr(torch.ops.aten, "cudnn_convolution", on_the_cpu)
    for rows in (1, 6, 33):
        x, weight, bias = torch.randn(rows, 8), torch.randn(4, 8), torch.randn(4)
        for added in (bias, None):
            expected = F.linear(x, weight, added)
            found = gpu_attention.tf32_linear(OnGpu(x), weight, added)
            assert found.is_contiguous()
            torch.testing.assert_close(found, expected)
            torch.testing.assert_close(gpu_attention.tf32_linear(x, weight, added), expected)
    assert given == [(False, False, True)] * 6


class OnGpu:
    """A tensor of the CPU that says that it is on a GPU."""

    is_cuda = True

    def __init__(self, values):
        self.values = values

    def __getitem__(self, index):
        return self.values[index]

    def __len__(self):
        return len(self.values)


def test_what_can_be_imported_is_offered(monkeypatch):
    there = SimpleNamespace(flash_attn_varlen_func=flash_attn_varlen_func, varlen_attn=varlen_attn)
    for modules, names in (
        ((None, None), []),
        ((there, None), ["flash-attn"]),
        ((None, there), ["torch's variable-length attention"]),
        ((there, there), ["flash-attn", "torch's variable-length attention"]),
    ):
        for name, module in zip(("flash_attn", "torch.nn.attention.varlen"), modules, strict=True):
            monkeypatch.setitem(sys.modules, name, module)  # None: as if it were not installed
        assert [name for name, _ in gpu_attention.installed()] == names
