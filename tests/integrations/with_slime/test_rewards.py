"""slime's own reward module asks our function and our server.

The package index has no slime. The module is read at test time from a repository that SLIME_REPOSITORY names (a git
directory or a checkout); what it imports besides is stand-ins. Without it, a stand-in of its call alone is tested.
"""

import asyncio
import importlib
import json
import os
import subprocess
import sys
import types
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

import dpad_fast as df
from dpad_fast.testing.faulty_rows import expected_totals, faulty_rows
from dpad_fast.testing.serving import Running

aiohttp = pytest.importorskip("aiohttp")
MODULE = "slime/rollout/rm_hub/__init__.py"


@dataclass
class Sample:
    """A stand-in of `slime.utils.types.Sample`."""

    response: str
    label: str
    prompt: str = "Where is it?"
    metadata: dict = field(default_factory=dict)
    multimodal_inputs: dict | None = None
    custom_rm_path: str | None = None
    remove_sample: bool = False


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def rows(root):
    return faulty_rows(root)


@pytest.fixture(scope="module")
def wanted(rows):
    scorer = df.ScorerSpec(df.RewardConfig.preset("dpad"), encoder="shapes", threads=1).build()
    return [total or 0.0 for total in expected_totals(scorer, rows)]


@pytest.fixture(scope="module")
def server(root):
    running = Running("--root", root)
    yield running
    assert running.stop() == 0


@pytest.fixture
def rm_hub(monkeypatch, tmp_path):
    """slime's module, alone: its neighbours, which rewards of other kinds need, are empty."""
    repository = os.environ.get("SLIME_REPOSITORY")
    if not repository:
        pytest.skip("SLIME_REPOSITORY names no repository of slime")
    asked = subprocess.run(["git", "-C", repository, "show", f"HEAD:{MODULE}"], check=True, capture_output=True)
    folder = tmp_path / MODULE
    folder.parent.mkdir(parents=True)
    folder.write_bytes(asked.stdout)
    misc = types.ModuleType("slime.utils.misc")
    misc.load_function = lambda path: getattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2])
    kinds = types.ModuleType("slime.utils.types")
    kinds.Sample = Sample
    monkeypatch.setitem(sys.modules, "slime.utils", types.ModuleType("slime.utils"))
    monkeypatch.setitem(sys.modules, "slime.utils.misc", misc)
    monkeypatch.setitem(sys.modules, "slime.utils.types", kinds)
    for name, functions in {
        "deepscaler": ["get_deepscaler_rule_based_reward"],
        "f1": ["f1_score"],
        "gpqa": ["compute_gpqa_reward"],
        "math_dapo_utils": ["compute_score"],
        "math_utils": ["extract_answer", "grade_answer_verl"],
    }.items():
        neighbour = types.ModuleType(f"slime.rollout.rm_hub.{name}")
        for function in functions:
            setattr(neighbour, function, None)
        monkeypatch.setitem(sys.modules, neighbour.__name__, neighbour)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("slime", "slime.rollout", "slime.rollout.rm_hub"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("slime.rollout.rm_hub")


def samples(rows):
    return [Sample(row.completion + "<|im_end|>", json.dumps(row.label())) for row in rows]


def arguments(**given):
    unset = dict.fromkeys(("custom_rm_path", "rm_type", "rm_url", "reward_key", "eval_reward_key"))
    return SimpleNamespace(**unset | given)


async def gathered(module, function, args, given):
    """The answers to all samples at one time; slime keeps its connections open until the process ends."""
    found = await asyncio.gather(*(function(args, sample) for sample in given))
    if module._shared_session is not None:
        await module._shared_session.close()
    return found


def test_over_http(rm_hub, rows, wanted, server):
    args = arguments(rm_type="remote_rm", rm_url=f"{server.url}/slime?unscored=lowest")
    assert asyncio.run(gathered(rm_hub, rm_hub.async_rm, args, samples(rows))) == wanted


@pytest.mark.parametrize("where", ["here", "server"])
def test_our_function(rm_hub, rows, wanted, server, where, tmp_path, monkeypatch):
    settings = tmp_path / "scorer.yaml"
    settings.write_text(f"url: {server.url}\n" if where == "server" else "encoder: shapes\nthreads: 1\n")
    monkeypatch.setenv("DPAD_FAST_SCORER", str(settings))
    monkeypatch.delitem(sys.modules, "dpad_fast.integrations.slime", raising=False)
    args = arguments(custom_rm_path="dpad_fast.integrations.slime.custom_rm")
    given = samples(rows)
    assert asyncio.run(gathered(rm_hub, rm_hub.async_rm, args, given)) == wanted
    assert [sample.remove_sample for sample in given] == [not row.scored for row in rows]
    assert asyncio.run(rm_hub.batched_async_rm(args, samples(rows))) == wanted


def test_a_stand_in_of_its_call(rows, wanted, server):
    """What its HTTP function does, without its tries: a shared session, and JSON of three fields."""

    async def remote_rm(session, sample):
        payload = {"prompt": sample.prompt, "response": sample.response, "label": sample.label}
        async with session.post(f"{server.url}/slime?unscored=lowest", json=payload) as answer:
            answer.raise_for_status()
            return await answer.json()

    async def everything():
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:
            return await asyncio.gather(*(remote_rm(session, sample) for sample in samples(rows)))

    assert asyncio.run(everything()) == wanted
