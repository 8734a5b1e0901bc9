"""The reward wrapper of the installed AReaL, its pool of processes and our server."""

import asyncio
import importlib.util
import sys
import types

import pytest

import dpad_fast as df
from dpad_fast.integrations.areal import reward_function
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.faulty_rows import expected_totals, faulty_rows
from dpad_fast.testing.serving import Running

FOUND = importlib.util.find_spec("areal")
if FOUND is None:
    pytest.skip("AReaL is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def wrapper():
    """Its `AsyncRewardWrapper`. The package's own first lines import what needs a GPU, so they are left out."""
    patch = pytest.MonkeyPatch()
    package = types.ModuleType("areal")
    package.__path__ = FOUND.submodule_search_locations
    patch.setitem(sys.modules, "areal", package)
    from areal.api.reward_api import AsyncRewardWrapper

    yield AsyncRewardWrapper
    AsyncRewardWrapper._atexit_shutdown_all()
    patch.undo()


@pytest.fixture(scope="module")
def server():
    running = Running("--window-ms", 2)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def scorer():
    return df.ScorerSpec(df.RewardConfig.preset("dpad"), encoder="shapes", threads=1).build()


def test_one_answer_at_a_time(wrapper, server, scorer, tmp_path):
    rows = faulty_rows(tmp_path)
    columns = {"solution": "answer"}
    asked = wrapper(reward_function(url=server.url, columns=columns, image="images"), max_workers=2)

    async def everything():
        calls = []
        for row in [*rows, *rows]:
            data = {"answer": row.solution, "images": [row.picture], "image_size": list(shared.SIZE)}
            # As RLVRWorkflow calls it, and as VisionRLVRWorkflow does.
            if len(calls) % 2:
                calls.append(asked("where?", row.completion + "<|im_end|>", [1], [2], **data))
            else:
                call = {"prompt": "p", "completions": row.completion, "prompt_ids": [1], "completion_ids": [2]}
                calls.append(asked(**call, **data))
        return await asyncio.gather(*calls)

    assert asyncio.run(everything()) == [total or 0.0 for total in expected_totals(scorer, rows)] * 2


def test_a_server_that_is_gone_is_an_error(wrapper):
    asked = wrapper(reward_function(url="http://127.0.0.1:9", retry_s=0.1), max_workers=2, max_retries=1)
    with pytest.raises(ConnectionError):
        asyncio.run(asked("p", shared.completion(), [], [], solution=shared.SOLUTION, image="nowhere.png"))
