"""The arithmetic of a transformer tower on packed rows: this package's own kernels, or torch's.

All take and return float32 (those of varlen.py, for a GPU, leave bfloat16 between two products); what differs is the
precision of the matrix products. "int16": rows and weights are scaled
to 16-bit integers, by their norms so that 32-bit sums cannot overflow, and multiplied exactly (csrc/simd/
tower_kernels.h); relative error of a product about 1e-4, a twentieth of bfloat16's, at twice the speed of float32 where
AVX-512 VNNI is there. Residuals, norms, softmax and activations are float32 in every case.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch.nn import functional as F

from dpad_fast import _extension
from dpad_fast.clip.paths import Paths
from dpad_fast.clip.weights import Affine, Norm
from dpad_fast.ops._library import new_output

Tensor = torch.Tensor


@dataclass(frozen=True)
class Prepared:
    """A linear layer as one kind of kernels wants it: `scale` is None but for int16.

    `apart` holds layers of one input that were left as they are; `weight` and `bias` are then the first one's.
    """

    columns: int
    depth: int
    weight: Tensor
    scale: Tensor | None
    bias: Tensor | None
    apart: tuple[Affine, ...] = ()


class Kernels(Protocol):
    """What a tower is computed with."""

    name: str

    def prepare(self, layers: list[Affine]) -> Prepared:
        """Linear layers of one input as one."""
        ...

    def linear(
        self, x: Tensor, layer: Prepared, threads: int, *, norm: Norm | None = None, add: Tensor | None = None
    ) -> Tensor:
        """norm(x) W^T + b of x [R, K], [R, N]; with `add` [R, N] the sum is left there."""
        ...

    def mlp(self, x: Tensor, norm: Norm, up: Prepared, down: Prepared, activation: str, threads: int) -> None:
        """Adds down(act(up(norm(x)))) to x [R, K], in place."""
        ...

    def normalise(self, x: Tensor, norm: Norm, threads: int) -> Tensor:
        """The layer norm of x [R, K]."""
        ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, paths: Paths, heads: int, threads: int) -> Tensor:
        """Attention of queries [Q, C] over keys and values [R, C]; [Q, C]."""
        ...


class NativeKernels:
    """csrc/core/tower.h. Buffers are kept and used again: fresh pages of this size would cost as much as the products.

    Not for two threads at once, and the result of `linear` or `attend` lives until the next call that gives as many
    columns.

    Args:
        reduced: int16 products instead of float32.
    """

    def __init__(self, reduced: bool) -> None:
        self.name = "int16" if reduced else "float32"
        self._reduced = reduced
        self._buffers: dict[str, Tensor] = {}

    def prepare(self, layers: list[Affine]) -> Prepared:
        """Packs the weights into panels."""
        weight = torch.cat([layer.weight for layer in layers]).contiguous()
        bias = None if layers[0].bias is None else torch.cat([_present(layer.bias) for layer in layers])
        columns, depth = weight.shape
        native = _extension.C
        packed = torch.empty(
            native.packed_elements(columns, depth, self._reduced), dtype=torch.int16 if self._reduced else torch.float32
        )
        if not self._reduced:
            native.pack32(weight.data_ptr(), columns, depth, packed.data_ptr())
            return Prepared(columns, depth, packed, None, bias)
        scale = torch.empty((columns + 63) // 64 * 64)
        native.pack16(weight.data_ptr(), columns, depth, packed.data_ptr(), scale.data_ptr())
        return Prepared(columns, depth, packed, scale, bias)

    def linear(
        self, x: Tensor, layer: Prepared, threads: int, *, norm: Norm | None = None, add: Tensor | None = None
    ) -> Tensor:
        """See `Kernels`."""
        rows = len(x)
        out = self._buffer(f"out{layer.columns}", rows * layer.columns).view(rows, -1) if add is None else add
        finish = "store" if add is None else "add"
        _extension.C.tower_linear(x.data_ptr(), rows, _norm_parts(norm), _parts(layer), finish, threads, out.data_ptr())
        return out

    def mlp(self, x: Tensor, norm: Norm, up: Prepared, down: Prepared, activation: str, threads: int) -> None:
        """See `Kernels`."""
        if activation == "quick_gelu":
            _extension.C.tower_mlp(x.data_ptr(), len(x), _norm_parts(norm), _parts(up), _parts(down), threads)
        else:
            self.linear(F.gelu(self.linear(x, up, threads, norm=norm)), down, threads, add=x)

    def normalise(self, x: Tensor, norm: Norm, threads: int) -> Tensor:
        """See `Kernels`."""
        out = new_output(tuple(x.shape), x.dtype)
        _extension.C.tower_layer_norm(x.data_ptr(), *x.shape, _norm_parts(norm), threads, out.data_ptr())
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, paths: Paths, heads: int, threads: int) -> Tensor:
        """See `Kernels`."""
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

    def _buffer(self, role: str, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        kept = self._buffers.get(role)
        if kept is None or kept.numel() < count:
            self._buffers[role] = kept = torch.empty(count, dtype=dtype)
        return kept[:count]


class TorchKernels:
    """torch's own products, for processors where they are the faster: float32 without AVX-512, bfloat16 with AMX.

    Args:
        dtype: of the operands of the products; sums and results are float32.
        join: whether layers of one input become one product. If not, float32 weights are used where they are, which
            saves a copy of a quarter of the model.
    """

    def __init__(self, dtype: torch.dtype, join: bool = True) -> None:
        self.name = str(dtype).removeprefix("torch.")
        self._dtype, self._join = dtype, join

    def prepare(self, layers: list[Affine]) -> Prepared:
        """Joins the weights, if asked to; a layer of its own is not copied."""
        if len(layers) > 1 and not self._join and all(layer.weight.dtype == self._dtype for layer in layers):
            columns = sum(len(layer.weight) for layer in layers)
            return Prepared(
                columns, layers[0].weight.shape[1], layers[0].weight, None, layers[0].bias, apart=tuple(layers)
            )
        weight = layers[0].weight if len(layers) == 1 else torch.cat([layer.weight for layer in layers])
        weight = weight.to(self._dtype).contiguous()
        bias = None if layers[0].bias is None else torch.cat([_present(layer.bias) for layer in layers])
        return Prepared(weight.shape[0], weight.shape[1], weight, None, bias)

    def linear(
        self, x: Tensor, layer: Prepared, threads: int, *, norm: Norm | None = None, add: Tensor | None = None
    ) -> Tensor:
        """See `Kernels`."""
        if norm is not None:
            x = self.normalise(x, norm, threads)
        if layer.apart:
            out = torch.cat([F.linear(x, part.weight, part.bias) for part in layer.apart], dim=1)
        elif self._dtype == torch.float32:
            out = F.linear(x, layer.weight, layer.bias)
        else:
            out = F.linear(x.to(self._dtype), layer.weight).float()
            out = out if layer.bias is None else out.add_(layer.bias)
        return out if add is None else add.add_(out)

    def mlp(self, x: Tensor, norm: Norm, up: Prepared, down: Prepared, activation: str, threads: int) -> None:
        """See `Kernels`."""
        hidden = self.linear(x, up, threads, norm=norm)
        hidden = F.gelu(hidden) if activation == "gelu" else hidden.mul_(torch.sigmoid(1.702 * hidden))
        self.linear(hidden, down, threads, add=x)

    def normalise(self, x: Tensor, norm: Norm, threads: int) -> Tensor:
        """See `Kernels`."""
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
        last, which = lasts[members[0]], torch.tensor(members)
        rows = paths.path[paths.offsets[which, None] + torch.arange(length)]
        asks = paths.queries[which, None] + torch.arange(last - first)
        mask = None
        if paths.causal and last - first > 1:
            mask = torch.arange(length)[None, :] <= torch.arange(first, last)[:, None]
        made.append((rows, asks, mask))
    return made


def choose_kernels(reduced: bool) -> Kernels | None:
    """The fastest kernels of this processor; None where nothing reduced is faster than float32.

    Args:
        reduced: whether products may be less exact than float32's.
    """
    native = _extension.C.tower_level() != "scalar"
    if not reduced:
        return NativeKernels(False) if native else TorchKernels(torch.float32)
    if has_amx():
        return TorchKernels(torch.bfloat16)
    return NativeKernels(True) if native else None


def has_amx() -> bool:
    """Whether torch's bfloat16 products run on AMX tiles: then they are several times as fast as anything else."""
    # Private, and so asked with care: without the name there is no way to know, and int16 is right anywhere.
    supported = getattr(torch._C._cpu, "_is_amx_tile_supported", None)
    return bool(supported is not None and supported())


def _norm_parts(norm: Norm | None) -> tuple[int, int, float]:
    return (0, 0, 0.0) if norm is None else (norm.weight.data_ptr(), norm.bias.data_ptr(), norm.eps)


def _parts(layer: Prepared) -> tuple[int, int, int, int, int]:
    scale, bias = (0 if value is None else value.data_ptr() for value in (layer.scale, layer.bias))
    return layer.columns, layer.depth, layer.weight.data_ptr(), scale, bias


def _present(value: Tensor | None) -> Tensor:
    assert value is not None, "layers of one input have a bias all or none"
    return value
