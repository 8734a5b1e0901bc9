"""Tiny random policies: the real one's class and picture rules, loaded and trained as the real one would be."""

import time

import pytest
import torch
from PIL import Image

from dpad_fast.model_size import model_size_for
from dpad_fast.train.policy import load_policy, quiet
from dpad_fast.train.tiny_policy import tiny_policy, write_tiny_policy

# name: class in transformers, pad tokens of a 640 x 480 picture in the prompt. Qwen: 644 x 476 and 640 x 480 (Qwen3-VL)
# in squares of 28 and 32; SmolVLM: 4 x 3 tiles and the whole, 64 or 81 each; InternVL: 4 x 3 tiles and the whole, 256.
POLICIES = {
    "Qwen/Qwen2-VL-2B-Instruct": ("Qwen2VLForConditionalGeneration", 23 * 17),
    "Qwen/Qwen2.5-VL-3B-Instruct": ("Qwen2_5_VLForConditionalGeneration", 23 * 17),
    "Qwen/Qwen3-VL-4B-Instruct": ("Qwen3VLForConditionalGeneration", 20 * 15),
    "HuggingFaceTB/SmolVLM-256M-Instruct": ("Idefics3ForConditionalGeneration", 13 * 64),
    "HuggingFaceTB/SmolVLM-Instruct": ("Idefics3ForConditionalGeneration", 13 * 81),
    "OpenGVLab/InternVL3-1B-hf": ("InternVLForConditionalGeneration", 13 * 256),
}
TEXT = "Find 'the dog on the left', na\u00efve \u72d7. <think> x </think>"


def prompt(processor, text=TEXT):
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    return processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)


@pytest.fixture(scope="module", params=POLICIES)
def saved(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return request.param, write_tiny_policy(folder, request.param)


def test_it_loads_as_the_real_one_does(saved):
    name, folder = saved
    started = time.process_time()
    model, processor = load_policy(folder)
    assert time.process_time() - started < 5  # a bound for hangs
    assert type(model).__name__ == POLICIES[name][0]
    assert sum(parameter.numel() for parameter in model.parameters()) < 2_000_000
    inputs = processor(text=[prompt(processor)], images=[Image.new("RGB", (640, 480))], return_tensors="pt")
    pads = int((inputs["input_ids"] == model.config.image_token_id).sum())
    assert pads == POLICIES[name][1]
    answer = model.generate(**inputs, max_new_tokens=4, do_sample=True)
    assert answer.shape[1] > inputs["input_ids"].shape[1]


def test_texts_come_back(saved):
    _, folder = saved
    _, processor = load_policy(folder)
    ids = processor.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert processor.tokenizer.decode(ids) == TEXT
    assert prompt(processor).count(TEXT) == 1


def test_the_seed_decides(saved):
    name, folder = saved
    loaded, _ = load_policy(folder)
    for seed, same in ((0, True), (1, False)):
        made, _ = tiny_policy(name, seed)
        pairs = zip(loaded.parameters(), made.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) is same


def test_pixels_mean_what_they_mean_to_the_real_one():
    _, processor = tiny_policy("Qwen/Qwen2.5-VL-7B-Instruct")
    assert model_size_for((3000, 2000), processor) == (2996, 1988)
    _, processor = tiny_policy("Qwen/Qwen3-VL-8B-Instruct")
    assert model_size_for((630, 470), processor) == (640, 480)


def test_a_folder_is_taken_at_its_word(tmp_path):
    """Sizes from config.json, picture rules and tokenizer from the folder where they are there."""
    shipped, processor = tiny_policy("policy-e")
    assert type(shipped).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert len(processor.tokenizer) == shipped.config.text_config.vocab_size < 200
    assert model_size_for((112, 112), processor) == (112, 112)
    from dpad_fast.train.known_policies import true_config

    true_config("Qwen/Qwen3-VL-2B-Instruct").save_pretrained(tmp_path)
    model, processor = tiny_policy(tmp_path)
    assert type(model).__name__ == "Qwen3VLForConditionalGeneration"
    assert model_size_for((630, 470), processor) == (640, 480)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("Qwen/Qwen9-VL-1B", "is no folder, and its sizes are not known here. Give a folder with its config.json, or"),
        ("{folder}", "is a folder without config.json"),
        ("{clip}", "is a 'clip'; a tiny one can be made of qwen2_vl, "),
    ],
)
def test_what_is_not_known_is_refused(name, complaint, tmp_path):
    from transformers import CLIPConfig

    CLIPConfig().save_pretrained(tmp_path / "clip")
    with pytest.raises(ValueError, match=complaint):
        tiny_policy(name.format(folder=tmp_path, clip=tmp_path / "clip"))


def test_it_trains_with_trl(saved, tmp_path):
    """Two GRPO steps change the weights: what a run does with the real one."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    name, folder = saved
    model, processor = load_policy(folder)
    processor.tokenizer.padding_side = "left"
    before = [parameter.detach().clone() for parameter in model.parameters()]
    picture = Image.new("RGB", (56, 84), "red")
    rows = [{"prompt": [{"role": "user", "content": "find it"}], "image": picture}] * 2
    settings = {"use_cpu": True, "bf16": False, "dataloader_pin_memory": False, "remove_unused_columns": False}
    settings |= {"num_generations": 2, "per_device_train_batch_size": 2, "max_completion_length": 6, "max_steps": 2}
    settings |= {"report_to": [], "disable_tqdm": True, "learning_rate": 1e-2, "save_strategy": "no"}
    with quiet():
        trainer = GRPOTrainer(
            model,
            lambda completions, **_: [float(i) for i in range(len(completions))],
            args=GRPOConfig(str(tmp_path), **settings),
            train_dataset=Dataset.from_list(rows),
            processing_class=processor,
        )
        trainer.train()
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2, name
