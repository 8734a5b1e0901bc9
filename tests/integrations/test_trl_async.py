"""TRL's reward functions from event loops and threads: the values of the plain ones, one scoring, failures counted."""

import asyncio
import gc
import inspect
import logging
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import dpad_fast as df
from dpad_fast.data import shapes
from dpad_fast.data.shapes_text import MIXTURES, completion_of
from dpad_fast.integrations.trl import TrlRewards

ITEM = shapes.sample(5, 0)
GOOD = completion_of(ITEM, MIXTURES["e"], np.random.default_rng(0))
TEXTS = [GOOD, "no idea", GOOD.replace("<caption>", "<caption>not "), GOOD.replace("</caption>", ""), GOOD + " "]
SPEC = df.ScorerSpec(config=df.RewardConfig.preset("dpad", shape="sigmoid"), encoder="shapes", threads=1)


def step():
    """Five completions of one picture, and two without a usable picture or truth."""
    return {
        "completions": [[{"role": "assistant", "content": text}] for text in [*TEXTS, GOOD, GOOD]],
        "image": [ITEM.image.copy() for _ in TEXTS] + ["missing.png", ITEM.image.copy()],
        "solution": [ITEM.target.text] * 6 + ["<box>(0,0),(900,900)</box><points>(1,1),(2,2)</points>"],
        "id": [0] * 5 + [1, 2],
    }


class Waiting:
    """A scorer that does not begin before `go` is set, and counts its calls."""

    def __init__(self, scorer):
        self.scorer, self.config, self.calls, self.go = scorer, scorer.config, 0, threading.Event()

    def score(self, *columns, **settings):
        self.calls += 1
        assert self.go.wait(60), "nobody went on while this was scored"
        return self.scorer.score(*columns, **settings)


class Failing:
    """A scorer whose server is not there."""

    config = df.RewardConfig.preset("seg-zero")

    def score(self, *columns, **settings):
        raise ConnectionError("nobody answers")


@pytest.fixture(scope="module")
def scorer():
    return SPEC.build()


@pytest.fixture(scope="module")
def expected(scorer):
    rewards = TrlRewards(scorer)
    values = {function.__name__: function(**step()) for function in rewards.functions()}
    assert rewards.counts["rows"] == 7 * len(values)  # seven rows, each time another list object
    assert [column[5:] for column in values.values()] == [[None, None]] * len(values)
    assert values["discriminative"][0] not in (0.0, None)
    assert values["discriminative"][1] == 0.0
    return values


def gathered(functions, call):
    async def run():
        return await asyncio.gather(*(function(**call) for function in functions))

    return dict(zip((f.__name__ for f in functions), asyncio.run(run()), strict=True))


@pytest.mark.parametrize("kind", ["scorer", "batcher"])
def test_async_values_are_the_plain_ones(scorer, expected, kind):
    taken = scorer if kind == "scorer" else df.MicroBatcher(scorer, window_ms=1)
    functions = TrlRewards(taken).functions(async_=True)
    assert all(inspect.iscoroutinefunction(function.__call__) for function in functions)  # as TRL asks
    assert gathered(functions, step()) == expected
    assert {function.__name__: function(**step()) for function in TrlRewards(taken).functions()} == expected
    total = TrlRewards(taken).total(async_=True)
    assert total.__name__ == "dpad"
    assert gathered([total], step())["dpad"] == TrlRewards(scorer).total()(**step())


def test_the_event_loop_goes_on_and_scores_once(scorer, expected):
    waiting = Waiting(scorer)

    async def other():
        waiting.go.set()

    async def run():
        call = step()
        functions = TrlRewards(waiting).functions(async_=True)
        *columns, _ = await asyncio.gather(*(function(**call) for function in functions), other())
        return columns

    assert asyncio.run(run()) == list(expected.values())
    assert waiting.calls == 1


def test_a_scoring_that_was_begun_is_the_one_that_is_awaited(scorer, expected):
    waiting = Waiting(scorer)
    rewards = TrlRewards(waiting)
    call = step()
    columns = {name: column for name, column in call.items() if name != "completions"}
    rewards.begin(call["completions"], columns)  # returns at once, though the scorer waits
    waiting.go.set()
    assert gathered(rewards.functions(async_=True), call) == expected
    assert {function.__name__: function(**call) for function in rewards.functions()} == expected
    assert waiting.calls == 1
    assert rewards.counts["rows"] == 7


