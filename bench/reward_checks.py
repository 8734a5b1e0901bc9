"""What the timing of the reward stage rests on: equality over many completions, and memory and cost as N grows."""

from __future__ import annotations
