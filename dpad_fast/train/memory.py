"""Formulas of the memory of a training step, from the sizes of an architecture.

Activations are the tensors that autograd keeps for the backward pass under transformers' code and torch's attention
(docs/dry-run.md says how close the formulas are to what was measured). The allocator's blocks, kernels' buffers and the
CUDA context come on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TILE_TOKENS, TILE_WORDS = 4096, 32768  # TRL 1.16 makes logits in tiles of so many tokens by so many of the vocabulary


@dataclass(frozen=True)
class Amount:
    """A number of bytes, and where it comes from.

    Attributes:
        bytes: the amount.
        formula: in words and numbers.
    """

    bytes: int
    formula: str


@dataclass(frozen=True)
class Text:
    """Sizes of a language model: layers, width h, heads, heads of keys and values, their size d, width m of the MLP."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int
    mlp: int
    vocabulary: int
    head_norms: bool  # Qwen3's norms of queries and keys

    @classmethod
    def of(cls, config: Any) -> Text:
        """From a `text_config` of transformers."""
        heads = int(config.num_attention_heads)
        return cls(
            layers=int(config.num_hidden_layers),
            width=int(config.hidden_size),
            heads=heads,
            kv_heads=int(config.num_key_value_heads),
            head=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
            mlp=int(config.intermediate_size),
            vocabulary=int(config.vocab_size),
            head_norms="qwen3" in config.model_type,
        )

    def layer(self, size: int, tokens: int, flash: bool = False) -> int:
        """Bytes that one layer keeps per token of a sequence of `tokens`, in numbers of `size` bytes."""
        norms = 2 * (self.width * (4 + 2 * size) + 4)
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        kept = 2 * queries + 2 * (keys if flash else queries)  # torch repeats keys and values to the queries' number
        attention = kept * size + 4 * self.heads + (0 if flash else tokens * size)  # and the layer's mask
        if self.head_norms:
            attention += (queries + keys) * (4 + size) + 4 * (self.heads + self.kv_heads)
        return norms + attention + 4 * self.mlp * size


@dataclass(frozen=True)
class Vision:
    """Sizes of a vision tower: layers, width w, heads, width m of the MLP, numbers of a patch, its family."""

    kind: str
    layers: int
    width: int
    heads: int
    mlp: int
    patch: int  # numbers in a patch: channels x frames x side x side
    merge: int  # patches per token, along one side
    deep: int  # Qwen3-VL's mergers of earlier layers
    text_width: int

    @classmethod
    def of(cls, config: Any) -> Vision:
        """From a configuration of transformers, of a family of `tiny_policy.FAMILIES`."""
        vision, kind = config.vision_config, config.model_type
        side = vision.patch_size[0] if isinstance(vision.patch_size, list | tuple) else vision.patch_size
        if kind.startswith("qwen"):
            width = vision.embed_dim if kind == "qwen2_vl" else vision.hidden_size
            mlp = vision.embed_dim * vision.mlp_ratio if kind == "qwen2_vl" else vision.intermediate_size
            layers, heads, merge = vision.depth, vision.num_heads, vision.spatial_merge_size
        else:
            width, mlp = vision.hidden_size, vision.intermediate_size
            layers, heads = vision.num_hidden_layers, vision.num_attention_heads
            merge = config.scale_factor if hasattr(config, "scale_factor") else round(1 / config.downsample_ratio)
        frames = getattr(vision, "temporal_patch_size", 1)
        return cls(
            kind=kind,
            layers=int(layers),
            width=int(width),
            heads=int(heads),
            mlp=int(mlp),
            patch=3 * int(frames) * int(side) ** 2,
            merge=int(merge),
            deep=len(getattr(vision, "deepstack_visual_indexes", None) or ()) if kind == "qwen3_vl" else 0,
            text_width=int(config.text_config.hidden_size),
        )

    def layer(self, size: int) -> int:
        """Bytes that one layer keeps per patch, in numbers of `size` bytes."""
        if self.kind == "qwen2_5_vl":
            return 2 * (self.width * (4 + 2 * size) + 4) + (7 * self.width + 4 * self.mlp) * size + 4 * self.heads
        # Layer norms keep what comes in and goes out; Qwen's towers cut keys and values out of one.
        widths = {"qwen2_vl": 11, "qwen3_vl": 11, "internvl": 10}.get(self.kind, 8)
        mlps = 3 if self.kind == "qwen2_vl" else 2
        return (widths * self.width + mlps * self.mlp) * size + 16 + 4 * self.heads

    def ends(self, size: int) -> int:
        """Bytes kept per patch before the first and after the last layer: the patches, and what merges them."""
        merged = {"internvl": 2 * self.width + 2 * self.text_width // self.merge**2}.get(self.kind, self.width)
        if self.kind.startswith("qwen"):
            merged = 4 * self.width * (1 + self.deep)
        return (self.patch + merged) * size


def activations(
    text: Text,
    vision: Vision | None,
    rows: int,
    tokens: int,
    patches: int,
    size: int,
    *,
    checkpointing: bool,
    flash: bool,
) -> Amount:
    """The memory that a forward pass keeps for the backward pass.

    Args:
        text: the language model.
        vision: the tower, or None where it is frozen, and keeps nothing.
        rows: sequences at a time.
        tokens: of the longest, prompt and completion; all are padded to it.
        patches: of the tower, per sequence.
        size: bytes of a number.
        checkpointing: keep only what goes into each layer, and one layer in full while it is computed again.
        flash: flash attention, which needs no mask and no repeated keys.

    Returns:
        The bytes, and the formula.
    """
    layer = text.layer(size, tokens, flash)
    last = text.width * (4 + 3 * size)
    if checkpointing:
        per_token = text.layers * text.width * size + layer + last
        words = f"layers {text.layers} x h {text.width} x {size} B + one layer {layer}"
    else:
        per_token = text.layers * layer + last
        words = f"layers {text.layers} x {layer} B a token"
    whole = rows * tokens * per_token
    formula = f"rows {rows} x tokens {tokens} x ({words} + last norm {last})"
    if vision is not None:
        tower = vision.layer(size)
        kept = vision.layers * vision.width * size + tower if checkpointing else vision.layers * tower
        per_patch = kept + vision.ends(size)
        whole += rows * patches * per_patch
        formula += f" + rows {rows} x patches {patches} x {per_patch} B (vision tower)"
    return Amount(whole, formula)


def kv_cache(text: Text, rows: int, tokens: int, size: int) -> Amount:
    """Keys and values while completions are sampled.

    Args:
        text: the language model.
        rows: completions at a time.
        tokens: prompt and longest completion.
        size: bytes of a number.

    Returns:
        The bytes, and the formula.
    """
    whole = rows * tokens * 2 * text.layers * text.kv_heads * text.head * size
    formula = f"rows {rows} x tokens {tokens} x 2 x layers {text.layers} x kv heads {text.kv_heads} x d {text.head}"
    return Amount(whole, f"{formula} x {size} B")


def logits(text: Text, rows: int, completion: int, size: int) -> Amount:
    """TRL 1.16 computes log-probabilities from tiles; sampling holds float32 scores and probabilities of one place.

    Args:
        text: the language model.
        rows: sequences of one backward pass.
        completion: tokens of the longest completion.
        size: bytes of a number.

    Returns:
        The bytes, and the formula.
    """
    count = min(rows * completion, TILE_TOKENS)
    words = min(text.vocabulary, TILE_WORDS)
    whole = count * words * size + text.vocabulary * text.width * 4
    return Amount(
        whole, f"tile {count} x {words} x {size} B + float32 gradient of the head {text.vocabulary} x h x 4 B"
    )
