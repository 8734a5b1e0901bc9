"""Targets that travel as texts: every field comes back, and reaches the rewards."""

import json

import numpy as np
import pytest

from dpad_fast.rewards import RewardConfig, RewardScorer
from dpad_fast.train.reward_functions import TrlRewards
from dpad_fast.train.targets import read_target, target_of_row, target_text
from dpad_fast.types import Target

MASK = np.zeros((40, 50), dtype=bool)
MASK[10:30, 5:25] = True
IGNORE = np.zeros((40, 50), dtype=bool)
IGNORE[0:3] = True
FULL = Target(
    box=(5, 10, 25, 30),
    points=((10, 20), (20.5, 25)),
    mask=MASK,
    ignore=IGNORE,
    polygons=(np.array([[5.0, 10], [25, 10], [25, 30], [5, 30.5]]),),
    objects=(((5, 10, 25, 30), (10, 20)),),
    other_boxes=((30, 1, 40, 9),),
    text="<box>(5,10),(25,30)</box>",
)


def same(a, b):
    if isinstance(a, tuple) and a and isinstance(a[0], np.ndarray):
        return len(a) == len(b) and all(map(same, a, b))
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


@pytest.mark.parametrize(
    "target", [FULL, Target(), Target(box=(0, 0, 1, 1)), Target(mask=np.zeros((3, 2), dtype=bool))]
)
def test_every_field_comes_back(target):
    back = read_target(target_text(target))
    for name in Target.__dataclass_fields__:
        assert same(getattr(target, name, None), getattr(back, name, None)), name


def test_equal_texts_give_one_object():
    assert target_of_row({"target": target_text(FULL)}) is target_of_row({"target": target_text(FULL)})


def test_a_mask_reward_reads_the_mask_that_travelled():
    """The polygon of the answer is the mask's left half: IoU 0.5, as the raw term gives it."""
    config = RewardConfig.preset("seg-zero", geometry="mask", terms=("mask_iou",), mask_threshold=None)
    rewards = TrlRewards(RewardScorer(config), target_of_row, model_size_of=lambda size: size)
    answer = json.dumps({"polygon": [[5, 10], [15, 10], [15, 30], [5, 30]]})
    found = rewards.functions()[0](
        completions=[f"<think>a</think><answer>{answer}</answer>"],
        image=[np.zeros((40, 50, 3), dtype=np.uint8)],
        target=[target_text(FULL)],
        id=["a"],
    )
    assert found == [pytest.approx(0.5, abs=1e-6)]
