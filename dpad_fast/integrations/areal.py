"""AReaL (1.0): a reward function for its workflows, which call it once per answer in a pool of processes.

    # my_rewards.py; workflow_kwargs: reward_fn="my_rewards.reward_fn"
    from dpad_fast.integrations.areal import reward_function

    reward_fn = reward_function(url="http://127.0.0.1:8421", columns={"solution": "answer", "image": "images"})

`dpad_fast.integrations.areal.reward_fn` is such a function, with the settings in the YAML file that DPAD_FAST_SCORER
names. The data set's row needs the picture and the ground truth.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitedTooLong
from typing import Any

from dpad_fast.integrations._rows import Recipe, lowest, totals
from dpad_fast.serve.client import RemoteScorer
from dpad_fast.serve.responses import without_end

__all__ = ["RewardFunction", "reward_fn", "reward_function"]

_PATIENCE_S = 12.0  # AReaL waits for 15 seconds, and then takes 0 for the reward
_FOR_THE_CLIENT_S = 1.0  # its own error says more, and comes first
_OF_A_SERVER = {"retry_s": _PATIENCE_S, "timeout_s": _PATIENCE_S}


class RewardFunction:
    """A function that can be sent to other processes; each makes its client of the server when first called.

    Args:
        settings: of the scorer and of rows.

    Raises:
        ValueError: an unknown setting; names the known ones.
    """

    __name__ = "dpad"

    def __init__(self, **settings: Any) -> None:
        self._recipe = Recipe("AReaL", settings, of_a_server=_OF_A_SERVER)

    def __call__(
        self, prompt: str, completions: str, prompt_ids: Sequence[int], completion_ids: Sequence[int], **data: Any
    ) -> float:
        """The reward of one answer; the lowest, and a word in the log, where it cannot be scored.

        Args:
            prompt: not read.
            completions: the answer's text.
            prompt_ids: not read.
            completion_ids: not read.
            data: the data set's row.

        Raises:
            ValueError: the scorer needs an encoder and is not a server's: each process of the pool would load one.
            ConnectionError: the server does not answer in `retry_s`, 12 seconds unless it is said. AReaL tries again,
                and then takes the rollout for a failed one.
        """
        patience_s = float(self._recipe.setting("retry_s"))
        return _within(patience_s + _FOR_THE_CLIENT_S, lambda: self._reward(completions, data))

    def _reward(self, completions: str, data: dict[str, Any]) -> float:
        scorer = self._recipe.made()
        if scorer.config.needs_encoder and not isinstance(scorer.scorer, RemoteScorer):
            raise ValueError(
                "AReaL scores in a pool of processes, each of which would load an encoder: start `dpad-fast serve` and "
                "give its url"
            )
        reward: float = totals(scorer.score([without_end(completions)], [data]), lowest(scorer.config))[0]
        return reward


def _within(limit_s: float, call: Callable[[], float]) -> float:
    """The call's value; a `ConnectionError` where that takes longer.

    A server's client gives up by itself, but not while it waits for a machine that is gone or for an answer.
    """
    found: Future[float] = Future()

    def run() -> None:
        try:
            found.set_result(call())
        except BaseException as error:  # whoever waits must hear of it
            found.set_exception(error)

    threading.Thread(target=run, name="dpad-reward", daemon=True).start()
    try:
        return found.result(limit_s)
    except WaitedTooLong:
        if found.done():
            raise
        raise ConnectionError(f"no server scored this within {limit_s:g} s: it is silent") from None


def reward_function(**settings: Any) -> RewardFunction:
    """A function as AReaL calls it.

    Args:
        settings: of the scorer (`url` of `dpad-fast serve`, with `token`; without them they are read from the file that
            DPAD_FAST_SCORER names) and of rows (`columns`, `image`, `image_root`, `processor`).

    Raises:
        ValueError: an unknown setting; names the known ones.
    """
    return RewardFunction(**settings)


reward_fn = reward_function()
