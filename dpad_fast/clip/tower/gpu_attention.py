"""Attention over packed rows on a GPU: one call for sequences of all lengths, and no wait for the GPU between layers.

In half precision the call is flash-attn's where that is installed, else torch's own (2.10 and later). What either does
not support is known before it is called: older GPUs, some widths of heads, a release with another signature. Each is
then compared with `padded_attention` on the device, on shared prefixes, since a release may align the causal mask in
another way. An installation without machine code for this GPU is passed over too; any other error is raised, out of
memory included. In float32, and where neither serves, `padded_attention` does: few calls of
`scaled_dot_product_attention` over sequences of similar length. Only attention is padded then; the products work on
packed rows. (What a CUDA graph replays is laid out in tables of a fixed shape instead, see `fixed.py`.)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from dpad_fast._native.gpu_errors import has_no_kernel
from dpad_fast._native.upload import upload
from dpad_fast.clip.tower.exact import exact_products, float32_sums
from dpad_fast.clip.tower.packing import Paths, pack_tokens, whole_sequences
from dpad_fast.clip.tower.products import PreparedLinear, TorchProducts, joined, joined_bias
from dpad_fast.clip.tower.weights import Affine, Norm

Tensor = torch.Tensor
# Sequences whose lengths differ by less than this are padded together.
_STEP = 16
# The largest accepted relative difference of a row between two half-precision attentions. Rounding makes some 1e-2; a
# mask that is aligned in another way, or rows of another sequence, make about 1.
_SAME = 5e-2


@dataclass(frozen=True)
class Ragged:
    """Paths as variable-length attention takes them, on the device.

    Attributes:
        keys: int64 [sum of lengths], the rows of keys and values of one sequence after the other; None where the rows
            are that already.
        starts_q: int32 [S + 1], where the queries of each sequence start.
        starts_k: int32 [S + 1], where its keys start.
        longest_q: the most queries of a sequence.
        longest_k: the most keys of a sequence.
        causal: whether the last query sees all keys of its sequence, the one before it all but one, and so on.
    """

    keys: Tensor | None
    starts_q: Tensor
    starts_k: Tensor
    longest_q: int
    longest_k: int
    causal: bool


Varlen = Callable[[Tensor, Tensor, Tensor, Ragged], Tensor]
"""Attention of queries [Q, heads, D] over keys and values [K, heads, D], laid out as a `Ragged` says; [Q, heads, D]."""


def ragged(paths: Paths, device: torch.device) -> Ragged:
    """Describes paths, which lie on the host, for variable-length attention on `device`.

    Raises:
        ValueError: causal paths whose queries do not end where their sequence does.
    """
    lengths = paths.offsets.diff()
    if paths.causal and not torch.equal(paths.last, lengths):
        at = int((paths.last != lengths).nonzero()[0])
        raise ValueError(f"last[{at}] must be its sequence's length {int(lengths[at])}, got {int(paths.last[at])}")
    longest_q = int((paths.last - paths.first).max())
    apart = torch.equal(paths.path, torch.arange(len(paths.path), device="cpu"))
    starts_q, starts_k, *keys = upload((paths.queries, paths.offsets, *(() if apart else (paths.path,))), device)
    return Ragged(
        keys[0] if keys else None,
        starts_q.to(torch.int32),
        starts_k.to(torch.int32),
        longest_q,
        int(lengths.max()),
        paths.causal and longest_q > 1,  # one query, the last, sees everything in either case
    )


@dataclass(frozen=True)
class Bucket:
    """Sequences of similar length: rows of keys [n, K] and queries [n, Q], and which are seen, bool [n, 1, Q, K]."""

    keys: Tensor
    queries: Tensor
    seen: Tensor | None


@dataclass(frozen=True)
class Padded:
    """Paths in buckets of similar length, on the device; `order` [Q] finds the queries in what the buckets give."""

    buckets: tuple[Bucket, ...]
    order: Tensor


def padded(paths: Paths, device: torch.device) -> Padded:
    """Describes paths, which lie on the host, for `padded_attention` on `device`."""
    lengths, counts = paths.offsets.diff(), paths.last - paths.first
    steps = (lengths - 1) // _STEP
    buckets, asked, places, start = [], [], [], 0
    for step in sorted(set(steps.tolist())):
        members = (steps == step).nonzero().flatten()
        length, count = lengths[members, None], counts[members, None]
        # Padding repeats a row's last element: it is valid memory, and no softmax is over nothing.
        key = torch.arange(int(length.max()), device="cpu").minimum(length - 1)
        query = torch.arange(int(count.max()), device="cpu").minimum(count - 1)
        rows = paths.path[paths.offsets[members, None] + key]
        asks = paths.queries[members, None] + query
        position = paths.first[members, None] + query if paths.causal else (length - 1).expand_as(query)
        complete = bool((position == key.shape[1] - 1).all())
        rows, asks_there, position = upload((rows, asks, position), device)
        seen = torch.arange(key.shape[1], device=device) <= position[:, None, :, None]
        buckets.append(Bucket(rows, asks_there, None if complete else seen))
        real = (torch.arange(query.shape[1], device="cpu") < count).flatten().nonzero().flatten()
        asked.append(asks.flatten()[real])
        places.append(start + real)
        start += query.numel()
    (order,) = upload((torch.cat(places)[torch.cat(asked).argsort()],), device)
    return Padded(tuple(buckets), order)


def padded_attention(q: Tensor, k: Tensor, v: Tensor, part: Padded) -> Tensor:
    """Attention of queries [Q, heads, D] over shared keys and values [R, heads, D]; [Q, heads, D]."""
    found = []
    for bucket in part.buckets:
        query, key, value = (
            rows[which].transpose(1, 2) for rows, which in ((q, bucket.queries), (k, bucket.keys), (v, bucket.keys))
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bucket.seen)
        found.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(found)[part.order]


class GpuProducts(TorchProducts):
    """torch's products on packed rows of any device, and attention in few calls.

    Unlike other products these leave a value in half precision that only the next product or attention reads;
    residuals, norms and softmax are float32 in any case. Float32 is IEEE's, whatever torch's settings allow. A value
    beyond float16's range, 65504, makes its row's embedding infinite or NaN.

    Args:
        dtype: of the operands of the products: float32, float16 or bfloat16.
        varlen: variable-length attention in that dtype; None: `padded_attention`.
        attention: what to call it.
        tf32: float32 operands, of which a GPU's products read the 10 leading bits of the fraction. On the CPU, and in
            attention, they are float32's.

    Attributes:
        variable_lengths: whether attention is variable-length.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        varlen: Varlen | None = None,
        attention: str = "padded attention",
        *,
        tf32: bool = False,
    ) -> None:
        super().__init__()
        self.precision = self.name = "tf32" if tf32 else str(dtype).removeprefix("torch.")
        self.attention = attention
        self._dtype = dtype
        self._varlen = varlen
        contexts = {torch.float32: exact_products, torch.float16: float32_sums}
        # Entered for each launch: torch's settings are the whole process's, and other threads launch as well.
        self._settings = contexts.get(dtype, nullcontext)
        self._multiply = tf32_linear if tf32 else F.linear
        self.variable_lengths = varlen is not None

    def prepare(self, layers: list[Affine]) -> PreparedLinear:
        """Joins the weights; the bias has the products' type too, so that it is added inside the product."""
        weight, bias = joined(layers).to(self._dtype).contiguous(), joined_bias(layers)
        bias = None if bias is None else bias.to(self._dtype)
        return PreparedLinear(weight.shape[0], weight.shape[1], weight, None, bias)

    def linear(
        self, x: Tensor, layer: PreparedLinear, threads: int, *, norm: Norm | None = None, add: Tensor | None = None
    ) -> Tensor:
        """See `Products`; without `add` the result has the products' type."""
        if norm is not None:
            x = self.normalise(x, norm, threads)
        x = x.to(self._dtype)
        with self._settings():
            out = self._multiply(x, layer.weight, layer.bias)
        return out if add is None else add.add_(out)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, paths: Paths, heads: int, threads: int) -> Tensor:
        """See `Products`. The description of the paths is made once, for all layers."""
        query, key, value = (part.view(len(part), heads, -1) for part in (q, k, v))
        if self._varlen is None:
            described: Padded = paths.kept(("padded", q.device), lambda: padded(paths, q.device))
            with self._settings():
                return padded_attention(query, key, value, described).flatten(1)
        part: Ragged = paths.kept(("ragged", q.device), lambda: ragged(paths, q.device))
        if part.keys is not None:
            key, value = key[part.keys], value[part.keys]
        return self._varlen(query, key, value, part).flatten(1)


