"""The prompts of a run: scenes in the order of the seed, and the columns of a data set."""

import pytest

pytest.importorskip("datasets")

from dpad_fast.data import shapes
from dpad_fast.train.config import SCENES_PER_SEED, from_dict
from dpad_fast.train.prompts import make_dataset, scene_target


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
