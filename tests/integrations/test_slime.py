"""The reward function of slime, with a stand-in of its sample; with_slime/ loads slime's own module."""

import asyncio
import importlib
import json
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

import dpad_fast as df
from dpad_fast.integrations.slime import reward_function
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.faulty_rows import expected_totals, faulty_rows

EXAMPLES = Path(__file__).parents[2] / "examples"
ARGS = SimpleNamespace(reward_key=None, eval_reward_key=None)


@dataclass
class Sample:
    """A stand-in of `slime.utils.types.Sample`: the fields that a reward function reads and sets."""

    response: str
    label: object
    prompt: str = "where?"
    multimodal_inputs: dict | None = None
    metadata: dict = field(default_factory=dict)
    remove_sample: bool = False


@pytest.fixture(scope="module")
def scorer():
    return df.ScorerSpec(df.RewardConfig.preset("dpad"), encoder="shapes", threads=1).build()


@pytest.mark.parametrize("as_text", [False, True])
def test_samples_alone_and_as_a_group(scorer, tmp_path, caplog, as_text):
    rows = faulty_rows(tmp_path)
    wanted = expected_totals(scorer, rows)

    def samples():
        labels = [json.dumps(row.label()) if as_text else row.label() for row in rows]
        return [Sample(row.completion + "<|im_end|>", label) for row, label in zip(rows, labels, strict=True)]

    async def alone(function, given):
        return await asyncio.gather(*(function(ARGS, sample) for sample in given))

    for of in (alone, lambda function, given: function(ARGS, given)):
        given, function = samples(), reward_function(scorer=scorer)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert asyncio.run(of(function, given)) == [total or 0.0 for total in wanted]
        assert [sample.remove_sample for sample in given] == [total is None for total in wanted]
        assert ", 4 of " in caplog.records[-1].getMessage()  # alone, a good one may come after it


def test_a_reward_key_asks_for_a_dictionary(scorer, tmp_path):
    row = faulty_rows(tmp_path)[0]
    args = SimpleNamespace(reward_key="score", eval_reward_key="score")
    function = reward_function(scorer=scorer)
    found = asyncio.run(function(args, Sample(row.completion, row.label())))
    assert found["score"] == expected_totals(scorer, [row])[0]
    assert set(found) == {"score", *scorer.config.terms, "s1_over_s2", "malformed", "unscored"}
    assert asyncio.run(function(args, [Sample(row.completion, row.label())])) == [found]


def test_the_samples_own_picture_is_the_one_that_the_model_saw(scorer, caplog):
    small = shared.picture(1, (48, 36))  # slime has resized it; the truth is about 96x72
    text = shared.completion((10, 6, 32, 26), (15, 12), (25, 20))
    sample = Sample(text, {"solution": shared.SOLUTION, "image_size": [96, 72]}, multimodal_inputs={"images": [small]})
    found = asyncio.run(reward_function(scorer=scorer)(ARGS, sample))
    target = df.Target.parse(shared.SOLUTION, (96, 72))
    assert found == scorer.score([text], [target], [small], model_sizes=[(48, 36)]).total.item()
    assert found > 3
    assert not caplog.records
    sample.label = shared.SOLUTION
    with caplog.at_level(logging.WARNING):
        asyncio.run(reward_function(scorer=scorer)(ARGS, sample))
    assert "no image_size, so it is read in pixels of the resized picture, (48, 36)" in caplog.records[0].getMessage()


def test_a_processor_resizes_what_slime_has_resized(scorer, tmp_path):
    """slime hands over what qwen-vl-utils made of the picture; the policy's processor may have smaller limits."""
    qwen = {"patch_size": 14, "merge_size": 2, "min_pixels": 56 * 56, "max_pixels": 60 * 60}
    shown, seen = shared.picture(1, (112, 84)), (56, 28)
    assert df.model_size_for(shown.size, qwen) == seen
    shared.picture(1).save(tmp_path / "a.png")
    box = [side * seen[i % 2] / shared.SIZE[i % 2] for i, side in enumerate((20, 12, 64, 52))]
    text = shared.completion(box)
    function = reward_function(scorer=scorer, processor=qwen, image_root=str(tmp_path))
    target = df.Target.parse(shared.SOLUTION, shared.SIZE)
    for picture, label in ((shown, {"image_size": list(shared.SIZE)}), (str(tmp_path / "a.png"), {"image": "a.png"})):
        sample = Sample(text, {"solution": shared.SOLUTION, **label}, multimodal_inputs={"images": [shown]})
        wanted = scorer.score([text], [target], [picture], model_sizes=[seen]).total.item()
        assert asyncio.run(function(ARGS, sample)) == wanted
        assert wanted != scorer.score([text], [target], [picture], model_sizes=[shown.size]).total.item()


def test_a_key_for_evaluation_alone_would_break_training(scorer):
    args = SimpleNamespace(reward_key=None, eval_reward_key="score")
    with pytest.raises(ValueError, match="--eval-reward-key is 'score' without --reward-key"):
        asyncio.run(reward_function(scorer=scorer)(args, Sample(shared.completion(), shared.SOLUTION)))


def test_a_label_may_name_the_original(scorer, tmp_path):
    shared.picture(1).save(tmp_path / "a.png")
    small = shared.picture(1, (48, 36))
    text = shared.completion((10, 6, 32, 26), (15, 12), (25, 20))
    label = {"solution": shared.SOLUTION, "image": "a.png"}
    sample = Sample(text, label, multimodal_inputs={"images": [small]})
    function = reward_function(scorer=scorer, image_root=str(tmp_path))
    wanted = scorer.score([text], [shared.SOLUTION], [str(tmp_path / "a.png")], model_sizes=[(48, 36)])
    assert asyncio.run(function(ARGS, sample)) == wanted.total.item() > 3


def test_the_example(scorer, tmp_path, monkeypatch):
    monkeypatch.setenv("DPAD_FAST_SCORER", str(EXAMPLES / "scorer.yaml"))
    monkeypatch.syspath_prepend(str(EXAMPLES / "slime"))
    monkeypatch.delitem(sys.modules, "dpad_rewards", raising=False)
    function = importlib.import_module("dpad_rewards").custom_rm
    row = faulty_rows(tmp_path)[0]
    assert asyncio.run(function(ARGS, Sample(row.completion, row.label()))) == expected_totals(scorer, [row])[0]