def tf32_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The product x W^T + b of float32 x [R, K] and W [N, K], on a GPU in TF32 and without touching torch's settings.

    A product is a convolution of one pixel, and torch's call for convolutions takes its precision as an argument.
    """
    if not x.is_cuda:
        return F.linear(x, weight, bias)
    rows, filters = x[None, :, None].permute(0, 3, 1, 2), weight[:, None, None].permute(0, 3, 1, 2)  # channels last
    pairs = ((0, 0), (1, 1), (1, 1))  # padding, stride, dilation
    out: Tensor = torch.ops.aten.cudnn_convolution(rows, filters, *pairs, 1, False, False, True)
    out = out.permute(0, 2, 3, 1).reshape(len(x), len(weight))
    return out if bias is None else out.add_(bias)


def from_flash_attn(function: Callable[..., Any]) -> Varlen:
    """Wraps `flash_attn_varlen_func`; causal masks are aligned to the last query and key since flash-attn 2.1."""

    def attend(q: Tensor, k: Tensor, v: Tensor, part: Ragged) -> Tensor:
        found: Tensor = function(
            q,
            k,
            v,
            cu_seqlens_q=part.starts_q,
            cu_seqlens_k=part.starts_k,
            max_seqlen_q=part.longest_q,
            max_seqlen_k=part.longest_k,
            causal=part.causal,
        )
        return found

    return attend


def from_torch(function: Callable[..., Any]) -> Varlen:
    """Wraps `torch.nn.attention.varlen.varlen_attn`: of torch 2.10, with `is_causal`, or later, with `window_size`."""
    flagged = "is_causal" in inspect.signature(function).parameters

    def attend(q: Tensor, k: Tensor, v: Tensor, part: Ragged) -> Tensor:
        causal: dict[str, Any] = {"window_size": (-1, 0) if part.causal else (-1, -1)}
        if flagged:
            causal = {"is_causal": part.causal}
        sizes = part.starts_q, part.starts_k, part.longest_q, part.longest_k
        found: Tensor = function(q, k, v, *sizes, **causal)
        return found

    return attend


class Offer(NamedTuple):
    """An implementation of variable-length attention: its name, and the call, or why there is none."""

    name: str
    call: Varlen | None
    reason: str = ""


# What is called, with the names of the arguments that `from_flash_attn` and `from_torch` give it.
_FLASH = ("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k", "causal")
_WINDOWS = ("is_causal", "window_size")


def offers() -> Iterator[Offer]:
    """flash-attn's variable-length attention and torch's own, as they are installed here."""
    yield _offer("flash-attn", "flash_attn", "flash_attn_varlen_func", from_flash_attn)
    yield _offer("torch's variable-length attention", "torch.nn.attention.varlen", "varlen_attn", from_torch)


def _offer(name: str, module: str, function: str, wrap: Callable[[Any], Varlen]) -> Offer:
    try:
        found = getattr(import_module(module), function)
    except (ImportError, OSError) as error:  # built against another torch, or without what it needs
        if isinstance(error, ModuleNotFoundError) and error.name and module.startswith(error.name):
            return Offer(name, None, "not installed")
        return Offer(name, None, f"cannot be imported: {(str(error).strip() or 'no reason given').splitlines()[0]}")
    except AttributeError:
        return Offer(name, None, f"a release without {function}")
    try:
        named = set(inspect.signature(found).parameters)
    except (TypeError, ValueError):  # compiled, and does not say
        named = set()
    known = named.issuperset(_FLASH) if wrap is from_flash_attn else not named.isdisjoint(_WINDOWS)
    return Offer(name, wrap(found)) if known else Offer(name, None, f"a release with another {function}")


def installed() -> Iterator[tuple[str, Varlen]]:
    """Variable-length attention that can be called, the preferred one first."""
    for offer in offers():
        if offer.call is not None:
            yield offer.name, offer.call


def takes(capability: tuple[int, int] | None, width: int) -> bool:
    """Whether variable-length attention has kernels for a compute capability (None: the CPU) and a width of heads."""
    return (capability is None or capability >= (8, 0)) and width % 8 == 0 and width <= 256


def capability_of(device: torch.device) -> tuple[int, int] | None:
    """A GPU's compute capability, (9, 0) for sm_90; None for the CPU."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def attention_on(capability: tuple[int, int] | None, width: int = 64) -> str:
    """What an encoder on such a GPU attends with in half precision, before it is tried, and why with nothing better.

    Args:
        capability: the GPU's compute capability.
        width: of a head; those of the CLIPs in use have 64.
    """
    if not takes(capability, width):
        return "padded attention (others need compute capability 8.0 and heads of a multiple of 8, 256 at most)"
    passed: list[str] = []
    for offer in offers():
        if offer.call is not None:
            return f"{offer.name} ({'; '.join(passed)})" if passed else offer.name
        passed.append(f"{offer.name}: {offer.reason}")
    return f"padded attention ({'; '.join(passed)})"


