"""One scorer for many processes: the server behind `dpad-fast serve`, and its client, which needs no web framework."""

from dpad_fast.serve.client import RemoteScorer

__all__ = ["RemoteScorer"]
