"""The executor of the installed OpenRLHF asks for rewards: of the reward file, and over HTTP of our server."""

import asyncio
import json
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("openrlhf")

from openrlhf.utils.agent import SingleTurnAgentExecutor

import dpad_fast as df
from dpad_fast.integrations import openrlhf as adapter
from dpad_fast.testing.faulty_rows import expected_totals, faulty_rows
from dpad_fast.testing.serving import Running

PROMPT = (
    "<|im_start|>system\nAnswer as <think>t</think> <answer>{}</answer> <caption>c</caption><|im_end|>\n"
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Where is it?<|im_end|>\n<|im_start|>assistant\n"
)


class Tokenizer:
    """A stand-in: a token is a character's code."""

    def __call__(self, text, add_special_tokens, return_tensors):
        return {"input_ids": torch.tensor([list(map(ord, text))])}

    def decode(self, ids, skip_special_tokens):
        return "".join(map(chr, ids))


class Engine:
    """A stand-in of vLLM, whose answer is known."""

    def __init__(self, completion):
        self.completion = completion

    async def generate(self, ids, params, multi_modal_data=None):
        tokens = list(map(ord, self.completion + "<|im_end|>"))
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens, finish_reason="stop", logprobs=None)])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def rows(root):
    return faulty_rows(root)


@pytest.fixture(scope="module")
def wanted(rows):
    scorer = df.ScorerSpec(df.RewardConfig.preset("dpad"), encoder="shapes", threads=1).build()
    return expected_totals(scorer, rows)


@pytest.fixture(scope="module")
def server(root):
    running = Running("--root", root, "--token-file", _token(root))
    yield running
    assert running.stop() == 0


def _token(root):
    file = root.parent / "token"
    file.write_text("a-token-of-tests")
    return file


def executed(executor, rows):
    """What the executor hands on for each row, all asked at one time."""

    async def one(row):
        params = SimpleNamespace(max_tokens=4096, logprobs=None)
        label = json.dumps(row.label())
        return await executor.execute(PROMPT, label, params, 1 << 16, Tokenizer(), Engine(row.completion))

    async def everything():
        return await asyncio.gather(*map(one, rows))

    return asyncio.run(everything())


def check(outputs, wanted):
    for output, total in zip(outputs, wanted, strict=True):
        # As the sample generator makes tensors of them.
        assert torch.tensor([output["reward"]]).flatten().tolist() == [total or 0.0]
        assert 0 <= torch.tensor([output["scores"]]).flatten()[0] <= 1
        logs = {name: torch.as_tensor(value).flatten().tolist() for name, value in output["extra_logs"].items()}
        assert logs["dpad/unscored"] == [float(total is None)]
        assert set(map(len, logs.values())) == {1}
    assert len({tuple(output["extra_logs"]) for output in outputs}) == 1


def test_the_reward_file(rows, wanted, tmp_path, monkeypatch):
    settings = tmp_path / "scorer.yaml"
    settings.write_text("encoder: shapes\nthreads: 1\n")
    monkeypatch.setenv("DPAD_FAST_SCORER", str(settings))
    check(executed(SingleTurnAgentExecutor(adapter.__file__), rows), wanted)


def test_a_reward_file_of_ones_own_and_a_server(rows, wanted, server, tmp_path):
    file = tmp_path / "reward.py"
    file.write_text(
        "from dpad_fast.integrations.openrlhf import reward_function\n\n"
        f"reward_func = reward_function(url={server.url!r}, token='a-token-of-tests')\n"
    )
    check(executed(SingleTurnAgentExecutor(str(file)), rows), wanted)


def test_over_http(rows, wanted, server):
    address = f"{server.url}/openrlhf?token=a-token-of-tests&unscored=lowest"
    check(executed(SingleTurnAgentExecutor([address, address]), rows), wanted)


def test_a_failure_is_no_reward(rows, server):
    executor = SingleTurnAgentExecutor(f"{server.url}/openrlhf?token=a-wrong-token")
    assert executed(executor, rows[:1])[0]["reward"] is None
