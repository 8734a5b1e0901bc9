"""A CLIP's two towers over packed rows: no padding, shared prefixes once, and only the read rows of the last layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Literal

import torch

from dpad_fast._native.memory import new_output
from dpad_fast._native.upload import upload
from dpad_fast.clip.fork import free_lock_in_child
from dpad_fast.clip.tokens import Ids
from dpad_fast.clip.tower.packing import PackedTokens, Paths, pack_texts, whole_sequences
from dpad_fast.clip.tower.products import PreparedLinear, Products
from dpad_fast.clip.tower.weights import Affine, ClipWeights, Layer, Norm, Transformer

Tensor = torch.Tensor
# Rows of one call: enough for the products to run at full speed; memory grows with it (100 MB here).
_ROWS = 2048
# On a GPU more are needed to keep it busy. By their shapes 16,384 rows of ViT-B are 0.4 GB in bfloat16, 0.8 in float32.
_GPU_ROWS = 16384


@dataclass(frozen=True)
class _Layer:
    norm1: Norm
    qkv: PreparedLinear | None  # all but the last layer
    query: PreparedLinear | None  # the last layer: of the rows that are read
    key_value: PreparedLinear | None
    out: PreparedLinear
    norm2: Norm
    up: PreparedLinear
    down: PreparedLinear


class Body:
    """The layers of one tower, prepared for some products."""

    def __init__(self, body: Transformer, products: Products) -> None:
        self.products, self.heads, self.activation = products, body.heads, body.activation
        self.layers = [self._prepare(layer, layer is body.layers[-1]) for layer in body.layers]

    def sharing(self, products: Products) -> Body:
        """The same prepared layers with other products."""
        body = copy.copy(self)
        body.products = products
        return body

    def _prepare(self, layer: Layer, last: bool) -> _Layer:
        prepare = self.products.prepare
        return _Layer(
            layer.norm1,
            None if last else prepare([layer.query, layer.key, layer.value]),
            prepare([layer.query]) if last else None,
            prepare([layer.key, layer.value]) if last else None,
            prepare([layer.out]),
            layer.norm2,
            prepare([layer.up]),
            prepare([layer.down]),
        )

    def __call__(self, x: Tensor, paths: Paths, ends: Tensor, threads: int) -> Tensor:
        """Rows x [R, C], which are overwritten, to what the rows `ends` [S] become after the last layer, [S, C]."""
        for layer in self.layers[:-1]:
            assert layer.qkv is not None
            qkv = self.products.linear(x, layer.qkv, threads, norm=layer.norm1)
            query, key, value = qkv.chunk(3, dim=1)
            self._attend_and_mlp(x, (query, key, value), layer, paths, threads)
        layer = self.layers[-1]
        assert layer.query is not None
        assert layer.key_value is not None
        key, value = self.products.linear(x, layer.key_value, threads, norm=layer.norm1).chunk(2, dim=1)
        x = x[ends]
        query = self.products.linear(x, layer.query, threads, norm=layer.norm1)
        self._attend_and_mlp(x, (query, key, value), layer, paths.only_ends, threads)
        return x

    def _attend_and_mlp(
        self, x: Tensor, qkv: tuple[Tensor, Tensor, Tensor], layer: _Layer, paths: Paths, threads: int
    ) -> None:
        attended = self.products.attend(*qkv, paths, self.heads, threads)
        self.products.linear(attended, layer.out, threads, add=x)
        self.products.mlp(x, layer.norm2, layer.up, layer.down, self.activation, threads)


class Towers:
    """Both towers of a CLIP with some products. Calls from several threads take turns.

    Args:
        weights: lie where the towers are to run.
        products: the arithmetic.
        rows_at_once: the most rows (tokens of texts, patches of pictures) of one call, which bounds its memory; more
            work is done in several. None: 2,048 on the CPU, 16,384 on a GPU.

    Raises:
        ValueError: one text or picture has more rows than `rows_at_once`.
    """

    def __init__(self, weights: ClipWeights, products: Products, rows_at_once: int | None = None) -> None:
        self.device = weights.text.tokens.device
        self._text, self._image = Body(weights.text.body, products), Body(weights.image.body, products)
        # The bodies hold the prepared layers; the original weights here would be a second copy.
        text = replace(weights.text, body=replace(weights.text.body, layers=()))
        image = replace(weights.image, body=replace(weights.image.body, layers=()))
        self._products, self._weights = products, ClipWeights(text, image)
        self._patch = products.prepare([weights.image.patch])
        self._projections = [products.prepare([Affine(w.projection, None)]) for w in (weights.text, weights.image)]
        self._rows_at_once = self._checked(rows_at_once)
        self._lock = Lock()
        free_lock_in_child(self)

    @property
    def rows_at_once(self) -> int:
        """See the class."""
        return self._rows_at_once

    def _checked(self, rows: int | None) -> int:
        if rows is None:
            return _ROWS if self.device.type == "cpu" else _GPU_ROWS
        least = max(self.context, self.picture_rows)
        if not isinstance(rows, int) or rows < least:
            what = f"a whole number of at least {least}, the rows of one text or picture"
            raise ValueError(f"rows_at_once must be {what}, got {rows!r:.80}")
        return rows

    @property
    def products(self) -> Products:
        """The products of both towers."""
        return self._products

    def sharing(self, products: Products) -> Towers:
        """The same towers with other products, which take the weights as these have prepared them."""
        clip = copy.copy(self)
        clip._text, clip._image = self._text.sharing(products), self._image.sharing(products)
        clip._products, clip._lock = products, Lock()
        free_lock_in_child(clip)
        return clip

    def texts(self, rows: Sequence[Ids], threads: int) -> Tensor:
        """Embeddings, not normalised, of N token id lists: float32 [N, D], where the weights are."""
        packed, places = pack_texts(rows, self._rows_at_once, read=self.read)
        parts = []
        for piece in packed:
            with self._lock:
                parts.append(self._some_texts(piece, threads))
        return torch.cat(parts)[places]

    def images(self, pixels: Tensor, threads: int) -> Tensor:
        """Embeddings, not normalised, of K preprocessed images [K, 3, side, side]: float32 [K, D], as `texts`."""
        step = max(1, self._rows_at_once // self.picture_rows)
        parts = []
        for start in range(0, len(pixels), step):
            with self._lock:
                parts.append(self._some_images(pixels[start : start + step], threads))
        return torch.cat(parts)

    @property
    def context(self) -> int:
        """The most tokens of a text."""
        return int(self._weights.text.positions.shape[0])

    @property
    def picture_rows(self) -> int:
        """Rows of a picture: its patches and the class token."""
        return int(self._weights.image.positions.shape[0])

    @property
    def patch_values(self) -> int:
        """Values of a patch."""
        return 3 * self._weights.image.side**2

    @property
    def read(self) -> int | Literal["largest"]:
        """The token of a text that is read, as `pack_texts` takes it."""
        end = self._weights.text.end
        return "largest" if end is None else end

    def samples(self) -> tuple[list[Ids], Tensor]:
        """Texts up to the longest, some with shared beginnings, and two pictures, to try these towers on."""
        tower = self._weights.text
        end = len(tower.tokens) - 1 if tower.end is None else tower.end
        one, other = [i for i in range(3) if i != end][:2]
        texts = [(*[one] * count, end) for count in (1, 2, self.context // 2, self.context - 1)]
        side = self._weights.image.side * round((self.picture_rows - 1) ** 0.5)
        generator = torch.Generator("cpu").manual_seed(0)
        pixels = torch.randn(2, 3, side, side, generator=generator, dtype=torch.float32, device="cpu")
        return [*texts, (other, end)], pixels.to(self.device)

    def _some_texts(self, packed: PackedTokens, threads: int) -> Tensor:
        there = (packed.tokens, packed.positions, packed.paths.ends)
        tokens, positions, ends = there if self.device.type == "cpu" else upload(there, self.device)
        return self.of_tokens(tokens, positions, packed.paths, ends, threads)

    def of_tokens(self, tokens: Tensor, positions: Tensor, paths: Paths, ends: Tensor, threads: int) -> Tensor:
        """Embeddings float32 [S, D] of packed texts, see `pack_texts`; `ends` [S] are the rows that are read."""
        tower = self._weights.text
        x = self._memory(len(tokens), tower.tokens.shape[1])
        torch.add(tower.tokens[tokens], tower.positions[positions], out=x)
        x = self._text(x, paths, ends, threads)
        return self._project(x, tower.norm, self._projections[0], threads)

    def _some_images(self, pixels: Tensor, threads: int) -> Tensor:
        count = len(pixels)
        flat = self._memory(count * (self.picture_rows - 1), self.patch_values)
        self.copy_patches(pixels, flat)
        return self.of_patches(flat, whole_sequences(count, self.picture_rows), threads)

    def copy_patches(self, pixels: Tensor, flat: Tensor) -> None:
        """Copies images [K, 3, side, side] into float32 [K * patches, 3 * patch side^2]."""
        count, side = len(pixels), self._weights.image.side
        grid = pixels.shape[-1] // side
        patches = pixels.reshape(count, 3, grid, side, grid, side).permute(0, 2, 4, 1, 3, 5)
        flat.view(patches.shape).copy_(patches)

    def of_patches(self, flat: Tensor, paths: Paths, threads: int) -> Tensor:
        """Embeddings float32 [K, D] of K images as patches, see `copy_patches`; `paths` are their whole sequences."""
        tower, count, length = self._weights.image, paths.count, self.picture_rows
        rows = self._products.linear(flat, self._patch, threads)
        x = self._memory(count, length, rows.shape[1])
        torch.add(rows.view(count, length - 1, -1), tower.positions[1:], out=x[:, 1:])
        x[:, 0] = tower.first + tower.positions[0]
        x = self._products.normalise(x.view(count * length, -1), tower.norm_in, threads)
        first = torch.arange(count, device=self.device) * length
        # Attention is not causal, so any position may be the only query; the rows that are read are the class tokens.
        x = self._image(x, paths, first, threads)
        return self._project(x, tower.norm, self._projections[1], threads)

    def _memory(self, *shape: int) -> Tensor:
        """Float32 memory for one call, not from torch's heap.

        On the heap the embeddings that are kept would fragment the freed memory, and a large batch would hold several
        hundred megabytes more.
        """
        if self.device.type == "cpu":
            return new_output(shape, torch.float32)
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def _project(self, x: Tensor, norm: Norm, projection: PreparedLinear, threads: int) -> Tensor:
        # A copy: the result may lie in a buffer that the next call overwrites.
        return self._products.linear(x, projection, threads, norm=norm).to(torch.float32, copy=True)
