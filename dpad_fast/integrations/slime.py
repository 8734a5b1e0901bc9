"""slime: the function that `--custom-rm-path` names, for single samples and for groups (`--group-rm`).

    # my_rewards.py, for --custom-rm-path my_rewards.custom_rm
    from dpad_fast.integrations.slime import reward_function

    custom_rm = reward_function(url="http://127.0.0.1:8421")

`dpad_fast.integrations.slime.custom_rm` is such a function, with the settings in the YAML file that DPAD_FAST_SCORER
names. The label holds the ground truth: the solution's text, or `{"solution", "image", "image_size", ...}`. Without an
`image` of its own the picture is the sample's, which slime has resized: say `image_size`, the size that the ground
truth is about, unless pictures were brought to the policy's size beforehand.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from dpad_fast.integrations._row_reader import row_of
from dpad_fast.integrations._rows import Recipe, RowScorer, lowest, numbers_of, totals
from dpad_fast.row_images import COLUMNS, images_from, size_of
from dpad_fast.serve.responses import without_end

__all__ = ["custom_rm", "reward_function"]

CustomRm = Callable[..., Awaitable[Any]]
_log = logging.getLogger(__name__)


def reward_function(**settings: Any) -> CustomRm:
    """A function as slime awaits it; samples that are in flight at one time are scored in one batch.

    Args:
        settings: of the scorer (`url`, or `preset`, `encoder`, `device`, ...; without any of these they are read from
            the file that DPAD_FAST_SCORER names) and of rows (`columns`, `image`, `image_root`, `processor`).

    Returns:
        `async custom_rm(args, sample)`: a float for a sample, a list for a list of them. With `--reward-key` (and
        `--eval-reward-key`) a dictionary with the reward under these keys and every term. A sample that cannot be
        scored gets the lowest reward, and `remove_sample` keeps it out of the loss.

    Raises:
        ValueError: an unknown setting; names the known ones. From `custom_rm`: `--eval-reward-key` alone.
    """
    recipe = Recipe("slime", settings, batched=True)
    warned: list[bool] = []

    async def custom_rm(args: Any, sample: Any, **_: Any) -> Any:
        """The reward of a sample, or the rewards of a list of samples."""
        samples = list(sample) if isinstance(sample, list | tuple) else [sample]
        scorer = await asyncio.to_thread(recipe.made)  # it may load an encoder
        keys = _keys(args)
        rows = [_row(one, scorer, warned) for one in samples]
        batch = await scorer.score_async([without_end(one.response) for one in samples], rows)
        rewards: list[Any] = totals(batch, lowest(scorer.config))
        for one, total in zip(samples, totals(batch, None), strict=True):
            if total is None:
                one.remove_sample = True
        if keys:
            rewards = [numbers_of(batch, i) | dict.fromkeys(keys, total) for i, total in enumerate(rewards)]
        return rewards if isinstance(sample, list | tuple) else rewards[0]

    return custom_rm


def _keys(args: Any) -> list[str]:
    reward, evaluation = (getattr(args, name, None) for name in ("reward_key", "eval_reward_key"))
    if evaluation and not reward:
        raise ValueError(
            f"--eval-reward-key is {evaluation!r:.80} without --reward-key: slime asks for rewards of training and of "
            "evaluation alike, and would take the dictionary for a number in training. Set --reward-key too"
        )
    return [key for key in (reward, evaluation) if key]


def _row(sample: Any, scorer: RowScorer, warned: list[bool]) -> Mapping[str, Any] | ValueError:
    """The label with the sample's picture, and the size at which the model saw that."""
    row = row_of(sample.label)
    shown = (sample.multimodal_inputs or {}).get("images")
    if isinstance(row, ValueError) or not shown:
        return row
    try:
        pictures = images_from({"images": shown}, "images")
        size = size_of(pictures[0], "the sample's picture") if len(pictures) == 1 else None
        row = dict(row)
        if size is not None and row.get("model_size") is None:
            row["model_size"] = scorer.seen(size)
    except ValueError as error:
        return error
    if not any(row.get(name) is not None for name in COLUMNS):
        row["images"] = pictures
        if row.get("image_size") is None and not warned:
            warned.append(True)
            _log.warning("slime: a label has no image_size, so it is read in pixels of the resized picture, %s", size)
    return row


custom_rm = reward_function()
