"""`cached_property` without a lock, so that a fork in the middle of a computation leaves nothing locked in the child.

Before Python 3.12, `functools.cached_property` holds one lock for all objects of a class while it computes a value. A
thread that is scoring when its process forks would leave that lock held in the child for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

__all__ = ["cached_property"]

if TYPE_CHECKING:
    from functools import cached_property
else:

    class cached_property:
        """`functools.cached_property` as of Python 3.12: threads that come together may each compute the value.

        All of them get the value that was stored first.
        """

        def __init__(self, make: Callable[[Any], Any]) -> None:
            self._make = make
            self.__doc__ = make.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            """The value; Python asks here only while the object's `__dict__` has none."""
            if instance is None:
                return self
            return instance.__dict__.setdefault(self._name, self._make(instance))
