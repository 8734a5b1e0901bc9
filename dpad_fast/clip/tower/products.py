"""The arithmetic of a transformer tower on packed rows: this package's own kernels, or torch's.

All take and return float32 (those of gpu_attention.py leave bfloat16 between two products). They differ in the
precision and the instructions of the matrix products. "int16": rows and weights are scaled to 16-bit integers and
multiplied exactly, by AVX-512 VNNI at once (csrc/simd/tower/table.h) or by AMX or Arm's I8MM in two digits of 8 bits
(csrc/simd/digits/table.h); relative error of a product about 1e-4, a twentieth of bfloat16's. "float32": by FMA, or by
AMX in three digits, 24 bits as a float32 has, with the error of torch's own product. Residuals, norms, softmax and
activations are float32 in every case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional as F

from dpad_fast._native import extension as _extension
from dpad_fast._native.address import address
from dpad_fast._native.memory import new_output
from dpad_fast.clip.tower.packing import Paths
from dpad_fast.clip.tower.weights import Affine, Norm

Tensor = torch.Tensor


@dataclass(frozen=True)
class PreparedLinear:
    """A linear layer prepared for one kind of products: `scale` is None for floats, `digits` is 0 for all but digits.

    `apart` holds layers of one input that were not joined; `weight` and `bias` are then the first layer's.
    """

    columns: int
    depth: int
    weight: Tensor
    scale: Tensor | None
    bias: Tensor | None
    apart: tuple[Affine, ...] = ()
    digits: int = 0


class Products(Protocol):
    """The arithmetic of a tower.

    Attributes:
        precision: "float32", "bfloat16" or "int16".
        name: the precision and the instructions, in words.
    """

    precision: str
    name: str

    def prepare(self, layers: list[Affine]) -> PreparedLinear:
        """Linear layers of one input as one."""
        ...

    def linear(
        self, x: Tensor, layer: PreparedLinear, threads: int, *, norm: Norm | None = None, add: Tensor | None = None
    ) -> Tensor:
        """norm(x) W^T + b of x [R, K], [R, N]; with `add` [R, N] the sum is left there."""
        ...

    def mlp(
        self, x: Tensor, norm: Norm, up: PreparedLinear, down: PreparedLinear, activation: str, threads: int
    ) -> None:
        """Adds down(act(up(norm(x)))) to x [R, K], in place."""
        ...

    def normalise(self, x: Tensor, norm: Norm, threads: int) -> Tensor:
        """The layer norm of x [R, K]."""
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, paths: Paths, heads: int, threads: int) -> Tensor:
        """Attention of queries [Q, C] over keys and values [R, C]; [Q, C]."""
        ...


# By kind of product: its precision.
_KINDS = {"float32": "float32", "int16": "int16", "digits2": "int16", "digits3": "float32"}
_DIGITS = {"digits2": 2, "digits3": 3}
# The instructions for digits in words, by level. AMX elsewhere too: only tests use digits there.
_DIGITS_ON = {"i8mm": "I8MM"}


class NativeProducts:
    """Products of csrc/core/tower/tower.h. Buffers are reused: fresh pages would cost as much as the products.

    It must not be used by two threads at once. The result of `linear` or `attend` is valid until the next call with as
    many columns.

    Args:
        kind: "float32" or "int16", by AVX-512, NEON or plain C++; "digits3" (float32) or "digits2" (int16), by AMX,
            I8MM or, as slowly as one can, plain C++.
    """

    def __init__(self, kind: str) -> None:
        self.precision = self.name = _KINDS[kind]
        if kind in _DIGITS:
            self.name += f" on {_DIGITS_ON.get(products_level(), 'AMX')}"
        self._kind = kind
        self._buffers: dict[str, Tensor] = {}

    def prepare(self, layers: list[Affine]) -> PreparedLinear:
        """Packs the weights into panels. In three digits they serve "digits2" as well."""
        weight, bias = joined(layers).contiguous(), joined_bias(layers)
        columns, depth = weight.shape
        native, digits = _extension.C, _DIGITS.get(self._kind, 0)
        scale = None if self._kind == "float32" else _host((columns + 63) // 64 * 64, torch.float32)
        if digits:
            packed = _host(native.digit_bytes(columns, depth, digits), torch.int8)
            native.pack_digits(weight.data_ptr(), columns, depth, digits, packed.data_ptr(), address(scale))
        elif scale is None:
            packed = _host(native.packed_elements(columns, depth, False), torch.float32)
            native.pack32(weight.data_ptr(), columns, depth, packed.data_ptr())
        else:
            packed = _host(native.packed_elements(columns, depth, True), torch.int16)
            native.pack16(weight.data_ptr(), columns, depth, packed.data_ptr(), scale.data_ptr())
        return PreparedLinear(columns, depth, packed, scale, bias, digits=digits)

    def linear(
        self, x: Tensor, layer: PreparedLinear, threads: int, *, norm: Norm | None = None, add: Tensor | None = None
    ) -> Tensor:
        """See `Products`."""
        rows = len(x)
        out = self._buffer(f"out{layer.columns}", rows * layer.columns).view(rows, -1) if add is None else add
        finish = "store" if add is None else "add"
        _extension.C.tower_linear(
            x.data_ptr(), rows, _norm_parts(norm), self._parts(layer), finish, threads, out.data_ptr()
        )
        return out

    def mlp(
        self, x: Tensor, norm: Norm, up: PreparedLinear, down: PreparedLinear, activation: str, threads: int
    ) -> None:
        """See `Products`."""
        if activation == "quick_gelu":
            parts = self._parts(up), self._parts(down)
            _extension.C.tower_mlp(x.data_ptr(), len(x), _norm_parts(norm), *parts, threads)
        else:
            self.linear(F.gelu(self.linear(x, up, threads, norm=norm)), down, threads, add=x)

    def normalise(self, x: Tensor, norm: Norm, threads: int) -> Tensor:
        """See `Products`."""
        out = new_output(tuple(x.shape), x.dtype)
        _extension.C.tower_layer_norm(x.data_ptr(), *x.shape, _norm_parts(norm), threads, out.data_ptr())
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, paths: Paths, heads: int, threads: int) -> Tensor:
        """See `Products`."""
        queries, width = q.shape
        out = self._buffer("attended", queries * width).view(queries, width)
        _extension.C.path_attention(
            paths.count,
            *(part.data_ptr() for part in (paths.path, paths.offsets, paths.first, paths.last)),
            heads,
            width // heads,
            paths.causal,
            threads,
            q.data_ptr(),
            q.stride(0),
            k.data_ptr(),
            v.data_ptr(),
            k.stride(0),
            out.data_ptr(),
        )
        return out

    def _parts(self, layer: PreparedLinear) -> tuple[str, int, int, int, int, int, int]:
        places = layer.weight.data_ptr(), address(layer.scale), address(layer.bias)
        return self._kind, layer.digits, layer.columns, layer.depth, *places

    def _buffer(self, role: str, count: int) -> Tensor:
        kept = self._buffers.get(role)
        if kept is None or kept.numel() < count:
            self._buffers[role] = kept = _host(count, torch.float32)
        return kept[:count]


def _host(count: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(count, dtype=dtype, device="cpu")


def _positions(count: int) -> Tensor:
    return torch.arange(count, device="cpu")


class TorchProducts:
    """torch's own products, in float32: for processors without AVX-512 or NEON, and beside int16.

    Args:
        join: whether layers of one input become one product. If not, weights are used where they are, which saves a
            copy of a quarter of the model.
    """

    precision = name = "float32"

    def __init__(self, join: bool = True) -> None:
        self._join = join

    def prepare(self, layers: list[Affine]) -> PreparedLinear:
        """Joins the weights under `join`; a single layer is not copied."""
        first, columns = layers[0], sum(len(layer.weight) for layer in layers)
        depth, apart = first.weight.shape[1], len(layers) > 1 and not self._join
        if apart and all(layer.weight.dtype == torch.float32 for layer in layers):
            return PreparedLinear(columns, depth, first.weight, None, first.bias, apart=tuple(layers))
        weight = joined(layers).to(torch.float32).contiguous()
        return PreparedLinear(columns, depth, weight, None, joined_bias(layers))

    def linear(
        self, x: Tensor, layer: PreparedLinear, threads: int, *, norm: Norm | None = None, add: Tensor | None = None
    ) -> Tensor:
        """See `Products`."""
        if norm is not None:
            x = self.normalise(x, norm, threads)
        if layer.apart:
            out = torch.cat([F.linear(x, part.weight, part.bias) for part in layer.apart], dim=1)
        else:
            out = F.linear(x, layer.weight, layer.bias)
        return out if add is None else add.add_(out)

    def mlp(
        self, x: Tensor, norm: Norm, up: PreparedLinear, down: PreparedLinear, activation: str, threads: int
    ) -> None:
        """See `Products`."""
        hidden = self.linear(x, up, threads, norm=norm)
        hidden = F.gelu(hidden) if activation == "gelu" else hidden.mul_(torch.sigmoid(1.702 * hidden))
        self.linear(hidden, down, threads, add=x)

    def normalise(self, x: Tensor, norm: Norm, threads: int) -> Tensor:
        """See `Products`."""
        return F.layer_norm(x, (x.shape[1],), norm.weight, norm.bias, norm.eps)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, paths: Paths, heads: int, threads: int) -> Tensor:
        """One call for all sequences of one length and as many queries."""
        out = torch.empty_like(q)
        for rows, asks, mask in paths.kept("groups", lambda: _groups(paths)):
            query, key, value = (
                part.view(*part.shape[:2], heads, -1).transpose(1, 2) for part in (q[asks], k[rows], v[rows])
            )
            out[asks] = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
        return out


def _groups(paths: Paths) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """Sequences of one length and as many queries: rows of keys [n, length] and queries [n, q], mask [q, length]."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (length, first) in enumerate(zip(paths.lengths, paths.first.tolist(), strict=True)):
        groups.setdefault((length, first), []).append(i)
    lasts, made = paths.last.tolist(), []
    for (length, first), members in groups.items():
        last, which = lasts[members[0]], torch.tensor(members, device="cpu")
        rows = paths.path[paths.offsets[which, None] + _positions(length)]
        asks = paths.queries[which, None] + _positions(last - first)
        mask = None
        if paths.causal and last - first > 1:
            mask = _positions(length)[None, :] <= first + _positions(last - first)[:, None]
        made.append((rows, asks, mask))
    return made


def has_amx() -> bool:
    """Whether products run on AMX tiles, which are several times as fast as anything else."""
    return products_level() == "amx"


def products_level() -> str:
    """The instruction set of this package's own products: "scalar", "avx512", "amx", "neon" or "i8mm"."""
    return str(_extension.C.simd_report()["tower"])


def _norm_parts(norm: Norm | None) -> tuple[int, int, float]:
    return (0, 0, 0.0) if norm is None else (norm.weight.data_ptr(), norm.bias.data_ptr(), norm.eps)


def joined(layers: list[Affine]) -> Tensor:
    """The weights of layers of one input, one below the other; not a copy where there is one layer."""
    return layers[0].weight if len(layers) == 1 else torch.cat([layer.weight for layer in layers])


def joined_bias(layers: list[Affine]) -> Tensor | None:
    """Their biases, which all or none of them have."""
    biases = [layer.bias for layer in layers if layer.bias is not None]
    assert len(biases) in (0, len(layers)), "layers of one input have a bias all or none"
    return torch.cat(biases) if biases else None
