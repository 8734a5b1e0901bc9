"""A sample that is read later, perhaps in another process: its id is known now, its picture and masks when asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dpad_fast.types import Sample


@dataclass(frozen=True, eq=False)
class Deferred:
    """A sample to be read. It can be pickled, and is then as large as what its file says of it, without masks.

    Attributes:
        id: of the sample.
        read: reads it; raises a `ValueError` that names the place where it cannot be read.
    """

    id: str
    read: Callable[[], Sample]
