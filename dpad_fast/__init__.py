"""Fast, exact reward stage for training multimodal language models to find things in images (DPAD).

Every public name is loaded when it is first used, so that `import dpad_fast` costs milliseconds and pulls in neither
torch, transformers nor triton: a data-loading worker or a command's `--help` should not pay for a model library.
"""

import importlib
from typing import TYPE_CHECKING, Any

from dpad_fast._version import __version__

if TYPE_CHECKING:
    from dpad_fast import clip, coco_mask, data, evaluate, integrations, ops, reference, rewards, train
    from dpad_fast._row_columns import Columns
    from dpad_fast.clip import ClipEncoder, load_encoder
    from dpad_fast.model_size import model_size_for
    from dpad_fast.rewards import MicroBatcher, RewardConfig, RewardScorer, ScorerSpec
    from dpad_fast.row_images import images_from
    from dpad_fast.serve import RemoteScorer
    from dpad_fast.types import Completion, Sample, ScoreBatch, Target

__all__ = [
    "ClipEncoder",
    "Columns",
    "Completion",
    "MicroBatcher",
    "RemoteScorer",
    "RewardConfig",
    "RewardScorer",
    "Sample",
    "ScoreBatch",
    "ScorerSpec",
    "Target",
    "__version__",
    "clip",
    "coco_mask",
    "data",
    "evaluate",
    "images_from",
    "integrations",
    "load_encoder",
    "model_size_for",
    "ops",
    "reference",
    "rewards",
    "train",
]

_HOME = {
    "ClipEncoder": "dpad_fast.clip",
    "Columns": "dpad_fast._row_columns",
    "Completion": "dpad_fast.types",
    "MicroBatcher": "dpad_fast.rewards",
    "RemoteScorer": "dpad_fast.serve",
    "RewardConfig": "dpad_fast.rewards",
    "RewardScorer": "dpad_fast.rewards",
    "Sample": "dpad_fast.types",
    "ScoreBatch": "dpad_fast.types",
    "ScorerSpec": "dpad_fast.rewards",
    "Target": "dpad_fast.types",
    "images_from": "dpad_fast.row_images",
    "load_encoder": "dpad_fast.clip",
    "model_size_for": "dpad_fast.model_size",
}
_MODULES = {"clip", "coco_mask", "data", "evaluate", "integrations", "ops", "reference", "rewards", "train"}


def __getattr__(name: str) -> Any:
    """Import the module behind a public name on first use (PEP 562) and remember what was found."""
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names as well as what is loaded, so that completion in a shell finds them."""
    return sorted({*globals(), *__all__})
