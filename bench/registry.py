"""What a benchmark is made of: a case, ours, and the peers that do the same from the same input.

A module of this folder that defines `contests()` can be run as `python -m bench.run NAME` once `OPS` names it. Peers
that are not installed leave themselves out by raising ImportError when they are built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

OPS = {
    "preprocess": "bench.preprocess",
    "masks": "bench.masks",
    "polygons": "bench.polygons",
    "advantage": "bench.advantage",
}

Build = Callable[[int], Callable[[], Any]]  # from a number of threads to the call that is timed


@dataclass(frozen=True)
class Provider:
    """One implementation. `agree` says how its result has to relate to ours: "exact", "close" or "other"."""

    name: str
    build: Build
    agree: str = "exact"


@dataclass(frozen=True)
class Contest:
    """Implementations that start from the same input.

    `compare` takes our result and a peer's and gives a short word for their difference, and whether they are equal as
    far as the op promises it. `goals` are the least ratios to reach: `exact` against the fastest peer that agrees
    exactly, `any` against the fastest of all that compute the same thing.
    """

    op: str
    case: str
    ours: tuple[Provider, ...]
    peers: tuple[Provider, ...]
    compare: Callable[[Any, Any], tuple[str, bool]]
    goals: dict[str, float] = field(default_factory=dict)


def load(name: str) -> Iterable[Contest]:
    """The contests of one op.

    Args:
        name: a key of `OPS`.

    Returns:
        The contests.

    Raises:
        ValueError: there is no such op.
    """
    import importlib

    if name not in OPS:
        raise ValueError(f"no benchmark is called {name!r}; there are {', '.join(OPS)}")
    contests: Iterable[Contest] = importlib.import_module(OPS[name]).contests()
    return contests
