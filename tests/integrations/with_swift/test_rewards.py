"""The installed ms-swift asks for rewards: its own call, its own data set, and one step of its GRPO trainer."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("swift")

from swift.dataset import load_dataset
from swift.rewards import orms
from swift.rl_core.data import GRPOSample
from swift.rl_core.grpo_algorithm import compute_rewards_per_func
from swift.utils import import_external_file
from trl import chat_template_utils

import dpad_fast as df
from dpad_fast.integrations.swift import register
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.faulty_rows import expected_totals, faulty_rows
from dpad_fast.testing.serving import Running

ROOT = Path(__file__).parents[3]
PLUGIN = ROOT / "examples" / "ms-swift" / "plugin_dpad.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def rows(folder):
    return faulty_rows(folder)


@pytest.fixture(scope="module")
def scorer():
    return df.ScorerSpec(df.RewardConfig.preset("dpad"), encoder="shapes", threads=1).build()


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    for name in [name for name in orms if name.startswith("dpad")]:
        monkeypatch.delitem(orms, name)


def sample_of(row, answer):
    """A sample of the trainer, with the policy's answer behind the question."""
    row = dict(row, messages=[*row["messages"], {"role": "assistant", "content": answer}])
    return GRPOSample.from_row(row)


def asked(samples, names):
    """What ms-swift's own call makes of the rewards, float32 [N, F]."""
    functions = [orms[name](args=None) for name in names]
    return compute_rewards_per_func(samples, functions, [None] * len(names), torch.device("cpu"))


def equal(column, wanted):
    return [None if math.isnan(value) else value for value in column.tolist()] == wanted


def row_of(row, **more):
    image = [{"bytes": None, "path": row.picture}]
    question = [{"role": "user", "content": "<image>Where is it?"}]
    size = {"width": shared.SIZE[0], "height": shared.SIZE[1]}
    return {"messages": question, "images": image, "solution": row.solution, "prompt_id": row.fault, **size, **more}


@pytest.mark.parametrize("where", ["here", "server"])
def test_its_own_call(rows, scorer, where):
    wanted = expected_totals(scorer, rows)
    running = Running() if where == "server" else None
    try:
        register(terms=["iou"], **({"url": running.url} if running else {"scorer": scorer}))
        found = asked([sample_of(row_of(row), row.completion) for row in rows], ["dpad", "dpad_iou", "format"])
    finally:
        assert running is None or running.stop() == 0
    assert equal(found[:, 0], wanted)
    assert equal(found[:, 1], [1.0, 0.0, 0.0, None, None, None, None])


def test_some_rows_without_pictures(rows, scorer):
    register(scorer=scorer)
    good, without = rows[0], {key: value for key, value in row_of(rows[0]).items() if key != "images"}
    samples = [sample_of(row, good.completion) for row in (row_of(good), without, dict(without, images=[]))]
    # Beside another reward: where all are None for a row, ms-swift logs the row, pictures' bytes and all.
    found = asked(samples, ["dpad", "format"])
    assert equal(found[:, 0], [*expected_totals(scorer, rows[:1]), None, None])


def test_one_row_is_one_reward(rows, scorer):
    register(scorer=scorer)
    assert equal(
        asked([sample_of(row_of(rows[0]), rows[0].completion)], ["dpad"])[:, 0], expected_totals(scorer, rows[:1])
    )


def test_its_own_data_set(rows, folder):
    """Rows as ms-swift's preprocessors leave them: pictures undecoded, and `objects` as the ground truth."""
    config = df.RewardConfig.preset("dpad", terms=("iou",), gate=False)
    objects = {"ref": ["cat"], "bbox": [[20, 12, 64, 52]]}
    fractions = {"ref": ["cat"], "bbox": [[0.25, 0.25, 0.5, 0.75]], "bbox_type": "norm1"}
    question = {"messages": [{"role": "user", "content": "<image>Where is <ref-object>?"}], "images": [rows[0].picture]}
    file = folder / "objects.jsonl"
    file.write_text("".join(json.dumps(question | {"objects": entry}) + "\n" for entry in (objects, fractions)))
    data, _ = load_dataset(str(file), split_dataset_ratio=0.0, use_hf=True)
    assert data[0]["images"] == [{"bytes": None, "path": rows[0].picture}]
    register("dpad_place", scorer=df.RewardScorer(config))
    texts = [shared.completion(), shared.completion((24, 18, 48, 54))]
    samples = [sample_of(row, text) for row, text in zip(data, texts, strict=True)]
    assert equal(asked(samples, ["dpad_place"])[:, 0], [1.0, 1.0])


