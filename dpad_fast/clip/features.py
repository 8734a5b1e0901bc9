"""Differences between families of models: how features are computed, and how many tokens a caption may have."""

from __future__ import annotations

from typing import Any

import torch

from dpad_fast._native.gpu_errors import is_gpu_failure

# Families whose text tower is causal and read at the first end token, so that shorter rows give the same values.
TRIMMED = ("clip",)
# Families trained on captions padded to the full length, all of which is attended to.
FULL_LENGTH = ("siglip", "siglip2")


def positions(model: Any) -> int:
    """Tokens that the text tower of a model of transformers takes.

    Raises:
        ValueError: its configuration does not say.
    """
    said = getattr(getattr(model.config, "text_config", None), "max_position_embeddings", None)
    if not isinstance(said, int) or said < 1:
        raise ValueError(
            f"the text configuration of {type(model).__name__} has no max_position_embeddings, so it is not known how "
            "many tokens a caption may have"
        )
    return usable(model, said)


def usable(model: Any, said: int) -> int:
    """`said` minus the positions that a table keeps for padding.

    RoBERTa and its successors (XLM-R, CamemBERT, MPNet) count positions from one beyond the padding id,
    so that a table of 514 serves 512 tokens. Such a table names its padding; those of other families do not.
    """
    modules = model.named_modules() if isinstance(model, torch.nn.Module) else ()
    for name, module in modules:
        table = isinstance(module, torch.nn.Embedding) and "position" in name.rsplit(".", 1)[-1]
        if table and module.padding_idx is not None:
            said = min(said, module.num_embeddings - module.padding_idx - 1)
    return said


def token_rows(model: torch.nn.Module) -> int | None:
    """Rows of the text tower's table of tokens; None where it is not clear which table that is."""
    found = set()
    for name, module in model.named_modules():
        last = name.rsplit(".", 1)[-1]
        words = "token" in last or "word" in last
        if isinstance(module, torch.nn.Embedding) and words and "type" not in last and "position" not in last:
            found.add(module.num_embeddings)
    return found.pop() if len(found) == 1 else None


def open_clip_context(model: Any, tokenizer: Any) -> int:
    """Width of the rows that the tokenizer makes for the model: its own setting, within the model's limit.

    Raises:
        ValueError: neither says, or the model does not take rows as short as the tokenizer's.
    """
    takes: int | None = getattr(model, "context_length", None)
    makes: int | None = getattr(tokenizer, "context_length", None)
    if not takes and not makes:
        raise ValueError("neither the model nor the tokenizer has a context_length")
    # A text tower of transformers gives the size of its table of positions, which its captions need not fill.
    context = usable(model, min(length for length in (takes, makes) if length))
    if takes and context < takes and callable(getattr(model, "encode_text", None)):
        try:
            device = next(model.parameters()).device
            with torch.inference_mode(), torch.device("cpu"):
                model.encode_text(tokenizer(["a"], context_length=context).to(device))
        except (RuntimeError, ValueError, IndexError) as error:
            if is_gpu_failure(error):
                raise
            raise ValueError(
                f"the tokenizer's context_length {makes} is not the model's {takes}: {str(error)[:200]} "
                "(open_clip.get_tokenizer makes the one that goes with an architecture)"
            ) from error
    return context


def plain_text(model: Any, ids: torch.Tensor, _lengths: torch.Tensor) -> torch.Tensor:
    """Text features of a model of transformers that attends to all of each row."""
    return pooled(model.get_text_features(input_ids=ids))


def masked_text(model: Any, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Text features of a model of transformers that attends only to the first `lengths` tokens of each row."""
    mask = torch.arange(ids.shape[1], device=ids.device)[None, :] < lengths[:, None]
    return pooled(model.get_text_features(input_ids=ids, attention_mask=mask.long()))


def pooled(output: Any) -> torch.Tensor:
    """The embedding in what a model of transformers returns."""
    return tensor(getattr(output, "pooler_output", output))


def tensor(value: Any) -> torch.Tensor:
    """`value`, which must be a tensor."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"the model returned {type(value).__name__} instead of an embedding")
    return value
