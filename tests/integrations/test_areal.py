"""The reward function of AReaL, through a pool of processes as its own wrapper has, and a server."""

import asyncio
import importlib
import logging
import multiprocessing
import socket
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

import dpad_fast as df
from dpad_fast.integrations import _scorers, areal
from dpad_fast.integrations.areal import reward_function
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.faulty_rows import expected_totals, faulty_rows
from dpad_fast.testing.serving import Running

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def scorer():
    return df.ScorerSpec(df.RewardConfig.preset("dpad"), encoder="shapes", threads=1).build()


@pytest.fixture(scope="module")
def server():
    running = Running("--window-ms", 2)
    yield running
    assert running.stop() == 0


class AsyncRewardWrapper:
    """A stand-in of `areal.api.AsyncRewardWrapper` of AReaL 1.0: each call is sent to a pool of processes."""

    def __init__(self, reward_fn, workers):
        # AReaL's pool forks; the test's process has threads, which must not.
        self.reward_fn = reward_fn
        self.executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))

    async def __call__(self, *args, **kwargs):
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self.executor, partial(self.reward_fn, *args, **kwargs))
        return await asyncio.wait_for(future, 60)


def test_one_at_a_time_in_a_pool_of_processes(scorer, server, tmp_path):
    rows = faulty_rows(tmp_path)
    wrapper = AsyncRewardWrapper(reward_function(url=server.url, columns={"solution": "answer"}, image="images"), 1)

    async def all_rows():
        calls = []
        for row in rows:
            data = {"answer": row.solution, "images": [row.picture], "image_size": list(shared.SIZE), "messages": "m"}
            calls.append(wrapper("where?", row.completion + "<|im_end|>", [1], [2], **data))
        return await asyncio.gather(*calls)

    with wrapper.executor:
        assert asyncio.run(all_rows()) == [total or 0.0 for total in expected_totals(scorer, rows)]


def test_faults_are_counted_in_the_log(server, tmp_path, caplog):
    function = reward_function(url=server.url)
    rows = faulty_rows(tmp_path)
    with caplog.at_level(logging.WARNING):
        for row in rows:
            function(prompt="p", completions=row.completion, prompt_ids=[], completion_ids=[], **row.label())
    assert "AReaL: 1 of 1 rows cannot be scored (bad-target 1), 4 of 7 so far" in caplog.records[-1].getMessage()


def test_an_encoder_in_each_process_is_refused(scorer):
    function = reward_function(encoder="shapes", threads=1)
    with pytest.raises(ValueError, match="each of which would load an encoder: start `dpad-fast serve`"):
        function("p", shared.completion(), [], [], solution=shared.SOLUTION)
    config = {"preset": "dpad", "terms": ["iou"], "gate": False}
    assert reward_function(config=config)("p", shared.completion(), [], [], solution=shared.SOLUTION) == 1.0


def test_a_server_that_is_not_there_is_no_reward():
    function = reward_function(url="http://127.0.0.1:9", retry_s=0.2)
    with pytest.raises(ConnectionError):
        function("p", shared.completion(), [], [], solution=shared.SOLUTION, image=shared.picture())


@pytest.mark.parametrize(("said", "wanted"), [("", 12.0), ("retry_s: 40\n", 40.0)])
def test_a_server_that_the_file_names_is_waited_for_no_longer_than_areal_waits(tmp_path, monkeypatch, said, wanted):
    """After 15 seconds AReaL would take 0 for the reward: a client that tries for minutes teaches zeros."""
    settings = tmp_path / "scorer.yaml"
    settings.write_text(f"url: http://127.0.0.1:9\n{said}")
    monkeypatch.setenv("DPAD_FAST_SCORER", str(settings))
    made = []

    class Client(_scorers.RemoteScorer):
        def __init__(self, *arguments, **given):
            made.append(given)
            raise ConnectionError("no server")

    monkeypatch.setattr(_scorers, "RemoteScorer", Client)
    limits = []
    monkeypatch.setattr(areal, "_within", lambda limit, call: limits.append(limit) or call())
    with pytest.raises(ConnectionError):
        reward_function()("p", shared.completion(), [], [], solution=shared.SOLUTION)
    assert [given["retry_s"] for given in made] == [wanted]
    assert limits == [wanted + 1]


def test_a_server_that_takes_requests_and_is_silent_is_no_reward(monkeypatch):
    """Its client waits for each answer: without a limit longer than AReaL does."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=8)
    monkeypatch.setattr(areal, "_FOR_THE_CLIENT_S", 0.1)
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        function = reward_function(url=url, retry_s=0.1, timeout_s=300.0)
        with pytest.raises(ConnectionError, match="it is silent"):
            function("p", shared.completion(), [], [], solution=shared.SOLUTION)
    finally:
        listener.close()


def test_the_example(scorer, server, tmp_path, monkeypatch):
    settings = tmp_path / "scorer.yaml"
    settings.write_text(f"url: {server.url}\n")
    monkeypatch.setenv("DPAD_FAST_SCORER", str(settings))
    monkeypatch.syspath_prepend(str(EXAMPLES / "areal"))
    monkeypatch.delitem(sys.modules, "dpad_rewards", raising=False)
    function = importlib.import_module("dpad_rewards").reward_fn
    row = faulty_rows(tmp_path)[0]
    data = {"answer": row.solution, "images": [row.picture], "model_size": shared.SIZE}
    assert function("p", row.completion, [], [], **data) == expected_totals(scorer, [row])[0]