TEMPLATE = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
# ms-swift's template knows the picture's token by its number in the real tokenizer; the tiny one has another.
STEP = """
import sys
from swift.pipelines import rlhf_main
from swift.template.templates.qwen import Qwen2VLTemplate
Qwen2VLTemplate.image_token_id = int(sys.argv.pop(1))
rlhf_main(sys.argv[1:])
"""


def test_a_step_of_its_trainer(folder, tmp_path, monkeypatch):
    """One GRPO step of a tiny random Qwen2.5-VL on the CPU, with the example's plugin and a row that has no truth."""
    from dpad_fast.train.tiny_policy import tiny_policy

    # This TRL has no template of Qwen2.5-VL's; ms-swift, which builds the prompts, has its own.
    monkeypatch.setattr(chat_template_utils, "qwen2_5_vl_chat_template", TEMPLATE, raising=False)
    model, processor = tiny_policy("Qwen/Qwen2.5-VL-3B-Instruct")
    for part in (model, processor):
        part.save_pretrained(tmp_path / "policy")
    shared.picture(1, (112, 84)).save(folder / "step.png")
    row = {
        "messages": [{"role": "user", "content": "<image>Where is the red cat?"}],
        "images": [str(folder / "step.png")],
        "solution": shared.SOLUTION,
    }
    (tmp_path / "data.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"solution": "none"}) + "\n")
    settings = tmp_path / "scorer.yaml"
    settings.write_text("encoder: shapes\nthreads: 1\n")
    command = f"""--rlhf_type grpo --model {tmp_path}/policy --model_type qwen2_5_vl --template qwen2_5_vl
        --external_plugins {PLUGIN} --reward_funcs dpad dpad_iou dpad_discriminative --reward_weights 1 0 0
        --dataset {tmp_path}/data.jsonl --split_dataset_ratio 0 --tuner_type full --torch_dtype float32 --bf16 false
        --use_cpu true --max_completion_length 8 --num_generations 2 --per_device_train_batch_size 4 --max_steps 1
        --logging_steps 1 --save_strategy no --dataloader_num_workers 0 --gradient_checkpointing false
        --use_hf true --report_to none --add_version false --output_dir {tmp_path}/out"""
    variables = os.environ | {"DPAD_FAST_SCORER": str(settings), "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(model.config.image_token_id), *command.split()],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "ms-swift: 2 of 4 rows cannot be scored (bad-target 2), 2 of 4 so far" in done.stdout + done.stderr
    logged = [json.loads(line) for line in (tmp_path / "out" / "logging.jsonl").read_text().splitlines()]
    assert logged[0]["rewards/dpad/mean"] == 0.0  # noise has no tags; what cannot be scored is left out of the mean
    assert {"rewards/dpad_iou/mean", "rewards/dpad_discriminative/mean", "reward"} <= set(logged[0])
    assert math.isfinite(logged[0]["loss"])


def test_the_example_is_a_plugin(tmp_path, monkeypatch, rows, scorer):
    settings = tmp_path / "scorer.yaml"
    settings.write_text("encoder: shapes\nthreads: 1\n")
    monkeypatch.setenv("DPAD_FAST_SCORER", str(settings))
    monkeypatch.delitem(sys.modules, PLUGIN.stem, raising=False)
    import_external_file(str(PLUGIN))
    found = asked([sample_of(row_of(row), row.completion) for row in rows[:3]], ["dpad", "dpad_iou"])
    assert equal(found[:, 0], expected_totals(scorer, rows[:3]))
