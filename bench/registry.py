"""What a benchmark is, and all that there are: CPU ops, cost against size, reward stage, GPU ops, compiled kernels.

A contest is a case, ours, and the peers that do the same from the same input. Peers that are not installed leave
themselves out by raising ImportError when they are built.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Benchmark(NamedTuple):
    """Where a benchmark is. `kind` is "contests" where `bench.run` times the module's `contests()`; else its `main`."""

    module: str
    kind: str
    summary: str


BENCHMARKS = {
    "preprocess": Benchmark("bench.cpu.preprocess", "contests", "crop, resize and normalise 32 regions"),
    "masks": Benchmark("bench.cpu.masks", "contests", "IoU of 128 masks, paired and all pairs; run lengths"),
    "polygons": Benchmark("bench.cpu.polygons", "contests", "draw 128 polygons; their IoU with masks"),
    "advantage": Benchmark("bench.cpu.advantage", "contests", "group advantages, discriminative reward"),
    "linear": Benchmark("bench.linear", "main", "time per item and memory as the number of items grows"),
    "data": Benchmark("bench.data", "main", "10,000 rows of COCO's and RefCOCO's form: seconds and memory"),
    "reward": Benchmark("bench.reward.__main__", "main", "a step of 128 completions through CLIP ViT-B/32"),
    "hostile": Benchmark("bench.hostile", "main", "hostile completions through the scorer, one by one"),
    "gpu": Benchmark("bench.gpu.__main__", "main", "the ops on a GPU; refuses where there is none"),
    "gpu-static": Benchmark("bench.gpu_static", "main", "registers, spills and widths of the compiled kernels"),
}
OPS = tuple(name for name, benchmark in BENCHMARKS.items() if benchmark.kind == "contests")

Build = Callable[[int], Callable[[], Any]]  # from a number of threads to the call that is timed


def call(function: Callable[[], Any]) -> Build:
    """A call that is the same for any number of threads."""
    return lambda threads: function


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

    def kinds(self) -> dict[str, str]:
        """By provider "ours", or how a peer has to agree."""
        return {provider.name: "ours" for provider in self.ours} | {peer.name: peer.agree for peer in self.peers}

    def prepare(self, threads: int) -> tuple[dict[str, Callable[[], Any]], dict[str, str], list[str]]:
        """Builds every call and compares its result with ours.

        Returns:
            The calls, how each agrees with ours, and what is wrong: nothing may be timed where this is not empty.
        """
        calls: dict[str, Callable[[], Any]] = {}
        agreement: dict[str, str] = {}
        problems: list[str] = []
        for provider in (*self.ours, *self.peers):
            try:
                made = provider.build(threads)
            except ImportError as error:
                print(f"  {provider.name} left out: {error}", file=sys.stderr)
                continue
            result = made()
            if not calls:
                ours = result
            word, equal = self.compare(ours, result)
            if provider.agree == "exact" and not equal:
                problems.append(f"{self.case}: {provider.name} should agree exactly, but {word}")
            calls[provider.name], agreement[provider.name] = made, word
        return calls, agreement, problems


def find(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        ValueError: there is none; names those that there are.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"no benchmark is called {name!r}; there are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def contests(name: str) -> Iterable[Contest]:
    """The contests of one op."""
    found: Iterable[Contest] = importlib.import_module(find(name).module).contests()
    return found
