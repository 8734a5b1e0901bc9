"""The adapter of EasyR1, in stand-ins of its manager and batch that do what its own code does with them."""

import importlib.util
import json
import logging
from collections import defaultdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import dpad_fast as df
from dpad_fast.integrations import easyr1
from dpad_fast.integrations.easyr1 import DpadRewardManager, compute_score, seen_size
from dpad_fast.testing import rewards as shared
from dpad_fast.testing.faulty_rows import expected_totals, faulty_rows
from dpad_fast.testing.serving import Running

EXAMPLES = Path(__file__).parents[2] / "examples"
QWEN = {"patch_size": 14, "merge_size": 2, "min_pixels": 56 * 56, "max_pixels": 28 * 28 * 1280}
END = 1


class Tokenizer:
    """A stand-in: a token is a character's code, and 1 is the end of the turn."""

    def decode(self, ids, skip_special_tokens):
        kept = [int(i) for i in ids if not (skip_special_tokens and i == END)]
        return "".join("<|im_end|>" if i == END else chr(i) for i in kept)


class DataProto:
    """A stand-in of verl's batch: tensors, and arrays of objects."""

    def __init__(self, batch, non_tensor_batch):
        self.batch = batch
        self.non_tensor_batch = {name: objects(values) for name, values in non_tensor_batch.items()}

    def __len__(self):
        return len(self.batch["responses"])


def objects(values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def proto(texts, **columns):
    tokens = [[*map(ord, text), END] for text in texts]
    width = max(map(len, tokens)) + 3
    responses = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in tokens])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in tokens])
    return DataProto({"responses": responses, "response_mask": mask}, columns)


class AutoRewardManager:
    """A stand-in of `verl.workers.reward.AutoRewardManager` of EasyR1 0.3.3: what its batch branch does."""

    def __init__(self, config, tokenizer):
        spec = importlib.util.spec_from_file_location("custom_reward_fn", config.reward_function)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.reward_fn = partial(getattr(module, config.reward_function_name), **config.reward_function_kwargs)
        assert module.REWARD_TYPE == "batch"
        self.config, self.tokenizer = config, tokenizer

    def compute_reward(self, data):
        ids, lengths = data.batch["responses"], torch.sum(data.batch["response_mask"], dim=-1)
        inputs = []
        for i in range(len(data)):
            length = int(lengths[i].item())
            text = self.tokenizer.decode(ids[i][:length], skip_special_tokens=self.config.skip_special_tokens)
            truth = data.non_tensor_batch["ground_truth"][i]
            inputs.append({"response": text, "response_length": length, "ground_truth": truth})
        tensor, metrics = torch.zeros_like(ids, dtype=torch.float32), defaultdict(list)
        for i, score in enumerate(self.reward_fn(inputs)):
            tensor[i, int(lengths[i].item()) - 1] = score["overall"]
            for key, value in score.items():
                metrics[key].append(value)
        return tensor, metrics


def config(skip=True, **settings):
    return SimpleNamespace(
        reward_function=easyr1.__file__,
        reward_function_name="compute_score",
        reward_function_kwargs=settings,
        skip_special_tokens=skip,
    )


@pytest.fixture(scope="module")
def scorer():
    return df.ScorerSpec(df.RewardConfig.preset("dpad"), encoder="shapes", threads=1).build()


def test_rewards_and_metrics_through_its_own_manager(scorer, tmp_path, caplog):
    rows = faulty_rows(tmp_path)
    texts = [row.completion for row in rows]
    labels = [json.dumps(row.label()) if i % 2 else row.label() for i, row in enumerate(rows)]
    data = proto(texts, ground_truth=labels)
    with caplog.at_level(logging.WARNING):
        tensor, metrics = AutoRewardManager(config(scorer=scorer), Tokenizer()).compute_reward(data)
    wanted = expected_totals(scorer, rows)
    assert tensor.sum(-1).tolist() == [total or 0.0 for total in wanted] == metrics["overall"]
    assert [int(row.nonzero()[0]) for row, total in zip(tensor, wanted, strict=True) if total] == [
        len(text) for text, total in zip(texts, wanted, strict=True) if total
    ]
    assert metrics["unscored"] == [float(total is None) for total in wanted]
    assert set(map(len, metrics.values())) == {len(rows)}
    assert "4 of 7 rows cannot be scored" in caplog.records[0].getMessage()


def test_settings_come_from_the_configuration_and_one_scorer_serves_all_calls():
    settings = {"preset": "dpad", "encoder": "shapes", "threads": 1}
    given = [{"response": shared.completion(), "response_length": 9, "ground_truth": {"solution": shared.SOLUTION}}]
    assert compute_score(given, **settings)[0]["unscored"] == 1.0
    made = easyr1._recipe(settings).made()
    compute_score(given, **settings)
    assert easyr1._recipe(settings).made() is made
    assert made.rows == 2
    with pytest.raises(ValueError, match="unknown setting 'presets' for EasyR1"):
        compute_score(given, presets="dpad")


