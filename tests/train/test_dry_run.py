"""The dry run of every configuration, and what it finds wrong before a run does."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dpad_fast.data import reasonseg, shapes
from dpad_fast.train import config as configuration
from dpad_fast.train.dry_run import ROWS, dry_run, rows_of
from dpad_fast.train.plan import plan, text_of

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(path for path in FOLDER.glob("*.yaml") if path.stem != "fsdp")  # which is one of accelerate's
CONFIGS += sorted(FOLDER.glob("ablations/qwen*.yaml"))  # those of the small world are run in tests/demo
STAGES = [
    "data",
    "policy",
    "encoder",
    "prompt",
    "picture",
    "generation",
    "reward",
    "advantage",
    "update",
    "right answer",
]


def facts(found, name):
    return next(stage["facts"] for stage in found["stages"] if stage["name"] == name)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(FOLDER).with_suffix("").as_posix())
def test_every_configuration_passes(path):
    """The real data of most is not here, so its pictures are made up; all else is the configuration's."""
    config = configuration.load(path)
    here = config.data.kind == "shapes"
    found = dry_run(config, made_up=None if here else (280, 168))
    assert [stage["name"] for stage in found["stages"]] == STAGES
    assert sum(stage["seconds"] for stage in found["stages"]) < 60
    update, right = facts(found, "update"), facts(found, "right answer")
    assert update["tensors_moved"] > 0
    assert right["answer_format"] == (2 if config.reward_config().answer == "objects" else 1)
    assert len(found["prompts"]) == ROWS
    planned = plan(config, found["prompts"])
    assert planned["parameters"]["trained"] > 0
    assert text_of(planned).count("\n") > 8


def shape_run(**settings):
    return configuration.from_dict({"policy": "policy-e", "evaluation": {"scenes": 0}, **settings})


def test_stages_say_what_went_through():
    told = []
    found = dry_run(shape_run(rewards={"preset": "dpad"}), told.append)
    assert [stage.name for stage in told] == STAGES
    first = shapes.sample(1, 0)
    assert facts(found, "data")["first"] == first.query
    assert facts(found, "data")["pictures"] == "112x112"
    assert facts(found, "picture")["seen"] == "112x112"
    assert facts(found, "picture")["pixel_values"] == [64, 588]
    assert facts(found, "encoder")["used"] == "clip"
    assert len(facts(found, "reward")["totals"]) == 4
    x1, y1, x2, y2 = first.target.box
    assert f'"bbox": [{x1:g}, {y1:g}, {x2:g}, {y2:g}]' in facts(found, "right answer")["first"]
    assert found["prompts"][0].picture == 16
    assert "tokenizer of policy-e" in found["prompts"][0].text_by
    assert told[0].line().startswith("data ")


@pytest.mark.parametrize("space", ["pixel", "norm1000", "norm1"])
@pytest.mark.parametrize("policy", ["Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-4B-Instruct"])
def test_a_right_answer_is_in_the_models_own_space(space, policy):
    """400 x 300 made up, a rectangle from (100, 75) to (300, 225); Qwen2.5-VL sees 392 x 308, Qwen3-VL 384 x 288."""
    settings = {"preset": "seg-zero", "coordinates": space}
    config = shape_run(policy=policy, rewards=settings)
    found = dry_run(replace(config, check_coordinates=False), made_up=(400, 300))
    boxes = {
        ("pixel", "Qwen/Qwen2.5-VL-3B-Instruct"): "[98, 77, 294, 231]",
        ("pixel", "Qwen/Qwen3-VL-4B-Instruct"): "[96, 72, 288, 216]",
        ("norm1000", policy): "[250, 250, 750, 750]",
        ("norm1", policy): "[0.25, 0.25, 0.75, 0.75]",
    }
    assert f'"bbox": {boxes[space, policy]}' in facts(found, "right answer")["first"]


def test_truth_in_other_pixels_than_the_pictures_is_found(tmp_path):
    """Boxes of 0-1000 in a column that says pixels lie outside a small picture."""
    from datasets import Dataset
    from PIL import Image

    picture = Image.new("RGB", (120, 90))
    solution = "<box>(250,250),(750,750)</box><points>(400,400),(500,500)</points>"
    Dataset.from_list([{"problem": "it", "solution": solution, "image": picture}] * 4).save_to_disk(tmp_path / "data")
    config = shape_run(policy="Qwen/Qwen2.5-VL-3B-Instruct", data={"kind": "dataset", "path": str(tmp_path / "data")})
    with pytest.raises(ValueError, match=r"picture|lie"):
        dry_run(config)


def test_a_hub_name_without_a_network_is_told_at_once():
    config = shape_run(data={"kind": "dataset", "path": "someone/somewhere"})
    with pytest.raises(
        ValueError, match=r"data.path 'someone/somewhere': .* HF_HUB_OFFLINE .*--made-up-data"
    ) as refused:
        dry_run(config)
    assert "\n" not in str(refused.value)


def test_a_learning_rate_of_zero_moves_nothing():
    with pytest.raises(ValueError, match=r"the update changed no weight: see grpo.learning_rate"):
        dry_run(shape_run(grpo={"learning_rate": 0.0}))


@pytest.mark.parametrize("preset", ["seg-zero", "vision-reasoner", "dpad-released"])
def test_made_up_rows_are_of_the_presets_form(preset):
    found = dry_run(shape_run(rewards={"preset": preset}), made_up=(112, 112))
    assert facts(found, "right answer")["think_format"] == 1


def test_real_rows_of_a_folder(tmp_path):
    """ReasonSeg's form, where the run's prompts can read it."""
    folder = shapes.export_reasonseg(tmp_path / "data", seed=3, count=4)
    config = shape_run(data={"kind": "reasonseg", "path": str(folder)})
    found = dry_run(config)
    queries = {sample.query for sample in reasonseg.load(folder)}
    assert facts(found, "data")["first"] in queries


@pytest.mark.parametrize("settings", [{"steps": 3}, {"epochs": 1.0}])
def test_data_that_fills_no_step_is_told(settings, tmp_path):
    folder = shapes.export_reasonseg(tmp_path / "data", seed=3, count=4)
    config = shape_run(data={"kind": "reasonseg", "path": str(folder)}, grpo={"queries": 8}, **settings)
    with pytest.raises(ValueError, match=r"data.path has 4 prompts, fewer than grpo.queries 8"):
        rows_of(config)


def test_a_picture_that_the_family_cannot_read_is_named(tmp_path):
    Image.new("RGB", (900, 1)).save(tmp_path / "thin.png")
    row = {"id": "thin", "query": "it", "image": "thin.png", "box": [0, 0, 9, 1], "points": [[1, 0], [5, 0]]}
    (tmp_path / "x.jsonl").write_text((json.dumps(row) + "\n") * 3)
    config = shape_run(policy="Qwen/Qwen2.5-VL-3B-Instruct", data={"kind": "rows", "path": str(tmp_path / "x.jsonl")})
    with pytest.raises(ValueError, match=r"data: the picture of thin, 900x1: absolute aspect ratio"):
        dry_run(config)
