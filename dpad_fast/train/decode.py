"""Sampling from a small Qwen2.5-VL on a CPU, without the overhead of `generate`.

For a model of a few million parameters `generate` spends most of its time around the arithmetic: it prefills all G
copies of a prompt, grows the cache by concatenation, and carries finished rows to the end. Here distinct prompts are
prefilled once by the model itself; then a plain loop over the same weights writes into preallocated caches and drops
rows as they finish. Same distribution, other random draws. Large models and GPUs are left to `generate` and to vLLM.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from dpad_fast.train.shared_vision import distinct_images, share_vision

SMALL = 50_000_000  # parameters; above, arithmetic dominates and nothing is gained


def supports(model: Any) -> bool:
    """Whether `sample` can run a model: a small float32 Qwen2.5-VL on a CPU, with full attention everywhere.

    Args:
        model: any model.

    Returns:
        True where `sample` may take the place of `generate`.
    """
    if type(model).__name__ != "Qwen2_5_VLForConditionalGeneration" or model.device.type != "cpu":
        return False
    text = model.config.get_text_config()
    plain = set(text.layer_types) == {"full_attention"} and text.hidden_act == "silu"
    return bool(plain and model.dtype == torch.float32 and model.num_parameters() <= SMALL)


@dataclass(frozen=True)
class _Layer:
    """The weights of one decoder layer, with what is applied to the same input joined."""

    norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor
    out: torch.Tensor
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor
    eps: float

    @classmethod
    def of(cls, layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        return cls(
            norm=layer.input_layernorm.weight,
            qkv=torch.cat([part.weight for part in parts]),
            qkv_bias=torch.cat([part.bias for part in parts]),
            out=attention.o_proj.weight,
            mlp_norm=layer.post_attention_layernorm.weight,
            gate_up=torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
            down=mlp.down_proj.weight,
            eps=layer.input_layernorm.variance_epsilon,
        )


class Decoder:
    """The state of a batch that is being decoded: caches, masks and positions of the rows that go on.

    Args:
        model: see `supports`.
        inputs: what the processor made, padded on the left: `input_ids` and `attention_mask` [N, P], and the image's.
        new_tokens: how many tokens the caches leave room for.
    """

    def __init__(self, model: Any, inputs: Mapping[str, torch.Tensor], new_tokens: int) -> None:
        text = model.model.language_model
        config = text.config
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.layers = [_Layer.of(layer) for layer in text.layers]
        self.embedding, self.head = text.embed_tokens.weight, model.lm_head.weight
        self.norm, self.eps = text.norm.weight, text.norm.variance_epsilon
        first, copy_of = _distinct_rows(inputs)
        share_vision(model)
        output = model.model(**_take(inputs, first), use_cache=True)
        rows = torch.tensor(copy_of)
        self.hidden = output.last_hidden_state[:, -1][rows]  # [N, D], after the final norm
        mask = inputs["attention_mask"]
        self.filled = mask.shape[1]
        self.keys: list[torch.Tensor] = []  # per layer, [N, kv_heads, P + new_tokens, D]
        self.values: list[torch.Tensor] = []
        for layer in output.past_key_values.layers:
            for kept, filled in ((self.keys, layer.keys), (self.values, layer.values)):
                cache = filled.new_zeros(len(rows), filled.shape[1], self.filled + new_tokens, filled.shape[3])
                cache[:, :, : self.filled] = filled[rows]
                kept.append(cache)
        padding = torch.zeros(len(rows), self.filled + new_tokens).masked_fill_(
            F.pad(mask, (0, new_tokens), value=1) == 0, float("-inf")
        )
        self.bias = padding[:, None, None, :]  # added to attention scores
        start = mask.sum(dim=1, keepdim=True) + model.model.rope_deltas[rows].to(mask.device)
        positions = start + torch.arange(new_tokens)  # [N, new_tokens], equal in the three parts of the rotary code
        cosine, sine = text.rotary_emb(self.embedding, positions[None].expand(3, -1, -1))
        if cosine.dim() == 4:  # some versions of transformers leave the three parts apart
            cosine, sine = cosine[0], sine[0]
        self.cosine, self.sine = cosine[:, :, None], sine[:, :, None]  # [N, new_tokens, 1, D]
        self.step = 0

    def logits(self) -> torch.Tensor:
        """Scores [rows, vocabulary] of the next token."""
        return F.linear(self.hidden, self.head)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some of the rows only."""
        self.hidden, self.bias = self.hidden[rows], self.bias[rows]
        self.cosine, self.sine = self.cosine[rows], self.sine[rows]
        self.keys = [cache[rows] for cache in self.keys]
        self.values = [cache[rows] for cache in self.values]

    def feed(self, tokens: torch.Tensor) -> None:
        """Append one token [rows] to every row."""
        place, end = self.filled + self.step, self.filled + self.step + 1
        cosine, sine = self.cosine[:, self.step], self.sine[:, self.step]
        rotated = self.heads + self.kv_heads
        x = F.embedding(tokens, self.embedding)
        for layer, keys, values in zip(self.layers, self.keys, self.values, strict=True):
            normed = F.rms_norm(x, (x.shape[-1],), layer.norm, layer.eps)
            qkv = F.linear(normed, layer.qkv, layer.qkv_bias).view(len(x), rotated + self.kv_heads, -1)
            turned = qkv[:, :rotated]
            low, high = turned.chunk(2, dim=-1)
            turned = turned * cosine + torch.cat((-high, low), dim=-1) * sine
            keys[:, :, place] = turned[:, self.heads :]
            values[:, :, place] = qkv[:, rotated:]
            attended = F.scaled_dot_product_attention(
                turned[:, : self.heads, None],
                keys[:, :, :end],
                values[:, :, :end],
                attn_mask=self.bias[..., :end],
                enable_gqa=self.heads != self.kv_heads,
            )
            x = x + F.linear(attended.flatten(1), layer.out)
            normed = F.rms_norm(x, (x.shape[-1],), layer.mlp_norm, layer.eps)
            gate, up = F.linear(normed, layer.gate_up).chunk(2, dim=-1)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        self.hidden = F.rms_norm(x, (x.shape[-1],), self.norm, self.eps)
        self.step += 1


