"""ms-swift (4.6): a reward function for `swift rlhf --rlhf_type grpo`, by its plugin file.

    # plugin.py, for --external_plugins plugin.py --reward_funcs dpad
    from dpad_fast.integrations.swift import register

    register(encoder="openai/clip-vit-base-patch32", device="cuda:0", processor="Qwen/Qwen2.5-VL-3B-Instruct")

or, for one scorer of all processes, `register(url="http://127.0.0.1:8421", ...)`. The data set's row needs `images`
(exactly one) and a ground truth that `Target.from_row` reads: `solution`, or ms-swift's own `objects`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpad_fast.integrations._rows import Recipe, totals
from dpad_fast.types import ScoreBatch

__all__ = ["register"]


def register(name: str = "dpad", terms: Sequence[str] = (), **settings: Any) -> None:
    """Makes rewards known to ms-swift: `orms[name]`, and `orms[f"{name}_{term}"]` for some terms.

    The scorer is made when the first trainer asks for it, and scores each step once for all of them.

    Args:
        name: what `--reward_funcs` calls the weighted sum of all terms.
        terms: terms to have as reward functions too, unweighted, so that ms-swift logs them; `--reward_weights 1 0 0`
            keeps them out of the reward.
        settings: of the scorer (`url`, or `preset`, `encoder`, `device`, ...; without any of these they are read from
            the file that DPAD_FAST_SCORER names) and of rows (`columns`, `image`, `image_root`, `processor`).

    Raises:
        ImportError: ms-swift is not installed.
        ValueError: an unknown setting; names the known ones.
    """
    from swift.rewards import orms

    steps = _Steps(Recipe("ms-swift", {"image": "images"} | settings))
    orms[name] = _reward_class(steps, name, None)
    for term in terms:
        orms[f"{name}_{term}"] = _reward_class(steps, f"{name}_{term}", term)


class _Steps:
    """Scores the completions of a step once, though several reward functions ask for them."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._last: tuple[Sequence[str], tuple[str, ...], ScoreBatch] | None = None

    def score(self, completions: Sequence[str], columns: dict[str, Any]) -> ScoreBatch:
        # ms-swift hands the same list to all functions of a step. It is kept, so that no other list has its identity.
        if self._last is None or self._last[0] is not completions or self._last[1] != tuple(completions):
            rows = _rows(columns, len(completions))
            self._last = (completions, tuple(completions), self._recipe.made().score(completions, rows))
        return self._last[2]

    def check(self, term: str | None) -> None:
        terms = self._recipe.made().config.terms
        if term is not None and term not in terms:
            raise ValueError(f"terms has {term!r:.80}, which the scorer does not compute; it has {', '.join(terms)}")


def _reward_class(steps: _Steps, name: str, term: str | None) -> Any:
    """A class as ms-swift wants it. It is logged under the class's name."""
    from swift.rewards import ORM

    class Reward(ORM):  # type: ignore[misc]
        def __init__(self, args: Any = None, **kwargs: Any) -> None:
            super().__init__(args, **kwargs)
            steps.check(term)

        def __call__(self, completions: Sequence[str], **columns: Any) -> list[float | None]:
            batch = steps.score(completions, columns)
            found = totals(batch, None) if term is None else _column(batch, term)
            # A single value would be copied to all completions without a word.
            if len(found) != len(completions):
                raise RuntimeError(f"{len(found)} rewards for {len(completions)} completions")
            return found

    Reward.__name__ = Reward.__qualname__ = name
    return Reward


def _column(batch: ScoreBatch, term: str) -> list[float | None]:
    return [None if value != value else value for value in batch.terms[term].tolist()]


def _rows(columns: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """The rows of a call's columns; what is no column of the data set (`trainer_state`) is left out.

    Raises:
        ValueError: a column has another length.
    """
    lists = {name: column for name, column in columns.items() if isinstance(column, list)}
    for name, column in lists.items():
        if len(column) != count:
            raise ValueError(f"{name} has {len(column)} entries for {count} completions")
    return [{name: column[i] for name, column in lists.items()} for i in range(count)]
