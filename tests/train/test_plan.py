"""The plan of a run: counts against real models, optimisers and adapters; what fits; how steps and disk follow."""

import json
import re
from dataclasses import replace

import pytest
import torch

from dpad_fast.train import config as configuration
from dpad_fast.train.plan import Parameters, card, parameters, plan, steps_of, strategy_of, text_of
from dpad_fast.train.policy import quiet
from dpad_fast.train.prompt_sizes import PromptSize

PROMPT = PromptSize(tokens=1000, text=100, picture=900, patches=3600, text_by="words", picture_by="rule")
QWEN = "Qwen/Qwen2.5-VL-3B-Instruct"


def run(**settings):
    return configuration.from_dict({"policy": QWEN, "device": "auto", "evaluation": {"scenes": 0}, **settings})


def test_all_parameters_or_all_but_the_tower():
    """Qwen2.5-VL-3B: 3,754,622,976 in all; the tower with its merger is 668,683,520 of them."""
    assert parameters(run(grpo={"freeze_vision": False})) == Parameters(3754622976, 3754622976)
    frozen = parameters(run(grpo={"freeze_vision": True}))
    assert frozen.total == 3754622976
    from dpad_fast.train.families import find_vision_tower
    from dpad_fast.train.known_policies import meta_model, true_config

    tower = find_vision_tower(meta_model(true_config(QWEN)))
    assert frozen.total - frozen.trained == sum(value.numel() for value in tower.parameters())


@pytest.mark.parametrize("targets", [[], ["q_proj", "v_proj"], ["gate_proj"]])
def test_adapters_are_as_many_as_peft_makes(targets, tmp_path):
    from peft import LoraConfig, get_peft_model

    from dpad_fast.train.tiny_policy import write_tiny_policy

    folder = write_tiny_policy(tmp_path / "tiny", QWEN)
    config = run(policy=str(folder), lora={"r": 4, "target_modules": targets}, grpo={"freeze_vision": True})
    found = parameters(config)
    from dpad_fast.train.policy import load_policy

    model, _ = load_policy(folder)
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and "language_model" in name
        and (not targets or name[name.rfind(".") + 1 :] in targets)
    ]
    with quiet():
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=names))
    measured = sum(value.numel() for name, value in adapted.named_parameters() if "lora_" in name)
    assert found.adapters == found.trained == measured


def test_weights_gradients_and_optimiser_to_the_byte(tmp_path):
    from dpad_fast.train.policy import load_policy
    from dpad_fast.train.tiny_policy import write_tiny_policy

    folder = write_tiny_policy(tmp_path / "tiny", QWEN)
    config = run(policy=str(folder), device="cpu", grpo={"freeze_vision": False, "beta": 0.02})
    items = card(config, parameters(config), PROMPT, "single", 1, 80).items
    model, _ = load_policy(folder)
    optimiser = torch.optim.AdamW(model.parameters())
    for value in model.parameters():
        value.grad = torch.zeros_like(value)
    optimiser.step()
    weights = sum(value.nbytes for value in model.parameters())
    moments = sum(state[name].nbytes for state in optimiser.state.values() for name in ("exp_avg", "exp_avg_sq"))
    assert items["weights"].bytes == weights == items["reference"].bytes
    assert items["gradients"].bytes == sum(value.grad.nbytes for value in model.parameters())
    assert items["optimiser"].bytes == moments
    found = plan(config, [PROMPT])["run"]["checkpoint bytes"]
    torch.save(optimiser.state_dict(), tmp_path / "optimizer.pt")
    written = (tmp_path / "optimizer.pt").stat().st_size + (folder / "model.safetensors").stat().st_size
    assert found == pytest.approx(written, rel=0.15)  # names and headers of a small file weigh more


def test_sharding_divides_what_it_shards():
    config = run(grpo={"freeze_vision": False, "queries": 16, "beta": 0.005})
    counts = Parameters(8_000_000_000, 8_000_000_000)
    bytes_of = {
        name: {item: amount.bytes for item, amount in card(config, counts, PROMPT, name, 8, 80).items.items()}
        for name in ("single", "zero-2", "zero-3", "fsdp")
    }
    assert bytes_of["single"]["weights"] == bytes_of["zero-2"]["weights"] == 16e9
    assert bytes_of["zero-3"]["weights"] == 2e9
    assert bytes_of["fsdp"]["weights"] == 4e9
    assert bytes_of["zero-2"]["gradients"] == 2e9
    assert bytes_of["fsdp"]["gradients"] == 4e9
    assert bytes_of["zero-2"]["optimiser"] == 12e9
    assert bytes_of["fsdp"]["optimiser"] == 8e9
    assert bytes_of["single"]["optimiser"] == 32e9


