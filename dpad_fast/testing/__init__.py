"""Helpers of tests and benchmarks; `dpad_fast.testing.rewards` has a tiny CLIP, pictures and completions."""

from dpad_fast.testing.devices import missing_cuda, poisoned_memory
from dpad_fast.testing.inputs import cases, noisy_pixels

__all__ = ["cases", "missing_cuda", "noisy_pixels", "poisoned_memory"]