def test_threads_share_one_scoring(scorer, expected):
    """TRL's asynchronous trainer calls plain functions from threads."""
    waiting = Waiting(scorer)
    functions = TrlRewards(waiting).functions()
    call = step()
    with ThreadPoolExecutor(len(functions)) as pool:
        asked = [pool.submit(function, **call) for function in functions]
        waiting.go.set()
        assert [each.result(60) for each in asked] == list(expected.values())
    assert waiting.calls == 1


def test_functions_can_be_sent_to_another_process(expected):
    for kind in ({}, {"async_": True}):
        functions = pickle.loads(pickle.dumps(TrlRewards(SPEC.build()).functions(**kind)))
        assert [function.__name__ for function in functions] == list(expected)
        found = gathered(functions, step()) if kind else {f.__name__: f(**step()) for f in functions}
        assert found == expected
        assert len({id(function.rewards) for function in functions}) == 1


def test_rows_that_fail_are_counted_and_logged(scorer, caplog):
    logged, extra = {}, {}
    rewards = TrlRewards(scorer)
    call = step()
    with caplog.at_level(logging.WARNING):
        for function in rewards.functions():
            function(**call, log_metric=logged.__setitem__, log_extra=extra.__setitem__)
    assert rewards.counts["rows"] == 7
    assert rewards.counts["bad-image"] == 1
    assert rewards.counts["bad-target"] == 1
    assert rewards.counts["no-tags"] == 2
    assert logged["dpad/unscored"] == pytest.approx(2 / 7)
    assert extra["dpad_reason"][1] == "no-tags"
    assert extra["dpad_reason"][5:] == ["bad-image", "bad-target"]
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("2 of 7 rows are left unscored (bad-image 1, bad-target 1); the first: images[5] cannot be")


def test_a_scorer_that_fails_does_not_end_the_training(caplog):
    logged = {}
    for kind in ({}, {"async_": True}):
        rewards = TrlRewards(Failing(), **{"model_size_of": lambda size: size})
        functions = rewards.functions(**kind)
        call = {**step(), "log_metric": logged.__setitem__}
        values = gathered(functions, call) if kind else {f.__name__: f(**call) for f in functions}
        assert list(values.values()) == [[None] * 7] * len(functions)
        assert rewards.counts == {"rows": 7, "scorer-failed": 7}
        assert logged["dpad/unscored"] == 1.0
        assert "nobody answers" in caplog.text
        asked = TrlRewards(Failing(), on_error="raise").functions(**kind)
        with pytest.raises(ConnectionError, match="nobody answers"):
            gathered(asked, step()) if kind else asked[0](**step())


def test_a_scoring_that_raised_is_tried_again(scorer, expected):
    rewards = TrlRewards(scorer, on_error="raise")
    call = step()
    [total] = [rewards.total()]
    with pytest.raises(ValueError, match=r"^images\[5\]"):
        total(**call)
    with pytest.raises(ValueError, match=r"^images\[5\]"):
        total(**call)
    good = {name: column[:5] for name, column in call.items()}
    assert rewards.functions()[0](**good) == next(iter(expected.values()))[:5]


def test_a_target_function_that_fails_costs_its_row(scorer):
    def target_of(row):
        return df.Target.parse(row["solution"]) if row["id"] != 2 else row["nothing"]

    batch = TrlRewards(scorer, target_of).score(step()["completions"], step())
    assert batch.reasons[6] == "bad-target"
    assert batch.errors[6] == "targets[6]: KeyError: 'nothing'"
    call = {name: column[6:] for name, column in step().items()}
    with pytest.raises(KeyError):
        TrlRewards(scorer, target_of, on_error="raise").score(call["completions"], call)


def test_pictures_of_earlier_steps_are_not_kept(scorer):
    rewards = TrlRewards(scorer)
    call = step()
    watched = weakref.ref(call["image"][0])
    rewards.functions()[0](**call)
    del call
    gc.collect()
    assert watched() is None
    assert torch.isfinite(rewards.score(step()["completions"], step()).total[:5]).all()
