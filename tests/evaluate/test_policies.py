"""How a run's policies are measured: by which segmenter, loaded once, and under which mark the records are kept."""

import numpy as np

from dpad_fast import experiment
from dpad_fast.evaluate import policies
from dpad_fast.evaluate.policies import judge, judge_config, segmenter_name
from dpad_fast.rewards import RewardScorer
from dpad_fast.train.config import from_dict

MASKED = {
    "preset": "seg-zero",
    "terms": ["think_format", "answer_format", "mask_iou"],
    "segmenter": "test_policies:all_of",
}


def all_of(answers, images, sizes):
    return [np.ones(size[::-1], bool) for size in sizes]


def run(**changes):
    return from_dict({"evaluation": {"data": {"path": "x.jsonl"}}, **changes})


def name_of(config):
    return segmenter_name(config, judge_config(config))


def test_masks_are_made_by_the_segmenter_of_the_rewards():
    assert name_of(run()) == "box"
    assert name_of(run(rewards={"preset": "dpad", "geometry": "mask"})) == "polygon"
    assert name_of(run(rewards=MASKED)) == "test_policies:all_of"
    own = {"data": {"path": "x.jsonl"}, "segmenter": "polygon"}
    assert name_of(run(rewards=MASKED, evaluation=own)) == "polygon"
    assert name_of(from_dict({})) == "background"  # scenes of the shapes world


def test_a_model_is_loaded_once(monkeypatch):
    monkeypatch.syspath_prepend(str(__file__).rpartition("/")[0])
    config = run(rewards=MASKED)
    scorer = judge(None, config)
    assert policies._segmenter(config, scorer, "cpu") is scorer.segmenter
    other = RewardScorer(judge_config(run(rewards={"preset": "seg-zero"})))
    assert policies._segmenter(config, other, "cpu") is not None


def test_records_that_were_measured_by_the_box_are_measured_again():
    mark = experiment.before_mark(run(rewards=MASKED))
    assert "'test_policies:all_of')" in mark
    plain = run(rewards={"preset": "seg-zero"})
    assert experiment.before_mark(plain).count("seg-zero") == 1
