"""What `dpad-fast data prepare` writes, through verl's `RLHFDataset` and its collation."""

import numpy as np
import pytest

pytest.importorskip("verl")

import dpad_fast as df
from dpad_fast.data import shapes
from dpad_fast.testing.verl import SIZE


def test_prepared_rows_through_verl_s_data_set(dataset, processor):
    from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

    assert isinstance(dataset, RLHFDataset)
    assert len(dataset) == 6  # none was filtered as too long, or for an error
    row = dataset[4]
    picture, text = row["raw_prompt"][0]["content"]
    scene = shapes.sample(3, 4)
    assert picture["image"].size == SIZE
    assert scene.query.lower().strip(".") in text["text"]
    assert "<caption>" in text["text"]
    assert row["reward_model"]["ground_truth"] == row["solution"]
    assert row["data_source"] == "dpad"
    assert row["extra_info"] == {"index": 4, "id": scene.id}
    columns = collate_fn([dataset[i] for i in range(6)])
    assert {"raw_prompt", "reward_model", "solution", "mask"} <= columns.keys()
    assert "image" not in columns
    shown = processor.apply_chat_template(row["raw_prompt"], add_generation_prompt=True, tokenize=False)
    assert shown.count("<|image_pad|>") == 1
    truth = df.Target.from_row({k: v for k, v in row.items() if k != "raw_prompt"})
    factor = np.array([SIZE[0] / 112, SIZE[1] / 112] * 2)
    assert np.abs(np.array(truth.box) - np.array(scene.target.box) * factor).max() <= 0.5
    assert truth.image_size == SIZE


def test_a_file_that_was_not_prepared_is_refused_by_name(configured, tokenizer, processor, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dpad_fast.integrations.verl import DpadDataset

    pq.write_table(pa.table({"id": ["a"], "problem": ["b"]}), tmp_path / "a.parquet")
    config = configured(f"data.train_files={tmp_path}/a.parquet").data
    with pytest.raises(ValueError, match=r"a\.parquet has no column 'solution'; it has id, problem"):
        DpadDataset(config.train_files, tokenizer=tokenizer, config=config, processor=processor)
    config = configured("+data.dpad.promt=x").data
    with pytest.raises(ValueError, match=r"unknown setting data\.dpad\.promt; known: prompt"):
        DpadDataset(config.train_files, tokenizer=tokenizer, config=config, processor=processor)


def test_verl_s_own_form_of_data_keeps_its_pictures(configured, tokenizer, processor, tmp_path):
    """`RLHFDataset` itself, over prompts with <image> and a column of {bytes, path}."""
    from datasets import Dataset, Features, Image, Value
    from verl.utils.dataset.rl_dataset import RLHFDataset

    scene = shapes.sample(3, 1)
    row = {
        "prompt": [{"role": "user", "content": "<image>find it"}],
        "images": [scene.image],
        "data_source": "mine",
        "reward_model": {"style": "rule", "ground_truth": scene.target.text},
    }
    features = {
        "prompt": [{"role": Value("string"), "content": Value("string")}],
        "images": [Image()],
        "data_source": Value("string"),
        "reward_model": {"style": Value("string"), "ground_truth": Value("string")},
    }
    Dataset.from_list([row], features=Features(features)).to_parquet(str(tmp_path / "a.parquet"))
    config = configured("data.custom_cls.path=null").data
    made = RLHFDataset(str(tmp_path / "a.parquet"), tokenizer=tokenizer, config=config, processor=processor)[0]
    (image,) = df.images_from(made, "raw_prompt")
    assert np.array_equal(np.asarray(image), np.asarray(scene.image))
    made.pop("raw_prompt")
    assert df.Target.from_row(made).box == scene.target.box
