"""The weights of a CLIP by their role, read from stock models only."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch

Tensor = torch.Tensor
ACTIVATIONS = ("quick_gelu", "gelu")


@dataclass(frozen=True)
class Norm:
    """A layer norm: weight and bias [C], and eps."""

    weight: Tensor
    bias: Tensor
    eps: float


@dataclass(frozen=True)
class Affine:
    """x W^T + b: weight [N, K], bias [N] or None."""

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class Layer:
    """A pre-norm transformer layer."""

    norm1: Norm
    query: Affine
    key: Affine
    value: Affine
    out: Affine
    norm2: Norm
    up: Affine
    down: Affine


@dataclass(frozen=True)
class Transformer:
    """Layers with their number of heads and activation ("quick_gelu" or "gelu")."""

    layers: tuple[Layer, ...]
    heads: int
    activation: str


@dataclass(frozen=True)
class TextTower:
    """A causal text tower, read at the first `end` token, or at the first of the largest ids where `end` is None."""

    tokens: Tensor
    positions: Tensor
    body: Transformer
    norm: Norm
    projection: Tensor
    end: int | None


@dataclass(frozen=True)
class ImageTower:
    """A vision transformer, read at its class token. `patch` is [C, 3 * side * side]."""

    side: int
    patch: Affine
    first: Tensor
    positions: Tensor
    norm_in: Norm
    body: Transformer
    norm: Norm
    projection: Tensor


@dataclass(frozen=True)
class ClipWeights:
    """Both towers."""

    text: TextTower
    image: ImageTower


def read_weights(model: Any, device: torch.device | str = "cpu") -> ClipWeights | None:
    """The weights of a stock CLIP of transformers or open_clip; None for any other model or a changed one.

    Args:
        model: is left as it is. What is float32 on `device` already is not copied.
        device: where the weights shall be.
    """
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return None
    if any(not p.is_floating_point() for p in model.parameters()):
        return None
    name = (type(model).__module__.split(".")[0], type(model).__name__)
    try:
        if name == ("transformers", "CLIPModel"):
            found = _from_transformers(model)
        elif name == ("open_clip", "CLIP"):
            found = _from_open_clip(model)
        else:
            return None
    except (AttributeError, TypeError, IndexError):  # a release that builds its CLIP from other parts
        return None
    return None if found is None else _moved(found, torch.device(device))


def sizes_fit(weights: ClipWeights, side: int) -> bool:
    """Whether all sizes go together, and with preprocessed images of `side` pixels: else the model is another one."""
    text, image = weights.text, weights.image
    grid = side // image.side
    return (
        text.tokens.shape[1] == text.positions.shape[1]
        and _tower_fits(text.body, text.tokens.shape[1], text.norm, text.projection)
        and side == grid * image.side
        and image.patch.weight.shape[1] == 3 * image.side**2
        and image.positions.shape == (grid * grid + 1, len(image.first))
        and len(image.patch.weight) == len(image.first) == len(image.norm_in.weight)
        and _tower_fits(image.body, len(image.first), image.norm, image.projection)
        and len(text.projection) == len(image.projection)
    )


def _tower_fits(body: Transformer, width: int, norm: Norm, projection: Tensor) -> bool:
    ends = len(body.layers) > 0 and width % body.heads == 0 and len(norm.weight) == projection.shape[1] == width
    return ends and all(_layer_fits(layer, width) for layer in body.layers)


def _layer_fits(layer: Layer, width: int) -> bool:
    joined = (layer.query, layer.key, layer.value)
    hidden = len(layer.up.weight)
    shapes = ((*joined, layer.out), (width, width)), ((layer.up,), (hidden, width)), ((layer.down,), (width, hidden))
    return (
        all(part.weight.shape == shape for parts, shape in shapes for part in parts)
        and len(layer.norm1.weight) == len(layer.norm2.weight) == width
        and len({part.bias is None for part in joined}) == 1
    )


def _float(value: Tensor) -> Tensor:
    return value.detach().to(torch.float32).contiguous()


def _moved(part: Any, device: torch.device) -> Any:
    if isinstance(part, Tensor):
        return part.to(device)
    if isinstance(part, tuple):
        return tuple(_moved(item, device) for item in part)
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{field.name: _moved(getattr(part, field.name), device) for field in fields(part)})
    return part


def _affine(module: Any) -> Affine:
    if type(module) is not torch.nn.Linear and type(module).__name__ != "NonDynamicallyQuantizableLinear":
        raise TypeError(f"{type(module).__name__} is not a plain linear layer")
    return Affine(_float(module.weight), None if module.bias is None else _float(module.bias))


def _norm(module: Any) -> Norm:
    if not isinstance(module, torch.nn.LayerNorm):
        raise TypeError(f"{type(module).__name__} is not a layer norm")
    return Norm(_float(module.weight), _float(module.bias), float(module.eps))


def _from_transformers(model: Any) -> ClipWeights | None:
    text, vision = model.text_model, model.vision_model
    bodies = [_transformers_body(tower) for tower in (text, vision)]
    if bodies[0] is None or bodies[1] is None:
        return None
    embeddings = vision.embeddings
    if embeddings.patch_embedding.bias is not None or vision.config.num_channels != 3:
        return None
    return ClipWeights(
        TextTower(
            _float(text.embeddings.token_embedding.weight),
            _float(text.embeddings.position_embedding.weight),
            bodies[0],
            _norm(text.final_layer_norm),
            _float(model.text_projection.weight),
            # 2 stands in old configurations for "the largest id", see CLIPTextModel.
            None if text.eos_token_id == 2 else int(text.eos_token_id),
        ),
        ImageTower(
            int(embeddings.patch_size),
            Affine(_float(embeddings.patch_embedding.weight.flatten(1)), None),
            _float(embeddings.class_embedding),
            _float(embeddings.position_embedding.weight),
            _norm(vision.pre_layrnorm),
            bodies[1],
            _norm(vision.post_layernorm),
            _float(model.visual_projection.weight),
        ),
    )


def _transformers_body(tower: Any) -> Transformer | None:
    config = tower.config
    if config.hidden_act not in ACTIVATIONS:
        return None
    layers = []
    for layer in tower.encoder.layers:
        attention, mlp = layer.self_attn, layer.mlp
        layers.append(
            Layer(
                _norm(layer.layer_norm1),
                _affine(attention.q_proj),
                _affine(attention.k_proj),
                _affine(attention.v_proj),
                _affine(attention.out_proj),
                _norm(layer.layer_norm2),
                _affine(mlp.fc1),
                _affine(mlp.fc2),
            )
        )
    return Transformer(tuple(layers), int(config.num_attention_heads), config.hidden_act)


def _from_open_clip(model: Any) -> ClipWeights | None:
    visual = model.visual
    plain = (
        type(visual).__name__ == "VisionTransformer"
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and not visual.final_ln_after_pool
        and type(visual.patch_dropout).__name__ == "Identity"
        and visual.conv1.bias is None
        and visual.proj is not None
        and model.text_pool_type == "argmax"
        and model.attn_mask is not None
    )
    if not plain:
        return None
    text_body, image_body = _open_clip_body(model.transformer), _open_clip_body(visual.transformer)
    if text_body is None or image_body is None:
        return None
    projection = model.text_projection
    linear = isinstance(projection, torch.nn.Linear)
    if linear and projection.bias is not None:
        return None
    return ClipWeights(
        TextTower(
            _float(model.token_embedding.weight),
            _float(model.positional_embedding),
            text_body,
            _norm(model.ln_final),
            _float(projection.weight if linear else projection.T),
            None,
        ),
        ImageTower(
            int(visual.conv1.kernel_size[0]),
            Affine(_float(visual.conv1.weight.flatten(1)), None),
            _float(visual.class_embedding.flatten()),
            _float(visual.positional_embedding),
            _norm(visual.ln_pre),
            image_body,
            _norm(visual.ln_post),
            _float(visual.proj.T),
        ),
    )


def _open_clip_body(transformer: Any) -> Transformer | None:
    layers, activations = [], set()
    for block in transformer.resblocks:
        attention, mlp = block.attn, block.mlp
        plain = (
            type(block).__name__ == "ResidualAttentionBlock"
            and type(attention) is torch.nn.MultiheadAttention
            and attention.in_proj_weight is not None
            and attention.bias_k is None
            and not attention.add_zero_attn
            and isinstance(block.ls_1, torch.nn.Identity)
            and isinstance(block.ls_2, torch.nn.Identity)
            and not hasattr(block, "ln_1_kv")
            and [name for name, _ in mlp.named_children()] == ["c_fc", "gelu", "c_proj"]
        )
        if not plain:
            return None
        activations.add({"QuickGELU": "quick_gelu", "GELU": "gelu"}.get(type(mlp.gelu).__name__, "other"))
        weights = [_float(part) for part in attention.in_proj_weight.chunk(3)]
        biases = [_float(part) for part in attention.in_proj_bias.chunk(3)]
        query, key, value = (Affine(w, b) for w, b in zip(weights, biases, strict=True))
        layers.append(
            Layer(
                _norm(block.ln_1),
                query,
                key,
                value,
                _affine(attention.out_proj),
                _norm(block.ln_2),
                _affine(mlp.c_fc),
                _affine(mlp.c_proj),
            )
        )
    if len(activations) != 1 or not activations <= set(ACTIVATIONS):
        return None
    return Transformer(tuple(layers), int(transformer.resblocks[0].attn.num_heads), activations.pop())
