"""Repairs in a process that was forked from one with encoders: free locks, and torch on one thread.

A fork copies the caller's thread and nothing else. A lock that another thread held stays held for ever in the child,
and a parallel loop of torch (OpenMP) waits for threads that are not there. The C++ core looks after its own threads
(`csrc/core/base/parallel.cpp`).
"""

from __future__ import annotations

import os
import weakref
from threading import Lock, RLock
from typing import Any

import torch

_holders: weakref.WeakSet[Any] = weakref.WeakSet()
_guarded: weakref.WeakSet[Any] = weakref.WeakSet()
_forking = Lock()
_held_locks: list[Any] = []
_WAIT_S = 10.0
_REENTRANT = type(RLock())
_child = False


def free_lock_in_child(holder: Any) -> None:
    """A forked child gets `holder._lock` free."""
    _holders.add(holder)


def fork_between_uses(holder: Any) -> None:
    """A fork waits until `holder._lock` is free, so that the child never gets the guarded object in mid-use."""
    _guarded.add(holder)


def one_thread() -> bool:
    """Whether this process is a child in which torch may use no more than one thread."""
    return _child


def _hold_locks() -> None:
    # The wait ends, because a signal's handler may fork while the thread that it interrupted holds a lock.
    for lock in (_forking, *(holder._lock for holder in list(_guarded))):
        if lock.acquire(timeout=_WAIT_S):
            _held_locks.append(lock)


def _release_locks() -> None:
    while _held_locks:
        _held_locks.pop().release()


def _in_child() -> None:
    global _child
    _release_locks()
    for holder in (*_holders, *_guarded):
        holder._lock = RLock() if isinstance(holder._lock, _REENTRANT) else Lock()
    if len(_holders) > 0:
        _child = True
        torch.set_num_threads(1)  # as torch's own data loaders do in their workers


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_locks, after_in_parent=_release_locks, after_in_child=_in_child)
