"""Columns as callers give them: what the rows of a group share is read once, and errors name each row."""

import pytest

import dpad_fast as df
from dpad_fast.rewards import arguments
from dpad_fast.testing import rewards as shared

GOOD = shared.completion()
TARGET = df.Target(box=(20, 12, 64, 52), points=((30, 24), (50, 40)), image_size=shared.SIZE)


class Fresh:
    """A column whose entries are made when they are asked for: the next one may get the address of the last."""

    def __init__(self, make, count):
        self._make, self._count = make, count

    def __len__(self):
        return self._count

    def __iter__(self):
        return map(self._make, range(self._count))


class Text(str):
    """A text of a type of its own."""


@pytest.mark.parametrize("preset", ["dpad", "dpad-released"])
@pytest.mark.parametrize(
    "make",
    [
        lambda i: f"<box>({i % 3},0),(9,9)</box><points>(3,3),(4,4)</points>" if i % 2 else "nothing",
        lambda i: Text(f"<box>({i % 3},0),(9,9)</box><points>(3,3),(4,4)</points>" if i % 2 else "nothing"),
        lambda i: df.Target(box=(i % 3, 0, 9, 9), points=((3, 3), (4, 4))) if i % 2 else df.Target(),
        lambda i: df.Target(box=(i % 3, 0, 9, 9), points=((3, 3), (4, 4))) if i % 2 else object(),
        lambda i: df.Target(box=(i % 3, 0, 9, 9), points=((3, 3), (4, 4)), text=" " * (i % 2)),
    ],
)
def test_targets_that_are_made_on_the_way_are_told_apart(preset, make):
    config = df.RewardConfig.preset(preset, terms=("iou",), iou_threshold=0.99, gate=False)
    scorer = df.RewardScorer(config)
    texts = [shared.completion((i % 3, 0, 9, 9), (3, 3), (4, 4)) for i in range(12)]
    found = scorer.score(texts, Fresh(make, 12), on_error="row")
    alone = [scorer.score([text], [make(i)], on_error="row") for i, text in enumerate(texts)]
    assert [str(float(one.total[0])) for one in alone] == [str(value) for value in found.total.tolist()]
    moved = [one.errors[0] and one.errors[0].replace("[0]", f"[{i}]") for i, one in enumerate(alone)]
    assert list(found.errors) == moved
    assert found.total.nansum() > 0


def test_a_target_of_a_group_is_checked_once_and_each_row_of_a_bad_one_is_named(monkeypatch):
    checked = []
    check = arguments._read_target
    monkeypatch.setattr(arguments, "_read_target", lambda *given: checked.append(given[1]) or check(*given))
    scorer = df.RewardScorer(df.RewardConfig.preset("seg-zero", terms=("iou",)))
    bad = df.Target(box=(9, 9, 1, 1))
    targets = [TARGET] * 3 + [shared.SOLUTION] * 3 + [bad] * 2
    found = scorer.score([GOOD] * 8, targets, on_error="row")
    assert checked == [0, 3, 6, 7]
    assert [error and error.partition(".")[0] for error in found.errors[5:]] == [None, "targets[6]", "targets[7]"]


def test_a_size_of_a_group_that_is_none_is_named_in_each_row():
    scorer = df.RewardScorer(df.RewardConfig.preset("seg-zero", terms=("iou",)))
    wrong, right = [0, 5], list(shared.SIZE)
    found = scorer.score([GOOD] * 4, [TARGET] * 4, model_sizes=[right, wrong, wrong, right], on_error="row")
    assert found.errors[0] is found.errors[3] is None
    assert [error.partition(" ")[0] for error in found.errors[1:3]] == ["model_sizes[1]", "model_sizes[2]"]


class Untruthful(df.Target):
    """A target of a user's own, whose truth is another matter, as an array's is."""

    def __bool__(self):
        raise TypeError("neither true nor false")


def test_a_target_is_never_asked_whether_it_is_true():
    scorer = df.RewardScorer(df.RewardConfig.preset("seg-zero", terms=("iou",)))
    target = Untruthful(box=TARGET.box, points=TARGET.points, image_size=TARGET.image_size)
    assert scorer.score([GOOD] * 2, [target] * 2).total.tolist() == [1, 1]