def choose_gpu_products(dtype: torch.dtype, device: torch.device, heads: Sequence[tuple[int, int]]) -> GpuProducts:
    """The fastest products of a GPU whose attention agrees with `padded_attention`.

    Args:
        dtype: float32, float16 or bfloat16.
        device: where they are to run.
        heads: per tower the number of heads and the width of one.
    """
    # Flash attention is for half precision.
    if dtype != torch.float32 and all(takes(capability_of(device), width) for _, width in heads):
        for name, varlen in installed():
            products = GpuProducts(dtype, varlen, name)
            if all(attends(products, dtype, device, *tower) for tower in heads):
                return products
    return GpuProducts(dtype)


def attends(products: GpuProducts, dtype: torch.dtype, device: torch.device, heads: int, width: int) -> bool:
    """Whether attention of `products` agrees with `padded_attention`, on shared prefixes and on whole sequences.

    False too where the installation has no machine code for this GPU; every other error is raised.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    sequences = [(1, *range(2, 9), *range(20, 20 + more)) for more in (1, 3, 40)]
    text = pack_tokens([(1,), (1, 2), (1, 3, 4), *sequences, (7,)]).paths
    image = whole_sequences(2, 150)
    for paths in (text, text.only_ends, image, image.only_ends):
        rows = int(paths.path.max()) + 1
        qkv = torch.randn(rows, 3 * heads * width, generator=generator, dtype=torch.float32, device="cpu")
        q, k, v = qkv.to(device, dtype).chunk(3, dim=1)
        q = q[: int(paths.queries[-1])]
        expected = GpuProducts(dtype).attend(q, k, v, paths, heads, 1).float()
        try:
            found = products.attend(q, k, v, paths, heads, 1).float()
        except RuntimeError as error:
            if has_no_kernel(error):
                return False
            raise
        error_of_rows = (found - expected).norm(dim=1) / expected.norm(dim=1)
        if not bool((error_of_rows <= _SAME).all()):  # false for NaN too
            return False
    return True
