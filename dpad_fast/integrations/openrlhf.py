"""OpenRLHF (0.11): the file that `--reward.remote_url` names, or a few lines of your own around it.

    # reward.py, for --reward.remote_url reward.py
    from dpad_fast.integrations.openrlhf import reward_function

    reward_func = reward_function(url="http://127.0.0.1:8421", processor="Qwen/Qwen2.5-VL-3B-Instruct")

This module itself is such a file, with the settings in the YAML file that DPAD_FAST_SCORER names. OpenRLHF hands no
picture to rewards, so the label says where it is: `{"solution": "<box>..</box>..", "image": "train/0001.jpg"}`, or the
JSON text of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dpad_fast.integrations._row_reader import row_of
from dpad_fast.integrations._rows import Recipe, lowest, numbers_of, totals
from dpad_fast.serve.responses import response_of

__all__ = ["reward_func", "reward_function"]

RewardFunc = Callable[..., dict[str, Any]]


def reward_function(**settings: Any) -> RewardFunc:
    """A function as OpenRLHF calls it, one sample at a time from threads; calls at one time are scored in one batch.

    Args:
        settings: of the scorer (`url`, or `preset`, `encoder`, `device`, ...; without any of these they are read from
            the file that DPAD_FAST_SCORER names) and of rows (`columns`, `image`, `image_root`, `processor`).

    Returns:
        `reward_func(queries, prompts, labels)`: "rewards", "scores" (the rewards over the sum of the weights, for
        OpenRLHF's filter of 0..1) and "extra_logs", all float32 [N]. A row that cannot be scored gets the lowest reward
        and counts in "dpad/unscored".

    Raises:
        ValueError: an unknown setting; names the known ones.
    """
    recipe = Recipe("OpenRLHF", settings, batched=True)

    def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[Any], **_: Any) -> dict[str, Any]:
        """The rewards of N queries, each the decoded prompt and response in one."""
        scorer = recipe.made()
        answers = [_answer(*pair) for pair in zip(queries, prompts, strict=True)]
        batch = scorer.score(answers, [row_of(label) for label in labels])
        rewards = torch.tensor(totals(batch, lowest(scorer.config)), dtype=torch.float32)
        weights = sum(abs(scorer.config.weight(name)) for name in scorer.config.terms) or 1.0
        logs = [numbers_of(batch, i) for i in range(len(batch))]
        names = logs[0] if logs else {}
        columns = {f"dpad/{name}": torch.tensor([numbers[name] for numbers in logs]) for name in names}
        return {"rewards": rewards, "scores": rewards / weights, "extra_logs": columns}

    return reward_func


def _answer(query: Any, prompt: Any) -> Any:
    """The response; a `ValueError` where it is not found."""
    if not isinstance(query, str) or not isinstance(prompt, str):
        return ValueError(f"the query and its prompt must be texts, got {query!r:.80} and {prompt!r:.80}")
    try:
        return response_of(query, prompt)
    except ValueError as error:
        return error


reward_func = reward_function()
