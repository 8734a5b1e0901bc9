"""The control of setting J: what it pays for, and that a configuration reaches it."""

from pathlib import Path

import pytest

from dpad_fast.data import shapes
from dpad_fast.data.shapes_text import answer_of
from dpad_fast.demo.controls import names_any_object
from dpad_fast.rewards import RewardConfig, RewardScorer
from dpad_fast.train.config import load
from dpad_fast.train.extra_rewards import make_extra_reward

CONFIGS = Path(__file__).parents[2] / "configs"


def test_bonus_for_any_object():
    item = shapes.sample(5, 0)
    other = next(i for i in range(len(item.scene.objects)) if i != item.question.target)
    config = RewardConfig.from_dict({"preset": "dpad", "terms": ["think_format", "answer_format", "iou"]})
    bonus = names_any_object(RewardScorer(config))
    answer = answer_of(item.scene.objects[0].box, item.scene.objects[0].points)
    texts = [
        f"<think> x</think>\n<answer>{answer}</answer>\n<caption> a {shape.name}</caption>"
        for shape in (item.scene.objects[item.question.target], item.scene.objects[other])
    ]
    texts += [texts[0].replace("<think>", ""), texts[0].split("<caption>")[0] + "<caption> some shapes</caption>"]
    assert bonus(completions=texts, id=[item.id] * 4) == [1.0, 1.0, 0.0, 0.0]


def test_a_configuration_reaches_it_by_its_short_name():
    config = load(CONFIGS / "shapes-j-any-object.yaml")
    scorer = RewardScorer(RewardConfig.preset("seg-zero"))
    (made,) = [make_extra_reward(name, scorer) for name in config.extra_rewards]
    item = shapes.sample(5, 0)
    right = f"<think>x</think><answer>{{}}</answer><caption>a {item.scene.objects[0].name}</caption>"
    assert made.__name__ == "names_any_object"  # the name of its column in the log
    assert made(completions=[right, "?"], id=[item.id] * 2) == names_any_object(scorer)(
        completions=[right, "?"], id=[item.id] * 2
    )


@pytest.mark.parametrize(
    ("name", "mark"),
    [
        ("shapes-e", "35f618dd0016e31e"),
        ("shapes-e-geometry", "ed5954c6ec20142f"),
        ("shapes-f", "4142dbd26875b8b3"),
        ("shapes-f-geometry", "0ef45f791e6982dd"),
        ("shapes-j", "2d033d31d451c709"),
        ("shapes-j-geometry", "98c3bc9d462fae1b"),
        ("shapes-j-any-object", "a5b43aa640f1c7fc"),
    ],
)
def test_runs_of_earlier_versions_go_on(name, mark):
    """A fingerprint that changed would refuse every folder that was begun before."""
    assert load(CONFIGS / f"{name}.yaml").fingerprint() == mark
