"""The named configurations. A preset is data only: everything it does is a field of `RewardConfig`."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # The paper (arXiv 2603.04002): gate on the format, binary discriminative reward.
    "dpad": {"name": "dpad"},
    # What the authors' public code computes, to the letter.
    "dpad-released": {
        "name": "dpad-released",
        "strip": False,
        "answer": "released",
        "gate": False,
        "shape": "released",
    },
    # Geometry only, one object, no caption.
    "seg-zero": {
        "name": "seg-zero",
        "tags": ("think", "answer"),
        "terms": ("think_format", "answer_format", "iou", "box_l1", "point_l1"),
        "gate": False,
    },
    # Several objects, matched; 30 pixels for points.
    "vision-reasoner": {
        "name": "vision-reasoner",
        "tags": ("think", "answer"),
        "terms": ("think_format", "answer_format", "accuracy", "non_repeat"),
        "strip": False,
        "answer": "objects",
        "gate": False,
        "point_threshold": 30.0,
    },
}
