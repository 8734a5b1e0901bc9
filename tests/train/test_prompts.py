"""The prompts of a run: scenes in the order of the seed, and the columns of a data set."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("datasets")

from dpad_fast.data import reasonseg, shapes
from dpad_fast.train.config import SCENES_PER_SEED, from_dict
from dpad_fast.train.prompts import make_dataset, scene_target, with_steps
from dpad_fast.train.targets import target_of_row


def test_scenes_follow_the_seeds():
    config = from_dict({"steps": 2, "seed": 3, "data": {"seed": 5}, "grpo": {"queries": 2, "generations": 2}})
    rows = make_dataset(config)
    assert list(rows["id"]) == [shapes.sample(5, 3 * SCENES_PER_SEED + index).id for index in range(4)]
    assert set(rows.column_names) == {"prompt", "image", "solution", "id"}
    assert scene_target(rows[1]).box == shapes.sample(5, 3 * SCENES_PER_SEED + 1).target.box


@pytest.fixture
def saved(tmp_path):
    """A `datasets` folder of three rows with names of columns of its own."""
    import datasets

    rows = [{"q": f"thing {i}?", "truth": f"<box>({i},1),(9,9)</box>", "pic": f"{i}.png"} for i in range(3)]
    split = datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)})
    split.save_to_disk(str(tmp_path / "set"))
    return {"kind": "dataset", "path": str(tmp_path / "set"), "question": "q", "solution": "truth", "image": "pic"}


def test_the_columns_of_a_data_set(saved):
    rows = make_dataset(from_dict({"data": {**saved, "limit": 2, "prompt": "Find: {question}"}}))
    assert rows.to_list() == [
        {
            "prompt": [{"role": "user", "content": f"Find: thing {i}?"}],
            "image": f"{i}.png",
            "solution": f"<box>({i},1),(9,9)</box>",
            "id": str(i),
        }
        for i in range(2)
    ]


def test_a_missing_column_or_split_is_named_with_those_that_are_there(saved):
    with pytest.raises(ValueError, match="has no column 'answer'; it has q, truth, pic"):
        make_dataset(from_dict({"data": {**saved, "solution": "answer"}}))
    with pytest.raises(ValueError, match=r"data\.split is 'test'; .* has train"):
        make_dataset(from_dict({"data": {**saved, "split": "test"}}))


MINI = Path(__file__).parents[3] / "shared" / "data" / "reasonseg-mini"


@pytest.fixture
def mini(tmp_path):
    """A copy of the mini data set, which a test may damage."""
    if not MINI.is_dir():
        pytest.skip("no shared/data/reasonseg-mini here")
    return Path(shutil.copytree(MINI, tmp_path / "mini"))


def form(path, **more):
    return from_dict({"grpo": {"queries": 2}, "data": {"kind": "reasonseg", "path": str(path), **more}})


def test_samples_of_a_form_travel_whole(mini):
    rows = make_dataset(form(mini, prompt="Find {question}", limit=4))
    wanted = list(itertools.islice(reasonseg.load(mini), 4))
    assert list(rows["id"]) == [sample.id for sample in wanted]
    for row, sample in zip(rows, wanted, strict=True):
        assert row["prompt"] == [{"role": "user", "content": f"Find {sample.query}"}]
        target = target_of_row(row)
        assert row["image"].size == target.image_size
        assert (target.box, target.points) == (sample.target.box, sample.target.points)
        assert np.array_equal(target.mask, sample.target.mask)
        assert (target.ignore is None) == (sample.target.ignore is None)
    assert any(sample.target.ignore is not None for sample in wanted)


def test_a_bad_row_stops_the_run_or_is_left_out_with_a_warning(mini):
    name = sorted(mini.glob("*.json"))[1].name
    (mini / name).write_text("{")
    with pytest.raises(ValueError, match=rf"^data: .*{name}"):
        make_dataset(form(mini))
    with pytest.warns(RuntimeWarning, match=rf"left out of the training data: .*{name}"):
        rows = make_dataset(form(mini, bad_rows="skip"))
    assert len(rows) == 5


def test_a_target_without_what_the_rewards_need_is_named_before_the_first_step(mini):
    config = from_dict({"data": {"kind": "reasonseg", "path": str(mini)}, "rewards": {"preset": "vision-reasoner"}})
    with pytest.raises(
        ValueError, match=r"^data: \S+: 2011_\w+: its target has no objects, which rewards need; give them or a mask"
    ):
        make_dataset(config)


def test_epochs_and_data_that_fill_no_step(mini):
    rows = make_dataset(form(mini))
    for epochs, steps in ((1.0, 3), (2.0, 6), (0.1, 1)):
        config = from_dict({"epochs": epochs, "grpo": {"queries": 2}, "data": {"kind": "reasonseg", "path": str(mini)}})
        assert with_steps(config, rows).steps == steps
        assert with_steps(config, rows).fingerprint() == config.fingerprint()
    with pytest.raises(ValueError, match=r"data\.path has 6 prompts, fewer than grpo\.queries 8"):
        with_steps(from_dict({}), rows)
