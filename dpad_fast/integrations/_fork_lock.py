"""A lock of what each process makes once."""

from __future__ import annotations

import os
import threading
import weakref


class ForkLock:
    """A lock that is free in a forked process.

    A thread that holds a plain lock while its process forks is not there in the new one, where nobody would free it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        renew = weakref.WeakMethod(self._renew)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: (renew() or _nothing)())

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _nothing() -> None:
    pass