@pytest.mark.parametrize("cards", [1, 4])
@pytest.mark.parametrize("strategy", ["single", "zero-2", "zero-3", "fsdp"])
@pytest.mark.parametrize("counts", [Parameters(2240, 1600), Parameters(2240, 64, 64)], ids=["all", "adapters"])
def test_each_formula_gives_the_bytes_beside_it(counts, strategy, cards):
    items = card(run(dtype="bfloat16", grpo={"beta": 0.1}), counts, PROMPT, strategy, cards, 80).items
    for name in ("weights", "gradients", "optimiser", "reference"):
        if name not in items:
            continue
        terms = items[name].formula.replace("(buckets of all-reduce)", "").replace("float32 copy", "1")
        numbers = "".join(re.findall(r"[0-9+/().]|(?<= )x(?= )", terms)).replace("x", "*")
        assert eval(numbers) == items[name].bytes, (name, items[name])


def test_fsdp_holds_all_frozen_weights_beside_adapters():
    """(4 T + s (P - T)) / N."""
    items = card(run(dtype="bfloat16"), Parameters(1000, 200, 200), PROMPT, "fsdp", 2, 80).items
    assert items["weights"].bytes == (4 * 200 + 2 * 800) // 2


def test_what_fits():
    """A 3B policy in full on one card of 24 GB cannot be: weights, gradients, moments and reference are 35 GiB."""
    small = {"queries": 2, "generations": 2, "completion_tokens": 256, "gradient_checkpointing": True, "accumulate": 4}
    config = run(grpo={"freeze_vision": True, **small})
    found = plan(config, [PROMPT], 1, (24, 80))
    assert found["memory"][0]["fits"] == {"24": False, "80": True}
    adapted = run(grpo={"freeze_vision": True, **small}, lora={"r": 16})
    assert plan(adapted, [PROMPT], 1, (24, 80))["memory"][0]["fits"]["24"]
    said = text_of(found)
    assert "does not fit 24 GB, fits 80 GB" in said
    assert "parameters 3,754,622,976 x 2 B" in said
    json.dumps(found)


def test_no_reference_without_kl_or_with_adapters():
    for settings in ({"grpo": {"beta": 0.0}}, {"lora": {"r": 8}}):
        config = run(**settings)
        assert "reference" not in card(config, parameters(config), PROMPT, "single", 1, 80).items


def test_vllm_in_the_same_process_takes_its_share():
    config = run(vllm={"mode": "colocate", "gpu_memory_utilization": 0.25})
    found = card(config, Parameters(10, 10), PROMPT, "single", 1, 80)
    assert found.items["vllm"].bytes == 20 << 30
    assert "kv cache" not in found.items
    asleep = replace(config, vllm=replace(config.vllm, enable_sleep_mode=True))
    assert card(asleep, Parameters(10, 10), PROMPT, "single", 1, 80).peak < found.peak


def test_steps_follow_from_epochs():
    assert steps_of(run(steps=7), None) == 7
    config = run(epochs=2, data={"kind": "released", "path": "somewhere"}, grpo={"queries": 16})
    assert steps_of(config, 3000) == 374  # two passes of 187 full steps
    assert steps_of(config, None) is None
    assert "unknown steps" in text_of(plan(config, [PROMPT]))


def test_strategy_from_the_files(tmp_path):
    for stage, name in ((2, "zero-2"), (3, "zero-3"), (0, "single")):
        (tmp_path / "ds.json").write_text(json.dumps({"zero_optimization": {"stage": stage}}))
        assert strategy_of(run(grpo={"deepspeed": str(tmp_path / "ds.json")})) == name
    assert strategy_of(run(grpo={"fsdp": "fsdp.yaml"})) == "fsdp"
    assert strategy_of(run()) == "single"
    (tmp_path / "ds.json").write_text("[")
    with pytest.raises(ValueError, match=r"grpo\.deepspeed .* cannot be read"):
        strategy_of(run(grpo={"deepspeed": str(tmp_path / "ds.json")}))
