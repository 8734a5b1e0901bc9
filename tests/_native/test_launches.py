"""A launch that is found again is the one that Triton would find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("triton")

from dpad_fast._native.launches import Launched, kinds


class OnGpu(torch.Tensor):
    """A host tensor that says it lies on a GPU."""

    def get_device(self) -> int:
        return 1


class Kernel:
    """Stands for a Triton kernel: keeps what was compiled and what was launched, and with what."""

    arg_names = ("source", "out", "n", "scale", "SIZE", "FLAG")

    def __init__(self) -> None:
        self.searched: list[Any] = []
        self.launched: list[Any] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        def launch(*arguments: Any, **named: Any) -> Compiled:
            self.searched.append((grid, arguments, named))
            return Compiled(self)

        return launch


class Compiled:
    """Stands for a compiled kernel, which takes a grid of three and all arguments by place."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, int, int]) -> Callable[..., None]:
        return lambda *arguments: self.kernel.launched.append((grid, arguments))


@pytest.fixture(autouse=True)
def remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with any release of Triton and any GPU where launches are remembered."""
    monkeypatch.setattr("dpad_fast._native.launches._REMEMBERS", True)


def launched_on(kernel: Any) -> Callable[..., None]:
    """Launches with one thing changed at a time."""
    rows, launched = torch.zeros(640).as_subclass(OnGpu), Launched(kernel)

    def launch(source: torch.Tensor = rows, n: int = 32, scale: float = 0.5, **named: Any) -> None:
        launched[(4,)](source, rows, n, scale, **{"FLAG": True, "SIZE": 8, "num_warps": 4, **named})

    return launch


def test_a_launch_that_is_known_is_made_without_a_search() -> None:
    kernel, rows = Kernel(), torch.zeros(64).as_subclass(OnGpu)
    launched = Launched(kernel)
    launched[(4,)](rows, rows, 32, 0.5, FLAG=True, SIZE=8, num_warps=4)
    assert len(kernel.searched) == 1
    assert kernel.launched == []  # Triton launches what it has searched for
    launched[(5, 2)](rows, rows, 96, 0.25, FLAG=True, SIZE=8, num_warps=4)
    assert len(kernel.searched) == 1
    ((grid, arguments),) = kernel.launched
    assert grid == (5, 2, 1)
    assert arguments[0] is rows
    assert arguments[2:] == (96, 0.25, 8, True)  # constants in the kernel's order, and no option


def test_what_triton_may_compile_differently_is_searched_for() -> None:
    kernel = Kernel()
    launch, rows = launched_on(kernel), torch.zeros(640)
    others: list[dict[str, Any]] = [
        {},
        {"source": rows.double().as_subclass(OnGpu)},
        {"source": rows[1:].as_subclass(OnGpu)},
        *({"n": n} for n in (0, 1, 3, 8, 16, 1 << 31, 1 << 63)),
        {"SIZE": 16},
        {"FLAG": False},
        {"num_warps": 8},
    ]
    for i, other in enumerate(others):
        launch(**other)
        assert len(kernel.searched) == i + 1, other
    for other in others:
        launch(**other)
    assert len(kernel.searched) == len(kernel.launched) == len(others)


EDGES = sorted({
    edge + by
    for edge in (0, 16, 512, 1024, *(sign << bits for bits in (31, 32, 63) for sign in (1, -1)), 1 << 64)
    for by in (-1024, -17, -16, -15, -1, 0, 1, 2, 15, 16, 17, 1024)
    if -(1 << 63) <= edge + by < 1 << 64
})  # fmt: skip


def as_triton_knows(value: int) -> tuple[Any, ...]:
    """By Triton's own code where the installed release has it (from 3.6), else by what 3.2 to 3.5 say of a number."""
    native = getattr(pytest.importorskip("triton._C.libtriton"), "native_specialize_impl", None)
    if native is None:
        kind = "i32" if -(1 << 31) <= value < 1 << 31 else "i64" if value < 1 << 63 else "u64"
        return kind, value == 1, value % 16 == 0
    backends = pytest.importorskip("triton.backends.nvidia.compiler")
    compiler = pytest.importorskip("triton.backends.compiler")
    found: tuple[Any, ...] = native(backends.CUDABackend(compiler.GPUTarget("cuda", 90, 32)), value, False, True, True)
    return found


def test_whole_numbers_at_the_edges_of_their_types() -> None:
    """Of one kind here is of one kind to Triton: 0, 1, what 16 divides, and the ends of int32, int64 and uint64."""
    known: dict[Any, set[tuple[Any, ...]]] = {}
    for value in EDGES:
        known.setdefault(tuple(kinds([value])), set()).add(as_triton_knows(value))
    assert {kind: asked for kind, asked in known.items() if len(asked) > 1} == {}
    assert len({asked for each in known.values() for asked in each}) == 7  # 1, and each type divisible by 16 or not


@pytest.mark.parametrize("other", [-(1 << 63) - 1, 1 << 64, (1 << 64) + 16, 1 << 70])
def test_a_number_that_triton_refuses_is_of_no_other_kind(other: int) -> None:
    assert all(kinds([other]) != kinds([value]) for value in EDGES)


def test_a_launch_is_searched_for_at_each_edge() -> None:
    kernel = Kernel()
    launch = launched_on(kernel)
    as_int64 = (-(1 << 31) - 1024, 1 << 31, -(1 << 63))
    for searches, numbers in enumerate(((-(1 << 31), 1024), as_int64, (1 << 63,), (1 << 64,)), 1):
        for n in numbers:
            launch(n=n)
            assert len(kernel.searched) == searches, n


@given(*[st.one_of(st.integers(-40, 40), st.integers(-(1 << 63), (1 << 64) - 1))] * 2)
def test_whole_numbers_of_one_kind_are_one_to_triton(a: int, b: int) -> None:
    for low in (a, a & ~15, a & ~511):
        if kinds([low]) == kinds([b]):
            assert as_triton_knows(low) == as_triton_knows(b)


def test_nothing_is_remembered_where_triton_asks_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpad_fast._native.launches._REMEMBERS", False)
    kernel = Kernel()
    launch = launched_on(kernel)
    for _ in range(2):
        launch()
    assert len(kernel.searched) == 2
    assert kernel.launched == []


def test_triton_itself_launches_what_is_not_on_a_gpu() -> None:
    kernel, rows = Kernel(), torch.zeros(4)
    launched = Launched(kernel)
    for _ in range(2):
        launched[(1,)](rows, rows, 2, 0.5, SIZE=1, FLAG=False)
    assert len(kernel.searched) == 2
    assert kernel.launched == []


def test_what_is_remembered_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dpad_fast._native.launches._MOST", 3)
    kernel = Kernel()
    launch = launched_on(kernel)
    for size in (1, 2, 3, 4):
        launch(SIZE=size)
    launch(SIZE=1)
    assert len(kernel.searched) == 5
    launch(SIZE=4)
    assert len(kernel.searched) == 5
