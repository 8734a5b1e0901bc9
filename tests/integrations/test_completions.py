"""A completion that is no text leaves its own row unscored, in every adapter."""

import asyncio
from types import SimpleNamespace

import pytest

import dpad_fast as df
from dpad_fast.integrations import areal, easyr1, openrlhf, slime, verl
from dpad_fast.testing import rewards as shared

NO_TEXTS = (None, shared.completion().encode(), 5, [], {"content": shared.completion()}, float("nan"))
PROMPT = "Where is the red cat in this picture?"
ROW = {"solution": shared.SOLUTION, "image_size": list(shared.SIZE)}


@pytest.fixture(scope="module")
def scorer():
    """It looks at no picture, so that AReaL takes it too."""
    return df.RewardScorer(df.RewardConfig.preset("dpad", terms=("iou", "box_l1"), gate=False))


def of_easyr1(scorer, texts):
    given = [{"response": text, "response_length": 1, "ground_truth": ROW} for text in texts]
    found = easyr1.compute_score(given, scorer=scorer)
    return [None if row["unscored"] else row["overall"] for row in found]


def of_openrlhf(scorer, texts):
    queries = [PROMPT + text if isinstance(text, str) else text for text in texts]
    found = openrlhf.reward_function(scorer=scorer)(queries, [PROMPT] * len(texts), [ROW] * len(texts))
    logs = found["extra_logs"]["dpad/unscored"].tolist()
    return [None if left_out else reward for left_out, reward in zip(logs, found["rewards"].tolist(), strict=True)]


def of_slime(scorer, texts):
    samples = [SimpleNamespace(response=t, label=ROW, multimodal_inputs=None, remove_sample=False) for t in texts]
    found = asyncio.run(slime.reward_function(scorer=scorer)(SimpleNamespace(), samples))
    return [None if one.remove_sample else reward for one, reward in zip(samples, found, strict=True)]


def of_areal(scorer, texts):
    function = areal.reward_function(scorer=scorer)
    found = [function("?", text, [1], [2], **ROW) for text in texts]
    assert function._recipe.made().unscored == len(NO_TEXTS)
    return [None if not isinstance(text, str) else reward for text, reward in zip(texts, found, strict=True)]


def of_verl(scorer, texts):
    rows = verl.VerlRows(
        {"config": {"preset": "dpad", "terms": ["iou", "box_l1"], "gate": False}, "model_sizes": "picture"}
    )

    async def step():
        return await asyncio.gather(*(rows.score(text, ROW, {"images": None}) for text in texts))

    return [None if log["unscored"] else reward for reward, log in asyncio.run(step())]


@pytest.mark.parametrize("adapter", [of_easyr1, of_openrlhf, of_slime, of_areal, of_verl])
def test_what_is_no_text_is_left_unscored_and_harms_no_other(scorer, adapter):
    texts = [shared.completion(), *NO_TEXTS, "no idea"]
    good = scorer.score([texts[0], texts[-1]], [df.Target.parse(shared.SOLUTION, shared.SIZE)] * 2).total.tolist()
    assert adapter(scorer, texts) == [good[0], *[None] * len(NO_TEXTS), good[1]]
