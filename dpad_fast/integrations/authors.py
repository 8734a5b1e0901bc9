"""The DPAD authors' code, a fork of EasyR1 from when it was verl 0.1: its reward manager, by one changed import.

    # verl/trainer/main.py, in the place of: from ..workers.reward import CustomRewardManager
    from dpad_fast.integrations.authors import CustomRewardManager

The scorer's settings are in the YAML file that the environment variable DPAD_FAST_SCORER names, such as
`{preset: dpad-released, encoder: openai/clip-vit-base-patch32, device: cuda:0}`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
import yaml

from dpad_fast.integrations._responses import at_last_token, decoded
from dpad_fast.integrations._rows import Recipe, lowest, totals

__all__ = ["CustomRewardManager"]


class CustomRewardManager:
    """The authors' manager: the same constructor and call, one batch instead of two CLIP forwards a sample.

    Args:
        tokenizer: the policy's.
        num_examine: how many answers of each call are printed.
        compute_score: the path of a YAML file of settings, the settings themselves, or a scorer. Any other text, as the
            authors' own names of reward functions, leaves it to DPAD_FAST_SCORER.

    Raises:
        ValueError: an unknown setting; names the known ones.
    """

    def __init__(self, tokenizer: Any, num_examine: int, compute_score: Any = None) -> None:
        self.tokenizer, self.num_examine = tokenizer, num_examine
        self._recipe = Recipe("the authors' code", _settings(compute_score))

    def __call__(self, data: Any) -> torch.Tensor:
        """The rewards of a `DataProto`.

        Args:
            data: N rows with `batch["prompts" | "responses" | "attention_mask"]`, [N, P], [N, T] and [N, P + T], and
                `non_tensor_batch["solution" | "image"]`.

        Returns:
            float32 [N, T], each reward at the last token of its response; a row that cannot be scored has the lowest.
        """
        responses, mask = data.batch["responses"], data.batch["attention_mask"]
        first = data.batch["prompts"].shape[-1]
        lengths = [int(length) for length in mask[:, first:].sum(-1)]
        texts = decoded(self.tokenizer, responses, lengths, skip_special_tokens=True)
        solutions, images = (data.non_tensor_batch[name] for name in ("solution", "image"))
        rows = [{"solution": text, "image": image} for text, image in zip(solutions, images, strict=True)]
        scorer = self._recipe.made()
        batch = scorer.score(texts, rows)
        rewards = totals(batch, lowest(scorer.config))
        for i in range(min(self.num_examine, len(texts))):
            print("[response]", texts[i])
            print("[ground_truth]", solutions[i])
            print("[score]", rewards[i], batch.reasons[i] or "")
        return at_last_token(rewards, responses, lengths)


def _settings(given: Any) -> Mapping[str, Any]:
    if isinstance(given, Mapping):
        return given
    if given is None:
        return {}
    if isinstance(given, str | os.PathLike):
        path = os.fspath(given)
        if not path.endswith((".yaml", ".yml")):
            return {}
        with open(path, encoding="utf-8") as file:
            read = yaml.safe_load(file)
        if not isinstance(read, Mapping):
            raise ValueError(f"compute_score: {path} must map names of settings to values, got {type(read).__name__}")
        return read
    return {"scorer": given}
