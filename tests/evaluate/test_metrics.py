"""gIoU, cIoU and their error bars against values computed by hand and against simulated scores."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpad_fast.evaluate.metrics import Estimate, Overlap, beyond_noise, ciou, giou, over_seeds, overlap, ratio_estimate


def mask(text):
    return np.array([[letter == "x" for letter in row] for row in text.split()], dtype=bool)


def test_overlap_by_hand():
    target, guess, ignore = mask("xx.. xx.. ...."), mask(".xx. .xx. ...."), mask(".... .x.. ..x.")
    assert overlap(guess, target) == Overlap(2, 6)
    assert overlap(guess, target, ignore, "drop") == Overlap(1, 5)
    assert overlap(guess, target, ignore, "target") == Overlap(2, 7)
    assert overlap(None, target) == Overlap(0, 4)  # unreadable: nothing shared, the target's area in the union
    assert overlap(None, target, ignore, "drop") == Overlap(0, 3)
    assert overlap(None, target, ignore, "target") == Overlap(0, 5)


def test_empty_masks_agree():
    empty = np.zeros((3, 3), dtype=bool)
    assert overlap(empty, empty).iou == 1.0
    assert overlap(None, empty).iou == 1.0
    assert overlap(~empty, empty).iou == 0.0


def test_bad_arguments():
    target = np.zeros((3, 4), dtype=bool)
    with pytest.raises(ValueError, match="predicted has shape"):
        overlap(np.zeros((4, 3), dtype=bool), target)
    with pytest.raises(ValueError, match="ignore_as is 'skip'; known: drop, target"):
        overlap(target, target, ignore_as="skip")


def test_giou_is_a_mean_and_ciou_a_ratio_of_sums():
    found = [Overlap(1, 2), Overlap(0, 100), Overlap(30, 30)]
    assert giou(found) == pytest.approx(0.5)
    assert ciou(found) == pytest.approx(31 / 132)
    assert math.isnan(giou([]))
    assert math.isnan(ciou([]))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is not a slow strategy
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30))
def test_estimates_have_the_right_value(pairs):
    found = [Overlap(a, a + b) for a, b in pairs]
    tops, bottoms = [o.intersection for o in found], [o.union for o in found]
    estimate = ratio_estimate(tops, bottoms, [str(i) for i in range(len(found))])
    if sum(bottoms):
        assert estimate.value == pytest.approx(ciou(found))
    else:
        assert math.isnan(estimate.value)
    assert estimate.units == len(found)


def test_bootstrap_error_is_that_of_a_mean():
    values = np.random.default_rng(1).normal(size=400)
    estimate = ratio_estimate(list(values), [1.0] * 400, [str(i) for i in range(400)], draws=2000)
    assert estimate.error == pytest.approx(values.std(ddof=1) / 20, rel=0.1)


def test_completions_of_one_scene_are_not_independent():
    values = np.random.default_rng(1).normal(size=100)
    once = ratio_estimate(list(values), [1.0] * 100, [str(i) for i in range(100)], draws=2000)
    copied = ratio_estimate(list(values) * 4, [1.0] * 400, [str(i) for i in range(100)] * 4, draws=2000)
    assert copied.error == pytest.approx(once.error, rel=0.05)


def test_over_seeds():
    assert over_seeds([1.0, 3.0]) == Estimate(2.0, pytest.approx(1.0), 2)
    assert math.isnan(over_seeds([1.0]).error)
    assert math.isnan(over_seeds([]).value)
    assert over_seeds([1.0, math.nan, 3.0]).units == 2


def test_few_seeds_need_a_larger_difference():
    gap = Estimate(3.0, 1.0, 3)
    assert beyond_noise(gap, by_seeds=False)
    assert not beyond_noise(gap, by_seeds=True)  # 4.30 standard errors with two degrees of freedom
    assert beyond_noise(Estimate(-4.4, 1.0, 3), by_seeds=True)
    assert not beyond_noise(Estimate(1.0, math.nan, 1), by_seeds=True)
    assert not beyond_noise(Estimate(0.0, 0.0, 9), by_seeds=True)


def test_a_made_up_effect_is_found_and_none_is_not():
    rng = np.random.default_rng(0)
    found = [beyond_noise(over_seeds(list(rng.normal(0, 1, 4))), by_seeds=True) for _ in range(400)]
    assert 0.02 < np.mean(found) < 0.09
