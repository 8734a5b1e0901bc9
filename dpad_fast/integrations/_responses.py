"""Responses of a `DataProto` as texts, and rewards as its tensor, for the managers of verl 0.1 and EasyR1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def decoded(tokenizer: Any, responses: torch.Tensor, lengths: Sequence[int], *, skip_special_tokens: bool) -> list[str]:
    """N texts of token ids [N, T], of which the first `lengths[i]` are the response."""
    return [
        tokenizer.decode(ids[:length], skip_special_tokens=skip_special_tokens)
        for ids, length in zip(responses, lengths, strict=True)
    ]


def at_last_token(rewards: Sequence[float], responses: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """float32 [N, T], each reward at its response's last token and 0 elsewhere.

    As in both managers the reward of an empty response is at the last place, which the mask leaves out.
    """
    placed = torch.zeros_like(responses, dtype=torch.float32)
    for i, (reward, length) in enumerate(zip(rewards, lengths, strict=True)):
        placed[i, length - 1] = reward
    return placed
