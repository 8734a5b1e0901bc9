"""`Timer`: how long the stages of one call took."""

from __future__ import annotations

import time


class Timer:
    """Adds seconds up by stage; laps follow one another without a gap.

    Args:
        seconds: per stage, increased by each lap; None: a dictionary of its own.

    Attributes:
        seconds: the same dictionary.
    """

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds: dict[str, float] = {} if seconds is None else seconds
        self._began = time.perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last lap, or since this was made, went into `stage`."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._began
        self._began = now
