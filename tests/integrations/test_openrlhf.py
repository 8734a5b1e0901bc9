"""The reward file of OpenRLHF, called as its executor calls one; with_openrlhf/ has the real executor."""

import importlib.util
import json
import logging
import threading
from pathlib import Path

import pytest
import torch

import dpad_fast as df
from dpad_fast.integrations import openrlhf
from dpad_fast.integrations.openrlhf import reward_function
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.faulty_rows import expected_totals, faulty_rows

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMPT = (
    "<|im_start|>system\nAnswer as <think>t</think> <answer>{}</answer> <caption>c</caption><|im_end|>\n"
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Where is it?<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def scorer():
    return df.ScorerSpec(df.RewardConfig.preset("dpad"), encoder="shapes", threads=1).build()


def query(completion):
    """What OpenRLHF decodes: the prompt with as many placeholders as the picture has patches, and the end of turn."""
    return PROMPT.replace("<|image_pad|>", "<|image_pad|>" * 9) + completion + "<|im_end|>"


@pytest.mark.parametrize("as_text", [False, True])
def test_rewards_one_at_a_time(scorer, tmp_path, caplog, as_text):
    rows = faulty_rows(tmp_path)
    function, found = reward_function(scorer=scorer), {}

    def ask(i):
        label = rows[i].label()
        found[i] = function([query(rows[i].completion)], [PROMPT], [json.dumps(label) if as_text else label])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(rows))]
    with caplog.at_level(logging.WARNING):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    wanted = expected_totals(scorer, rows)
    weights = sum(scorer.config.weight(name) for name in scorer.config.terms)
    for i, total in enumerate(wanted):
        assert torch.equal(found[i]["rewards"], torch.tensor([total or 0.0]))
        assert torch.equal(found[i]["scores"], torch.tensor([total or 0.0]) / weights)
        assert found[i]["extra_logs"]["dpad/unscored"].tolist() == [float(total is None)]
    assert {tuple(reply["extra_logs"]) for reply in found.values()} == {
        tuple(f"dpad/{name}" for name in (*scorer.config.terms, "s1_over_s2", "malformed", "unscored"))
    }
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 4
    assert sum(" 4 of " in text for text in told) == 1  # of up to 7: how many came before it is the threads' affair


def test_a_query_without_its_prompt_is_left_unscored(scorer, tmp_path):
    row = faulty_rows(tmp_path)[0]
    reply = reward_function(scorer=scorer)(["something else", query(row.completion)], [PROMPT] * 2, [row.label()] * 2)
    assert reply["rewards"].tolist() == [0.0, expected_totals(scorer, [row])[0]]
    assert reply["extra_logs"]["dpad/unscored"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize("file", [openrlhf.__file__, str(EXAMPLES / "openrlhf" / "reward.py")])
def test_reward_files(scorer, tmp_path, monkeypatch, file):
    monkeypatch.setenv("DPAD_FAST_SCORER", str(EXAMPLES / "scorer.yaml"))
    spec = importlib.util.spec_from_file_location("reward_func", file)  # as OpenRLHF loads it
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    row = faulty_rows(tmp_path)[0]
    reply = module.reward_func([query(row.completion)], [PROMPT], [row.label(model_size=list(shared.SIZE))])
    assert reply["rewards"].tolist() == expected_totals(scorer, [row])
