"""Rewards beside the scorer's, which a configuration names: `extra_rewards: [MODULE:FUNCTION]`.

The function gets the run's `RewardScorer` and returns a reward function for TRL.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpad_fast.rewards import RewardScorer
    from dpad_fast.train.reward_functions import RewardFunction

# Names without a module, where they are found when a run begins; training itself imports none of them.
SHORT_NAMES = {"names_any_object": "dpad_fast.demo.controls:names_any_object"}
_NO_MAKER = "extra_rewards: {!r:.80} must be a function that takes the scorer and returns a reward function"
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
    reward = _imported(name)(scorer)
    if not callable(reward):
        raise ValueError(_NO_MAKER.format(name))
    made: RewardFunction = reward
    return made


def check_extra_rewards(names: Iterable[str]) -> None:
    """Import extra rewards before anything slow is done for a run.

    Args:
        names: as in `extra_rewards`.

    Raises:
        ValueError: if one of them cannot be imported, or is no function.
    """
    for name in names:
        _imported(name)


def _imported(name: str) -> Callable[[RewardScorer], Any]:
    module, _, function = place_of(name).partition(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise ValueError(f"extra_rewards: {name!r:.80} cannot be imported: {error}") from error
    if not callable(make):
        raise ValueError(_NO_MAKER.format(name))
    found: Callable[[RewardScorer], Any] = make
    return found
