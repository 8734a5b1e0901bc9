"""From completions to rewards: parsing, format, geometry, the discriminative term, and the scorer that runs them."""

from dpad_fast.rewards.config import RewardConfig
from dpad_fast.rewards.micro_batcher import MicroBatcher
from dpad_fast.rewards.parse import parse_completion
from dpad_fast.rewards.presets import PRESETS
from dpad_fast.rewards.reasons import MALFORMED
from dpad_fast.rewards.scored_row import ScoredRow
from dpad_fast.rewards.scorer import RewardScorer
from dpad_fast.rewards.spec import ScorerSpec

__all__ = [
    "MALFORMED",
    "PRESETS",
    "MicroBatcher",
    "RewardConfig",
    "RewardScorer",
    "ScoredRow",
    "ScorerSpec",
    "parse_completion",
]
