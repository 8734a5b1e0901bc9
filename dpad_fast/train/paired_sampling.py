"""Sampling whose random numbers belong to the completion, not to the process that makes it.

torch draws the noise of a batch from one stream, so the same prompts on two processes get other completions than on
one. Here the noise of token t of completion i of a step depends on (seed, step, t, i) alone: a run on any number of
processes with the same global batch sees the same completions, but for ties within the rounding of the logits.

Sampling is by the Gumbel-max trick: argmax(logits / temperature + g) with g = -log(-log(u)) is a draw from
softmax(logits / temperature) (Gumbel 1954; Maddison et al. 2014).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def _mixed(*numbers: int) -> int:
    """A seed of 63 bits; other numbers give unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class PairedNoise:
    """A logits processor that leaves one token per row, the one that the row's own noise chooses.

    Args:
        seed: of the run.
        step: of the optimiser, and how many times it was sampled for before.
        first: index of this process's first row among the rows of all processes.
        of: number of rows of all processes.
        temperature: of sampling.
    """

    def __init__(self, seed: int, step: tuple[int, int], first: int, of: int, temperature: float) -> None:
        self._of_step = (seed, *step)
        self._first, self._of, self._temperature = first, of, temperature
        self._token = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Choose.

        Args:
            input_ids: int64 [N, T], not read.
            scores: float [N, V], logits of the next token.

        Returns:
            float [N, V]: 0 at the chosen token of each row and -inf elsewhere.
        """
        generator = torch.Generator(scores.device).manual_seed(_mixed(*self._of_step, self._token))
        self._token += 1
        shape = (self._of, scores.shape[1])  # of all rows: this process takes its own out of the same numbers
        noise = torch.empty(shape, dtype=torch.float32, device=scores.device).exponential_(generator=generator)
        own = noise[self._first : self._first + len(scores)].clamp_min_(torch.finfo(torch.float32).tiny)
        chosen = (scores.float() / self._temperature - own.log_()).argmax(dim=1, keepdim=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen, 0.0)


def pair_sampling(model: Any, noise: Callable[[int], PairedNoise]) -> None:
    """Make `model.generate` choose by `PairedNoise`.

    Args:
        model: a model of transformers; its `generate` gets one more logits processor.
        noise: makes the processor of one call, given the number of rows.
    """
    plain = model.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        from transformers import LogitsProcessorList

        rows = kwargs["input_ids"].shape[0]
        given = kwargs.pop("logits_processor", None) or []
        return plain(*args, logits_processor=LogitsProcessorList([*given, noise(rows)]), **kwargs)

    model.generate = generate
