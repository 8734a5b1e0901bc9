"""No message quotes a user's value at length: a payload of 88 kB in its place leaves a message one can read."""

import json

import pytest
import torch

import dpad_fast as df
from dpad_fast.cli import main
from dpad_fast.data import reasonseg
from dpad_fast.ops import discriminative_reward, group_advantage, roi_clip_preprocess
from dpad_fast.train.config import from_dict
from dpad_fast.train.reward_functions import completion_texts, parse_solution

LONG = "data:image/png;base64," + "A" * 88_000
UNIT = torch.nn.functional.normalize(torch.ones(2, 4), dim=-1)

CALLS = {
    "completion as a dictionary": lambda: completion_texts([{"content": LONG}]),
    "preset": lambda: df.RewardConfig.preset(LONG),
    "answer": lambda: df.RewardConfig(answer=LONG),
    "terms": lambda: df.RewardConfig(terms=(LONG,)),
    "the same term often": lambda: df.RewardConfig(terms=("iou",) * 20_000),
    "tags": lambda: df.RewardConfig(tags=("tag",) * 20_000),
    "weights": lambda: df.RewardConfig(weights=[LONG]),
    "weight": lambda: df.RewardConfig(weights={LONG: 1.0}),
    "model_size": lambda: df.RewardConfig(model_size=LONG),
    "max_objects": lambda: df.RewardConfig(max_objects=LONG),
    "backend": lambda: df.load_encoder("x", backend=LONG),
    "precision": lambda: df.load_encoder("x", precision=LONG),
    "scale": lambda: group_advantage(torch.ones(4), 2, scale=LONG),
    "shape": lambda: discriminative_reward(UNIT, UNIT, UNIT, torch.arange(2), shape=LONG),
    "resize": lambda: roi_clip_preprocess([torch.zeros(4, 4, 3, dtype=torch.uint8)], None, resize=LONG),
    "box": lambda: roi_clip_preprocess([torch.zeros(4, 4, 3, dtype=torch.uint8)], [[1] * 30_000]),
    "mean": lambda: roi_clip_preprocess([torch.zeros(4, 4, 3, dtype=torch.uint8)], None, mean=[1.0] * 30_000),
    "column": lambda: parse_solution({"solution": "x"}, column=LONG),
    "solution": lambda: df.Target.parse(LONG),
    "setting": lambda: from_dict({LONG: 1}),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_long_value_is_cut(name):
    with pytest.raises(ValueError, match=r"\w") as caught:
        CALLS[name]()
    assert len(str(caught.value)) < 600


def test_a_long_text_of_a_folder_is_cut(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"text": [LONG, 1], "shapes": []}))
    with pytest.raises(ValueError, match=r"a\.json: text must be a list of strings") as caught:
        list(reasonseg.load(tmp_path))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("option", [["--set", LONG], ["--set", f"{LONG}=[1"], ["--set", f"answer={LONG}"]])
def test_the_command_line_cuts_it(tmp_path, option, capsys):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"completion": "x", "target": "<box>(1,2),(3,4)</box>"}))
    assert main(["score", str(tmp_path / "rows.jsonl"), "--data", str(tmp_path), *option]) == 2
    assert len(capsys.readouterr().err) < 600
