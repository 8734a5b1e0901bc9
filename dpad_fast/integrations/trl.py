"""TRL (1.16): reward functions for `GRPOTrainer`, a mixin for trainers of one's own, and a trainer. See docs/trl.md.

    scorer = df.RewardScorer(df.RewardConfig.preset("dpad"), encoder=encoder)  # or a RemoteScorer, or a MicroBatcher
    processor = AutoProcessor.from_pretrained("Qwen/Qwen2.5-VL-3B-Instruct")
    rewards = TrlRewards(scorer, processor=processor)  # so that the size at which the model saw a picture is known
    args = GRPOConfig(..., reward_weights=rewards.weights(), remove_unused_columns=False)
    trainer = GRPOTrainer(model, rewards.functions(), args, train_dataset=dataset)

The data set needs `prompt` (conversational), `image` or `images`, `solution` (read by `Target.parse`), and should have
an `id` column that is equal where images are: TRL hands out a new image object per completion. A column may be a list,
tuple, array or `datasets` column; an image may be what `RewardScorer.score` takes, or a list of one.

`class My(GroupAdvantageMixin, GRPOTrainer)` takes `advantage` beside the trainer's own arguments; `DpadTrainer` is such
a class, with `share_images` and checkpoints that are whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dpad_fast.train.group_advantage_mixin import GroupAdvantageMixin
from dpad_fast.train.reward_functions import RewardFunction, TargetOf, TrlRewards, completion_texts, parse_solution

if TYPE_CHECKING:
    from dpad_fast.train.trainer import DpadTrainer

__all__ = [
    "DpadTrainer",
    "GroupAdvantageMixin",
    "RewardFunction",
    "TargetOf",
    "TrlRewards",
    "completion_texts",
    "parse_solution",
]


def __getattr__(name: str) -> Any:
    """Import the trainer, and with it TRL, only when it is asked for (PEP 562)."""
    if name != "DpadTrainer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dpad_fast.train.trainer import DpadTrainer

    return DpadTrainer