def _distinct_rows(inputs: Mapping[str, torch.Tensor]) -> tuple[list[int], list[int]]:
    """First copy of every distinct (prompt, image) row, and for each row which of those it equals."""
    _, picture = distinct_images(inputs["pixel_values"], inputs["image_grid_thw"])
    seen: dict[tuple[tuple[int, ...], int], int] = {}
    first: list[int] = []
    copy_of: list[int] = []
    for row, (ids, image) in enumerate(zip(inputs["input_ids"].tolist(), picture, strict=True)):
        key = (tuple(ids), image)
        if key not in seen:
            seen[key] = len(first)
            first.append(row)
        copy_of.append(seen[key])
    return first, copy_of


def _take(inputs: Mapping[str, torch.Tensor], rows: list[int]) -> dict[str, torch.Tensor]:
    """The inputs of some rows, their images included."""
    grids = inputs["image_grid_thw"]
    patches = torch.split(inputs["pixel_values"], grids.prod(dim=-1).tolist())
    taken = {key: value[rows] for key, value in inputs.items() if key != "pixel_values"}
    return {**taken, "pixel_values": torch.cat([patches[row] for row in rows])}


@torch.no_grad()
def sample(
    model: Any,
    inputs: Mapping[str, torch.Tensor],
    *,
    max_new_tokens: int,
    eos_ids: Iterable[int],
    temperature: float = 1.0,
    suppress: Iterable[int] = (),
) -> list[list[int]]:
    """Sample one completion per row.

    Args:
        model: see `supports`.
        inputs: what the processor made: one image per row, prompts padded on the left.
        max_new_tokens: longest completion.
        eos_ids: tokens that end a completion.
        temperature: the scores are divided by it.
        suppress: tokens that are never drawn.

    Returns:
        The tokens of each completion, its end token included.

    Raises:
        ValueError: if a row has not exactly one image.
    """
    count = len(inputs["input_ids"])
    if len(inputs["image_grid_thw"]) != count:
        raise ValueError(f"inputs hold {len(inputs['image_grid_thw'])} images for {count} rows, expected one each")
    decoder = Decoder(model, inputs, max_new_tokens)
    ends, never = torch.tensor(list(eos_ids)), torch.tensor(list(suppress), dtype=torch.long)
    drawn: list[list[int]] = [[] for _ in range(count)]
    rows = torch.arange(count)
    active = torch.ones(count, dtype=torch.bool)
    for step in range(max_new_tokens):
        logits = decoder.logits() / temperature
        logits[:, never] = float("-inf")
        tokens = torch.multinomial(logits.softmax(dim=-1), 1).squeeze(1)
        for row, token, goes_on in zip(rows.tolist(), tokens.tolist(), active.tolist(), strict=True):
            if goes_on:
                drawn[row].append(token)
        active &= ~torch.isin(tokens, ends)
        if not active.any() or step + 1 == max_new_tokens:
            break
        if int(active.sum()) <= 0.8 * len(rows):  # copying the caches costs as much as a few steps
            decoder.keep(active)
            rows, tokens, active = rows[active], tokens[active], active[active]
        decoder.feed(tokens)
    return drawn
