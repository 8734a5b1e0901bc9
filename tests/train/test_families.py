"""Policies of several families: where the vision tower is, freezing it, and one GRPO step of Qwen3-VL."""

import pytest
import torch

pytest.importorskip("trl")

from trl import GRPOConfig

from dpad_fast.data import shapes
from dpad_fast.train.config import from_dict
from dpad_fast.train.families import FAMILIES, family_of, find_vision_tower, freeze_vision_tower, names_of_parts
from dpad_fast.train.trainer import DpadTrainer


@pytest.mark.parametrize(
    ("family", "prefix"),
    [
        ("qwen2-vl", "model.visual."),
        ("qwen2.5-vl", "model.visual."),
        ("qwen3-vl", "model.visual."),
        ("smolvlm", "model.vision_model."),
        ("idefics3", "model.vision_model."),
        ("internvl", "model.vision_tower."),
    ],
)
def test_the_tower_and_nothing_else_is_frozen(tiny_policy, family, prefix):
    model = tiny_policy(family)
    frozen = freeze_vision_tower(model)
    inside = {name: p.numel() for name, p in model.named_parameters() if name.startswith(prefix)}
    assert frozen == sum(inside.values()) > 1000
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == set(inside)
    assert any(p.requires_grad for p in model.parameters())
    assert find_vision_tower(model.model) is find_vision_tower(model)  # the bare model, without its head


def test_an_unknown_tower_is_said_and_can_be_named():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vision_tower = None  # a model of the family without its tower
            self.eyes = torch.nn.Sequential(torch.nn.Linear(2, 3))
            self.mouth = torch.nn.Linear(3, 1)

    model = Odd()
    said = r"Odd has no vision tower at model\.visual, .*model\.vision_model.*grpo\.vision_tower.*eyes, eyes\.0, mouth"
    with pytest.raises(ValueError, match=said):
        freeze_vision_tower(model)
    with pytest.raises(ValueError, match=r"no vision tower at ears\."):
        freeze_vision_tower(model, "ears")
    assert freeze_vision_tower(model, "eyes.0") == 9
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, True]


def test_the_name_of_a_tower_changes_the_fingerprint_and_its_absence_does_not():
    assert from_dict({}).fingerprint() == "27dec3b9f5833ae1"  # as it was before there was the setting
    assert from_dict({"grpo": {"vision_tower": "model.eyes"}}).fingerprint() != from_dict({}).fingerprint()


def alternating(*, completions, **columns):
    return [float(index % 2) for index in range(len(completions))]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("frozen", [True, False])
def test_one_step_of_qwen3_vl(tiny_policy, qwen3_vl_processor, tmp_path, frozen):
    """A step has four completions of one picture: the tower sees the patches of one, and what is trainable changes."""
    model = tiny_policy("qwen3-vl")
    if frozen:
        freeze_vision_tower(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    patches = []
    model.model.visual.patch_embed.register_forward_pre_hook(lambda module, args: patches.append(len(args[0])))
    qwen3_vl_processor.tokenizer.padding_side = "left"
    arguments = GRPOConfig(
        str(tmp_path),
        use_cpu=True,
        bf16=False,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=4,
        max_steps=1,
        report_to=[],
        disable_tqdm=True,
        gradient_checkpointing=False,
        save_strategy="no",
    )
    trainer = DpadTrainer(
        model,
        [alternating],
        arguments,
        train_dataset=shapes.dataset(0, 0, 4),
        processing_class=qwen3_vl_processor,
        share_images=True,
    )
    trainer.train()
    assert set(patches) == {64}
    tower = {name for name in before if name.startswith("model.visual.")}
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed - tower
    assert bool(changed & tower) is not frozen
    assert all(torch.isfinite(p).all() for p in model.parameters())


KINDS = [(family, kind) for family in FAMILIES for kind in family.model_types if kind != "aya_vision"]


@pytest.mark.parametrize(("family", "kind"), KINDS, ids=[kind for _, kind in KINDS])
def test_the_table_of_families_names_what_transformers_builds(family, kind):
    """Aya Vision's default configuration cannot be built; its layout is LLaVA's."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind))
    assert family_of(model) is family
    for part in ("vision", "projector", "language"):
        assert set(family.part(part)) - {"lm_head"} <= set(names_of_parts(model, (part,)))


def test_an_unknown_family_is_one_line_about_what_to_set():
    class Config:
        model_type = "oddvl"

    with pytest.raises(ValueError, match=r"'oddvl' is of no family .*rewards\.coordinates.*check_coordinates.*vision"):
        family_of(Config())
