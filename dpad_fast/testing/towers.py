"""A GPU's towers on the CPU: variable-length attention, and the own forward of a model of transformers."""

from typing import Any

import torch
from torch.nn import functional as F

from dpad_fast.clip.tokens import Layout
from dpad_fast.clip.tower.forward import OwnForward
from dpad_fast.clip.tower.gpu_attention import Ragged

Tensor = torch.Tensor


def by_sequence(q: Tensor, k: Tensor, v: Tensor, part: Ragged) -> Tensor:
    """Variable-length attention, sequence by sequence; rows of no sequence are NaN."""
    out = torch.full_like(q, float("nan"))
    starts_q, starts_k = part.starts_q.tolist(), part.starts_k.tolist()
    for i in range(len(starts_q) - 1):
        asks, keys = slice(*starts_q[i : i + 2]), slice(*starts_k[i : i + 2])
        if asks.start == asks.stop:
            continue
        query, key, value = (rows.transpose(0, 1) for rows in (q[asks], k[keys], v[keys]))
        seen = torch.ones(query.shape[1], key.shape[1], dtype=torch.bool)
        mask = seen.tril(key.shape[1] - query.shape[1]) if part.causal else None
        out[asks] = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(0, 1)
    return out


def own_forward(model: Any) -> OwnForward:
    """The own forward of a CLIPModel whose rows may be as short as their longest."""
    return OwnForward(
        model,
        lambda module, ids, _lengths: module.get_text_features(input_ids=ids).pooler_output,  # type: ignore[operator]
        lambda module, pixels: module.get_image_features(pixel_values=pixels).pooler_output,  # type: ignore[operator]
        None,
        Layout(0),
    )
