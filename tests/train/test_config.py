"""Configurations: what is read, and that every mistake is named in one line."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from dpad_fast.train import config as configuration
from dpad_fast.train.config import (
    DataConfig,
    EvaluationConfig,
    GrpoConfig,
    HeldOutConfig,
    LoraConfig,
    TrainConfig,
    VllmConfig,
    from_dict,
    load,
)

CONFIGS = Path(__file__).parents[2] / "configs"


def test_every_field_has_a_line_of_documentation():
    for cls in (TrainConfig, DataConfig, GrpoConfig, LoraConfig, VllmConfig, EvaluationConfig, HeldOutConfig):
        lines = inspect.getsource(cls).splitlines()
        for field in dataclasses.fields(cls):
            (line,) = [line for line in lines if re.match(rf"    {field.name}: ", line)]
            assert "  # " in line, f"{cls.__name__}.{field.name} says nothing about itself"


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"stepps": 3}, "unknown setting stepps; did you mean steps?"),
        ({"grpo": {"querys": 3}}, r"unknown setting grpo\.querys; did you mean grpo\.queries\?"),
        ({"grpo": 3}, "grpo must be a section"),
        ({"rewards": {"shap": "margin"}}, "rewards: unknown reward setting 'shap'"),
        ({"rewards": {"preset": "x"}}, "rewards: unknown preset 'x'"),
        ({"steps": "many"}, "steps must be of type int, got 'many'"),
        ({"steps": True}, "steps must be of type int"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"grpo": {"learning_rate": "fast"}}, r"grpo\.learning_rate must be a number"),
        ({"grpo": {"generations": 1}}, "at least 2"),
        ({"grpo": {"accumulate": 3}}, "does not divide"),
        (
            {"data": {"kind": "csv"}},
            r"data\.kind is 'csv'; known: shapes, dataset, reasonseg, refcoco, coco, grandf, released",
        ),
        ({"data": {"kind": "dataset"}}, r"data\.path is empty"),
        ({"extra_rewards": ["x"]}, "extra_rewards is 'x'"),
        ({"extra_rewards": "names_any_object"}, "extra_rewards must be a list"),
        ({"extra_rewards": ["names_any_object"], "extra_weights": [1, 2]}, "2 entries for 1"),
        ({"evaluation": {"seed": 1}}, "it would test on what it trains on"),
        ({"dtype": "half"}, "dtype is 'half'; known: auto, float32, bfloat16, float16"),
        ({"attention": "flash"}, "attention is 'flash'; known: sdpa, eager, flash_attention_2, flash_attention_3, or"),
        ({"attention": "flash_attention_2"}, "attention 'flash_attention_2' needs a GPU, but device is cpu"),
        ({"attention": "flash_attention_2", "device": "auto", "dtype": "float32"}, "needs dtype bfloat16 or float16"),
        ({"min_pixels": 9, "max_pixels": 4}, "min_pixels is 9, above max_pixels 4"),
        ({"max_pixels": -1}, "max_pixels must be at least 0, got -1"),
        ({"epochs": 1}, "epochs is set, but the shapes world has no end: set steps"),
        ({"lora": {"alpha": 16}}, r"lora has settings but lora\.r is 0"),
        ({"lora": {"r": 8, "dropout": 1}}, r"lora\.dropout must be below 1"),
        ({"lora": {"rank": 8}}, r"unknown setting lora\.rank"),
        ({"lora": {"r": 8}, "grpo": {"frozen": ["language"]}}, r"lora\.r is set and grpo\.frozen names language"),
        ({"grpo": {"frozen": ["eyes"]}}, r"grpo\.frozen is 'eyes'; known: vision, projector, language"),
        (
            {"grpo": {"frozen": ["vision"], "freeze_vision": False}},
            r"grpo\.frozen names vision, but grpo\.freeze_vision",
        ),
        ({"grpo": {"frozen": ["projector", "language"]}}, r"grpo\.frozen leaves nothing to train"),
        ({"grpo": {"deepspeed": "a", "fsdp": "b"}}, r"grpo\.deepspeed and grpo\.fsdp are both set"),
        ({"grpo": {"deepspeed": "a.json"}}, r"grpo\.deepspeed is set, but device is cpu"),
        ({"vllm": {"mode": "on"}}, r"vllm\.mode is 'on'; known: off, colocate, server"),
        ({"vllm": {"mode": "colocate"}}, r"vllm\.mode is set, but device is cpu"),
        ({"vllm": {"server_port": 1}}, r"vllm\.server_port is set, but vllm\.mode 'off' does not"),
        (
            {"vllm": {"mode": "server", "tensor_parallel_size": 2}},
            r"vllm\.tensor_parallel_size is set, but vllm\.mode 's",
        ),
        (
            {"vllm": {"mode": "colocate", "gpu_memory_utilization": 2}},
            r"vllm\.gpu_memory_utilization must be in \(0, 1\]",
        ),
        ({"data": {"kind": "reasonseg"}}, r"data\.path is empty: data\.kind 'reasonseg'"),
        ({"data": {"columns": {"query": "q"}}}, r"data\.columns is for data\.kind 'rows', not 'shapes'"),
        (
            {"data": {"prompt": "dpadd"}},
            r"data\.prompt is 'dpadd': neither a template \(dpad, seg-zero, vision-reasoner\)",
        ),
        ({"data": {"bad_rows": "drop"}}, r"data\.bad_rows is 'drop'; known: stop, skip"),
        ({"evaluation": {"data": {"limit": 3}}}, r"evaluation\.data has settings but evaluation\.data\.path is empty"),
        ({"evaluation": {"data": {"path": "x", "kind": "shapes"}}}, r"evaluation\.data\.kind is 'shapes'; known: data"),
        ({"evaluation": {"segmenter": "eye"}}, r"evaluation\.segmenter is 'eye'; known: box, polygon, background"),
        ({"evaluation": {"every": 5, "scenes": 0}}, r"evaluation\.every is set, but there is nothing to measure on"),
    ],
)
def test_mistakes_are_named(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        from_dict(values)


def test_round_trip_and_scientific_notation():
    made = from_dict({"grpo": {"learning_rate": "1e-6"}, "extra_rewards": ["names_any_object"]})
    assert made.grpo.learning_rate == 1e-6
    assert from_dict(made.as_dict()) == made


def test_fingerprint_follows_what_changes_the_result_only():
    plain = TrainConfig()
    assert dataclasses.replace(plain, out="elsewhere", log_every=5, threads=2).fingerprint() == plain.fingerprint()
    assert dataclasses.replace(plain, seed=1).fingerprint() != plain.fingerprint()
    assert from_dict({"rewards": {"preset": "dpad", "shape": "margin"}}).fingerprint() != plain.fingerprint()


# What the configurations had before the settings for other policies than the shapes world's were there.
FINGERPRINTS = {
    "shapes-e": "35f618dd0016e31e",
    "shapes-e-geometry": "ed5954c6ec20142f",
    "shapes-f": "4142dbd26875b8b3",
    "shapes-f-geometry": "0ef45f791e6982dd",
    "shapes-j": "2d033d31d451c709",
    "shapes-j-any-object": "a5b43aa640f1c7fc",
    "shapes-j-geometry": "98c3bc9d462fae1b",
}


@pytest.mark.parametrize("name", FINGERPRINTS)
def test_new_settings_leave_the_runs_of_before_theirs(name):
    assert load(CONFIGS / f"{name}.yaml").fingerprint() == FINGERPRINTS[name]


@pytest.mark.parametrize(
    "values",
    [
        *({"dtype": "float32"}, {"attention": "eager"}, {"max_pixels": 50176}, {"image_processor": {"a": 1}}),
        *({"lora": {"r": 8}}, {"grpo": {"frozen": ["projector"]}}, {"data": {"system_prompt": "x"}}),
        *({"evaluation": {"every": 2}}, {"evaluation": {"data": {"path": "x"}}}, {"check_coordinates": False}),
    ],
    ids=str,
)
def test_every_new_setting_that_is_used_changes_the_fingerprint(values):
    assert from_dict(values).fingerprint() != TrainConfig().fingerprint()


def test_base_files_and_overrides(tmp_path):
    (tmp_path / "base.yaml").write_text("steps: 3\nrewards: {preset: dpad, shape: margin}\n")
    (tmp_path / "child.yaml").write_text("base: base.yaml\nseed: 4\nrewards: {gate: false}\n")
    made = load(tmp_path / "child.yaml", ["grpo.queries=2", "rewards.weights.discriminative=0"])
    assert (made.steps, made.seed, made.grpo.queries) == (3, 4, 2)
    reward = made.reward_config()
    assert (reward.shape, reward.gate, reward.weight("discriminative")) == ("margin", False, 0.0)


@pytest.mark.parametrize(
    ("text", "overrides", "complaint"),
    [
        ("base: a.yaml", [], "in a circle"),
        ("[1, 2]", [], "expected a mapping"),
        ("steps: [", [], "not valid YAML"),
        ("steps: 3", ["steps"], "not of the form key=value"),
        ("steps: 3", ["steps.more=3"], "steps is not a section"),
    ],
)
def test_bad_files(tmp_path, text, overrides, complaint):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        load(tmp_path / "a.yaml", overrides)


def test_missing_file():
    with pytest.raises(FileNotFoundError):
        configuration.load("no/such/file.yaml")


HUGE = "1" + "0" * 30


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("- a", "expected a mapping of settings, got list"),
        ("", "expected a mapping of settings, got NoneType"),
        ("[" * 100_000, "not valid YAML"),
        ("name: 2020-13-45", "not valid YAML: month must be in 1..12"),
        ("steps: " + "1" * 5000, "not valid YAML: Exceeds the limit"),
        (b"\xff\xfe\x00\xd8", "not valid YAML"),
        ("base: 5", "base must name a file, got 5"),
        ("base: [a]", r"base must name a file, got \['a'\]"),
        (f"steps: {HUGE}", f"^steps must be below 2147483648, got {HUGE}$"),
        (f"data: {{seed: {HUGE}}}", r"^data\.seed must be below"),
        (f"grpo: {{queries: {HUGE}}}", r"^grpo\.queries must be below"),
        (f"grpo: {{clip_norm: {'1' * 400}}}", r"^grpo\.clip_norm must be a number, got 1+\.\.\. \(400 characters\)"),
        ("steps: 2147483647", r"^steps x grpo\.queries is 17179869176 prompts"),
        ("seed: -1", "^seed must be at least 0, got -1"),
        ("threads: -5", "^threads must be at least 0, got -5"),
        ("data: {limit: -5}", r"^data\.limit must be at least 0"),
        ("evaluation: {samples: 0}", r"^evaluation\.samples must be at least 1, got 0"),
        ("evaluation: {scenes: -1}", r"^evaluation\.scenes must be at least 0"),
        ("grpo: {temperature: 0}", r"^grpo\.temperature must be above 0, got 0\.0"),
        ("grpo: {temperature: .inf}", r"^grpo\.temperature must be a finite number, got inf"),
        ("grpo: {learning_rate: .nan}", r"^grpo\.learning_rate must be a finite number, got nan"),
        ("grpo: {learning_rate: -1e-4}", r"^grpo\.learning_rate must be at least 0"),
        ("grpo: {trl: {x: 2020-01-01}}", r"^grpo\.trl must hold texts, numbers, lists and sections"),
        ("rewards: &a {preset: *a}", "^rewards must hold texts, numbers, lists and sections"),
        ("rewards: {terms: 5}", "^rewards: terms must be a list of names, got 5"),
        ("device: tpu", "^device is 'tpu'; known: cpu, auto"),
        ('out: "a\\0b"', "^out must be a text without NUL"),
        ('name: "\\ud800"', "^name must be a text without NUL and lone surrogates"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_hostile_files_are_one_line(tmp_path, text, complaint):
    path = tmp_path / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=complaint) as error:
        load(path)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("value", ["[", "[" * 100_000, "1" * 5000, "2020-13-45"], ids=["open", "deep", "long", "date"])
def test_hostile_overrides_are_one_line(tmp_path, value):
    path = tmp_path / "run.yaml"
    path.write_text("name: a")
    with pytest.raises(ValueError, match=r"--set steps: .* is not valid YAML") as error:
        load(path, [f"steps={value}"])
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grpo": {"paired_sampling": True}, "vllm": {"mode": "colocate"}}, "grpo.paired_sampling is set, but with vllm"),
        ({"grpo": {"fsdp": "f.yaml"}, "evaluation": {"every": 2}}, "evaluation.every is set with grpo.fsdp"),
        ({"grpo": {"deepspeed": "d.json"}, "evaluation": {"every": 2}}, "evaluation.every is set with grpo.fsdp"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        from_dict(settings)
