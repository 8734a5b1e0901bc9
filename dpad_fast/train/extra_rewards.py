"""Rewards beside the scorer's, which a configuration names: `extra_rewards: [MODULE:FUNCTION]`.

The function gets the run's `RewardScorer` and returns a reward function for TRL.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpad_fast.rewards import RewardScorer
    from dpad_fast.train.reward_functions import RewardFunction

# Names without a module, where they are found when a run begins; training itself imports none of them.
SHORT_NAMES = {"names_any_object": "dpad_fast.demo.controls:names_any_object"}
_PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def place_of(name: str) -> str:
    """Where an extra reward is.

    Args:
        name: a short name or MODULE:FUNCTION.

    Returns:
        MODULE:FUNCTION.

    Raises:
        ValueError: if it is neither.
    """
    if name not in SHORT_NAMES and not _PLACE.fullmatch(name):
        raise ValueError(f"extra_rewards is {name!r:.80}; known: {', '.join(SHORT_NAMES)}, or your own MODULE:FUNCTION")
    return SHORT_NAMES.get(name, name)


def make_extra_reward(name: str, scorer: RewardScorer) -> RewardFunction:
    """Import an extra reward and make it for a scorer.

    Args:
        name: as in `extra_rewards`.
        scorer: the run's.

    Returns:
        A reward function for TRL.

    Raises:
        ValueError: if there is no such module or function, or what it returns cannot be called.
    """
    module, _, function = place_of(name).partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"extra_rewards: {name!r:.80} cannot be imported: {error}") from error
    if not callable(make) or not callable(reward := make(scorer)):
        raise ValueError(
            f"extra_rewards: {name!r:.80} must be a function that takes the scorer and returns a reward function"
        )
    made: RewardFunction = reward
    return made
