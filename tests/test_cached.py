"""Cached properties: made once and kept in the object, and free in a child that is forked while one is being made."""

import ast
import os
import signal
import threading
import warnings
from pathlib import Path

import pytest
import torch

import dpad_fast
from dpad_fast.cached import cached_property
from dpad_fast.clip.tower.packing import Paths, pack_tokens


class Counted:
    """Counts how often its value is made."""

    made = 0

    @cached_property
    def value(self) -> object:
        """A new object."""
        self.made += 1
        return object()


def test_a_value_is_made_once_for_each_object() -> None:
    first, second = Counted(), Counted()
    assert first.value is first.value
    assert first.value is not second.value
    assert (first.made, second.made) == (1, 1)
    assert Counted.value.__doc__ == "A new object."


def test_threads_that_come_together_get_one_value() -> None:
    both = threading.Barrier(2)

    class Slow:
        @cached_property
        def value(self) -> object:
            both.wait()
            return object()

    held, found = Slow(), []
    threads = [threading.Thread(target=lambda: found.append(held.value)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is found[1] is held.value


class Waiting:
    """Offsets that keep whoever reads them waiting."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def diff(self) -> torch.Tensor:
        self.reached.set()
        self.go_on.wait()
        return torch.ones(1, dtype=torch.int64)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_child_forked_while_a_thread_computes_computes_too() -> None:
    """With a lock, as in Python before 3.12, the child waits for a thread that it does not have."""
    offsets = Waiting()
    nothing = torch.zeros(1, dtype=torch.int64)
    thread = threading.Thread(target=lambda: Paths(nothing, offsets, nothing, nothing, causal=True).only_ends)
    thread.start()
    offsets.reached.wait()
    paths = pack_tokens([[1, 2], [1, 3]]).paths
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends a child that hangs
        os._exit(0 if paths.only_ends.first.tolist() == [1, 1] else 1)
    _, status = os.waitpid(child, 0)
    offsets.go_on.set()
    thread.join()
    assert status == 0


def test_the_package_has_no_property_with_a_lock() -> None:
    found = set()
    for file in Path(dpad_fast.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "functools":
                found |= {file.name for alias in node.names if alias.name == "cached_property"}
    assert found == {"cached.py"}