def test_the_example(scorer, tmp_path):
    text = (EXAMPLES / "easyr1" / "reward.yaml").read_text().replace("PACKAGE", df.__path__[0])
    reward = SimpleNamespace(**yaml.safe_load(text)["worker"]["reward"], skip_special_tokens=True)
    reward.reward_function, reward.reward_function_name = reward.reward_function.rsplit(":", maxsplit=1)
    row = faulty_rows(tmp_path)[0]
    data = proto([row.completion], ground_truth=[row.label(model_size=list(shared.SIZE))])
    tensor = AutoRewardManager(reward, Tokenizer()).compute_reward(data)[0]
    assert tensor.sum() == expected_totals(scorer, [row])[0]


def test_the_manager_finds_the_pictures_in_the_batch(scorer, tmp_path):
    rows = faulty_rows(tmp_path)
    texts = [row.completion for row in rows]
    labels = [{"solution": row.solution, "image_size": list(shared.SIZE)} for row in rows]
    shown = [{"images": [row.picture]} for row in rows]
    data = proto(texts, ground_truth=labels, multi_modal_data=shown)
    tensor, metrics = DpadRewardManager(config(scorer=scorer), Tokenizer()).compute_reward(data)
    wanted = expected_totals(scorer, rows)
    assert tensor.sum(-1).tolist() == [total or 0.0 for total in wanted] == metrics["overall"]
    # Both managers give the same where the label names the picture.
    named = proto(texts, ground_truth=[row.label() for row in rows])
    both = [
        manager(config(scorer=scorer), Tokenizer()).compute_reward(named)
        for manager in (AutoRewardManager, DpadRewardManager)
    ]
    assert torch.equal(both[0][0], both[1][0])
    assert both[0][1] == both[1][1]


def test_through_a_server(scorer, tmp_path):
    rows = faulty_rows(tmp_path)
    shown = [{"images": [shared.picture(i)]} for i in range(3)]
    truths = [{"solution": shared.SOLUTION}] * 3
    named = proto([row.completion for row in rows], ground_truth=[row.label() for row in rows])
    decoded = proto([row.completion for row in rows[:3]], ground_truth=truths, multi_modal_data=shown)
    server = Running()
    try:
        for manager, data in ((AutoRewardManager, named), (DpadRewardManager, named), (DpadRewardManager, decoded)):
            found = manager(config(url=server.url), Tokenizer()).compute_reward(data)
            wanted = manager(config(scorer=scorer), Tokenizer()).compute_reward(data)
            assert torch.equal(found[0], wanted[0])
            assert found[1] == wanted[1]
    finally:
        assert server.stop() == 0


def test_the_manager_knows_what_the_model_saw():
    geometry = df.RewardScorer(df.RewardConfig.preset("dpad", terms=("iou", "box_l1"), gate=False))
    picture = Image.new("RGB", (960, 720))
    seen = seen_size(picture.size, None, 200_000, processor=QWEN)
    box = [value * 10 * seen[i % 2] / picture.size[i % 2] for i, value in enumerate((20, 12, 64, 52))]
    truth = {"solution": "<box>(200,120),(640,520)</box>"}
    data = proto([shared.completion(box)], ground_truth=[truth], multi_modal_data=[{"images": [picture]}])
    manager = DpadRewardManager(config(scorer=geometry, processor=QWEN, max_pixels=200_000), Tokenizer())
    assert manager.compute_reward(data)[0].sum() == 2.0
    other = DpadRewardManager(config(scorer=geometry, processor=QWEN), Tokenizer())
    assert other.compute_reward(data)[0].sum() < 2.0


def process_image(image, min_pixels, max_pixels):
    """A stand-in of `verl.utils.dataset.process_image`: how EasyR1 resizes."""
    if max_pixels is not None and (image.width * image.height) > max_pixels:
        factor = (max_pixels / (image.width * image.height)) ** 0.5
        image = image.resize((int(image.width * factor), int(image.height * factor)))
    if min_pixels is not None and (image.width * image.height) < min_pixels:
        factor = (min_pixels / (image.width * image.height)) ** 0.5
        image = image.resize((int(image.width * factor), int(image.height * factor)))
    return image


@pytest.mark.parametrize("size", [(96, 72), (960, 720), (301, 77), (40, 41)])
@pytest.mark.parametrize("limits", [(None, None), (50_000, 100_000), (None, 5000), (9000, None)])
def test_seen_size(size, limits):
    resized = process_image(Image.new("L", size), *limits).size
    assert seen_size(size, *limits, processor=QWEN) == df.model_size_for(resized, QWEN)


def test_the_end_of_the_turn_is_cut_off(scorer, tmp_path):
    row = faulty_rows(tmp_path)[0]
    data = proto([row.completion], ground_truth=[row.label()])
    for manager in (AutoRewardManager, DpadRewardManager):
        tensor = manager(config(skip=False, scorer=scorer), Tokenizer()).compute_reward(data)[0]
        assert tensor.sum() == expected_totals(scorer, [row])[0]


def test_an_empty_response(scorer):
    data = proto([shared.completion(), ""], ground_truth=[{"solution": shared.SOLUTION, "image": shared.picture()}] * 2)
    data.batch["response_mask"][1] = 0
    managers = (AutoRewardManager, DpadRewardManager)
    one, other = (manager(config(scorer=scorer), Tokenizer()).compute_reward(data)[0] for manager in managers)
    assert torch.equal(one, other)
    assert other[1].sum() == 0
