"""Answers with several objects: the best assignment, what wrong ones cost, and bounded memory."""

import itertools
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

import dpad_fast as df
from dpad_fast.rewards.matching import assign, pair_scores


@settings(max_examples=200, deadline=None)
@given(
    nps.arrays(
        np.float64,
        st.tuples(st.integers(1, 5), st.integers(1, 5)),
        elements=st.integers(0, 3).map(float) | st.floats(-3, 3, allow_subnormal=False),
    )
)
def test_assignment_is_the_best_of_all(weights):
    columns = assign(weights)
    matched = [(row, column) for row, column in enumerate(columns) if column >= 0]
    assert len(matched) == min(weights.shape) == len({column for _, column in matched})
    wide = weights if weights.shape[0] <= weights.shape[1] else weights.T
    rows = range(wide.shape[0])
    best = max(sum(wide[i, p[i]] for i in rows) for p in itertools.permutations(range(wide.shape[1]), wide.shape[0]))
    assert sum(weights[pair] for pair in matched) == pytest.approx(best, abs=1e-9)


TRUTH = [{"bbox_2d": [10, 10, 40, 40], "point_2d": [20, 20]}, {"bbox_2d": [60, 10, 90, 50], "point_2d": [70, 30]}]
SOLUTION = json.dumps(TRUTH)


def score(objects, solution=SOLUTION, think="One. Two."):
    text = f"<think>{think}</think><answer>{objects if isinstance(objects, str) else json.dumps(objects)}</answer>"
    batch = df.RewardScorer(df.RewardConfig.preset("vision-reasoner")).score([text], [solution])
    return {name: float(column[0]) for name, column in batch.terms.items()}, batch.reasons[0]


def test_order_does_not_matter():
    terms, reason = score(TRUTH[::-1])
    assert terms == {"think_format": 1, "answer_format": 2, "accuracy": 3, "non_repeat": 1}
    assert reason is None


def test_missing_and_extra_objects_cost():
    assert score(TRUTH[:1])[0]["accuracy"] == 1.5
    assert score([*TRUTH, TRUTH[0]])[0]["accuracy"] == 2


def test_parts_of_a_pair():
    shifted = {"bbox_2d": [22, 10, 52, 40], "point_2d": [20, 20]}  # mean L1 6, IoU under a half, point outside its box
    assert score([shifted, TRUTH[1]])[0]["accuracy"] == 2
    # A point 29.7 pixels away inside a box that is too large
    far = {"bbox_2d": [10, 10, 95, 95], "point_2d": [41, 41]}
    assert score([far, TRUTH[1]])[0]["accuracy"] == 2
    far["point_2d"] = [42, 42]
    assert score([far, TRUTH[1]])[0]["accuracy"] == 1.5


@pytest.mark.parametrize(
    ("objects", "fraction", "reason"),
    [
        ([], 0, "no-objects"),
        ("{}", 0, "bad-json"),
        ("[", 0, "bad-json"),
        ([{"bbox_2d": [1, 2, 3, 4]}], 1, "missing-field"),
        ([{"bbox_2d": [1, 2, 3], "point_2d": [1, 2]}], 1, "bad-field"),
        ([{"bbox_2d": [1, 2, 3, "4"], "point_2d": [1, 2]}], 2, "bad-field"),
        ([TRUTH[0], 5], 1, "missing-field"),
        ('[{"bbox_2d": [1, 2, 3, NaN], "point_2d": [1, 2]}]', 2, "non-finite"),
        ('[{"bbox_2d": [1, 2, 3, 1e999], "point_2d": [1, 2]}]', 2, "non-finite"),
    ],
)
def test_malformed_objects(objects, fraction, reason):
    terms, found = score(objects)
    assert (terms["answer_format"], terms["accuracy"], found) == (fraction, 0, reason)


def test_both_sides_are_cut():
    many = [TRUTH[0]] * 200
    assert score(many, json.dumps(many))[0]["accuracy"] == 3
    assert score(many)[0]["accuracy"] == pytest.approx(3 / 120)


def test_repeats():
    assert score(TRUTH, think="So. One. Two. One.")[0]["non_repeat"] == 1
    assert score(TRUTH, think="So. One. Two. One. Two.")[0]["non_repeat"] == 0


def test_huge_numbers_stay_finite():
    huge = [{"bbox_2d": [-1e308, -1e308, 1e308, 1e308], "point_2d": [1e308, -1e308]}]
    assert score(huge)[0]["accuracy"] == 0


def test_memory_is_bounded_by_blocks():
    rng = np.random.default_rng(0)
    boxes, points = rng.uniform(0, 50, (1000, 4)), rng.uniform(0, 50, (1000, 2))
    boxes[:, 2:] += boxes[:, :2]
    true_boxes, true_points = np.roll(boxes, 7, axis=0) + rng.uniform(0, 9, (1000, 4)), np.roll(points, 7, axis=0)
    config = df.RewardConfig.preset("vision-reasoner")
    tracemalloc.start()
    scores = pair_scores(boxes, points, true_boxes, true_points, config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 << 20  # the whole [1000, 1000, 4] of differences takes twice 32 MB beside the rest
    rows = rng.choice(1000, 40, replace=False)
    alone = [pair_scores(boxes[[i]], points[[i]], true_boxes, true_points, config)[0] for i in rows]
    assert np.array_equal(scores[rows], alone)
    assert set(np.unique(scores)) == {0, 1, 2, 3}


def test_more_objects_than_a_block():
    many = [{"bbox_2d": [i % 20 * 40, i // 20 * 40, i % 20 * 40 + 30, i // 20 * 40 + 30]} for i in range(300)]
    many = [{**item, "point_2d": [item["bbox_2d"][0] + 9, item["bbox_2d"][1] + 9]} for item in many]
    config = df.RewardConfig.preset("vision-reasoner", max_objects=300)
    text = f"<think>t</think><answer>{json.dumps(many[::-1])}</answer>"
    batch = df.RewardScorer(config).score([text], [json.dumps(many)])
    assert float(batch.terms["accuracy"][0]) == 3
