"""The trainer against TRL itself, and a run that is killed."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl")

from safetensors.torch import load_file
from trl import GRPOConfig, GRPOTrainer

from dpad_fast.data import shapes
from dpad_fast.train import run as training
from dpad_fast.train.config import from_dict
from dpad_fast.train.group_advantage_mixin import TRL_SETTINGS, GroupAdvantageMixin
from dpad_fast.train.policy import load_policy
from dpad_fast.train.prompts import scene_target
from dpad_fast.train.resume import last_complete, read_json, step_of
from dpad_fast.train.trainer import DpadTrainer

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # TRL and transformers about each other's names
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def tiny(policy, out, **changes):
    values = {
        "policy": str(policy),
        "out": str(out),
        "steps": 4,
        "save_every": 1,
        "keep": 3,
        "tensorboard": False,
        "rewards": {"preset": "seg-zero"},
        "grpo": {"queries": 2, "generations": 2, "completion_tokens": 8},
        "evaluation": {"scenes": 0},
        **changes,
    }
    return from_dict(values)


def uneven(*, completions, **columns):
    """Some unscored rows, one group all equal, one group with a single scored row."""
    values = [0.0, 1.0, None, 2.5, 1.0, 1.0, 1.0, 1.0, None, 3.0, None, None, 0.25, -4.0, 2.0, None]
    return values[: len(completions)]


def second(*, completions, **columns):
    return [float(index % 3) for index in range(len(completions))]


def partly(*, completions, **columns):
    return [None if index in (2, 15) else 0.5 * index for index in range(len(completions))]


@pytest.fixture(scope="module")
def trainer(random_policy, tmp_path_factory):
    model, processor = load_policy(random_policy)
    processor.tokenizer.padding_side = "left"
    arguments = GRPOConfig(
        str(tmp_path_factory.mktemp("trl")),
        use_cpu=True,
        bf16=False,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        per_device_train_batch_size=16,
        num_generations=4,
        max_completion_length=3,
        reward_weights=[1.0, 0.3, 0.0],
        report_to=[],
        gradient_checkpointing=False,
    )
    dataset = shapes.dataset(0, 0, 4)
    rewards = [uneven, second, partly]
    return DpadTrainer(model, rewards, arguments, train_dataset=dataset, processing_class=processor)


@pytest.mark.parametrize("scale", ["std", "none", "batch", "gdpo-batch"])
@pytest.mark.parametrize("weights", [[1.0, 0.3, 0.0], [1.0, 0.0, 0.0]])
def test_advantages_are_those_of_trl(trainer, monkeypatch, scale, weights):
    for name, value in TRL_SETTINGS[scale].items():
        monkeypatch.setattr(trainer, name, value)
    monkeypatch.setattr(trainer, "_advantage", scale)
    monkeypatch.setattr(trainer, "reward_weights", torch.tensor(weights))
    theirs = []
    original = GRPOTrainer._generate_and_score_completions

    def spy(self, inputs):
        output = original(self, inputs)
        theirs.append(output["advantages"].clone())
        return output

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", spy)
    trainer.model.train()
    rows = [trainer.train_dataset[index // 4] for index in range(16)]
    ours = trainer._generate_and_score_completions(rows)["advantages"]
    assert ours.dtype == theirs[0].dtype
    assert ours.shape == (16,)
    assert ours.abs().max() > 0.1
    torch.testing.assert_close(ours, theirs[0], rtol=1e-5, atol=1e-6)
    assert list(trainer._logs["advantages"])[-16:] == pytest.approx(ours.tolist())


def as_trl_writes_it(rewards, group):
    """TRL 1.16's own lines for `scale_rewards="group"`, on the weights of the trainer below."""
    from trl.trainer.utils import nanstd

    weighted = (rewards * torch.tensor([[1.0, 0.3, 0.0]])).nansum(dim=1)
    weighted[torch.isnan(rewards).all(dim=1)] = torch.nan
    table = weighted.view(-1, group)
    mean = torch.nanmean(table, dim=1).repeat_interleave(group)
    return torch.nan_to_num((weighted - mean) / (nanstd(table, dim=1).repeat_interleave(group) + 1e-4), nan=0.0)


@pytest.mark.parametrize("way", ["trl", "a formula of one's own"])
def test_advantages_are_those_of_trl_to_the_bit(trainer, monkeypatch, way):
    """Left alone, or computed by TRL's own lines: gathering, slicing and logging change nothing."""
    if way == "trl":
        monkeypatch.setattr(trainer, "_advantage", "trl")
        monkeypatch.setattr(trainer, "group_advantages", None)
    else:
        monkeypatch.setattr(trainer, "group_advantages", as_trl_writes_it)
    theirs = []
    original = GRPOTrainer._generate_and_score_completions

    def spy(self, inputs):
        output = original(self, inputs)
        theirs.append((output["advantages"].clone(), list(self._logs["advantages"])[-16:]))
        return output

    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", spy)
    trainer.model.train()
    ours = trainer._generate_and_score_completions([trainer.train_dataset[index // 4] for index in range(16)])
    assert torch.equal(ours["advantages"], theirs[0][0])
    assert list(trainer._logs["advantages"])[-16:] == theirs[0][1]
    assert ours["advantages"].abs().max() > 0.1


def test_an_unknown_advantage_is_refused():
    with pytest.raises(ValueError, match="advantage is 'best'; known: std"):
        DpadTrainer(advantage="best")

    class Own(GroupAdvantageMixin, GRPOTrainer):
        pass

    with pytest.raises(ValueError, match="known: std, none, batch, rloo, gdpo, gdpo-batch, trl"):
        Own(advantage="best")


def test_an_unknown_trl_setting_is_refused(random_policy, tmp_path):
    config = tiny(random_policy, tmp_path / "run", grpo={"queries": 2, "generations": 2, "trl": {"betta": 1}})
    with pytest.raises(ValueError, match=r"grpo\.trl\.betta is not a field"):
        training.train(config)


def test_killed_run_goes_on_and_ends_as_if_it_had_not_been(random_policy, tmp_path):
    """Kill -9 in the middle, damage the newest checkpoint, and run the same command again."""
    out = tmp_path / "killed"
    settings = tmp_path / "run.yaml"
    import yaml

    settings.write_text(yaml.safe_dump(tiny(random_policy, out).as_dict()))
    command = [sys.executable, "-W", "ignore", "-m", "dpad_fast.cli", "train", str(settings)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    limit = time.monotonic() + 240
    while not (out / "checkpoint-2" / "trainer_state.json").exists() and process.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    output = process.communicate()[0]
    assert process.returncode == -signal.SIGKILL, output
    half = out / "checkpoint-99"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.warns(RuntimeWarning, match=r"checkpoint-99 is not used: it has no complete\.json"):
        found = last_complete(out)
    assert 1 <= step_of(found) <= 3

    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert f"going on after step {step_of(found)}" in again.stdout
    result = read_json(out / "result.json")
    assert result["complete"] is True
    assert [line["step"] for line in result["history"]] == [1, 2, 3, 4]

    straight = training.train(tiny(random_policy, tmp_path / "straight"))
    assert straight["resumed_at"] is None
    killed, whole = (
        load_file(str(Path(folder) / "policy" / "model.safetensors")) for folder in (out, tmp_path / "straight")
    )
    for name, weight in whole.items():
        torch.testing.assert_close(killed[name], weight, rtol=0, atol=1e-6)
    for a, b in zip(result["history"], straight["history"], strict=True):
        assert a["kl"] == pytest.approx(b["kl"], abs=1e-5)

    assert training.train(tiny(random_policy, out))["history"] == result["history"]  # finished: nothing is run again
    with pytest.raises(ValueError, match=r"another configuration.*differs in seed"):
        training.train(replace(tiny(random_policy, out), seed=5))


def test_weights_of_a_finished_run_are_restored(random_policy, tmp_path):
    """A kill after the last step and before the policy was saved loses nothing."""
    import shutil

    config = tiny(random_policy, tmp_path / "run", steps=1)
    first = training.train(config)
    saved = load_file(str(tmp_path / "run" / "policy" / "model.safetensors"))
    shutil.rmtree(tmp_path / "run" / "policy")
    (tmp_path / "run" / "training.json").unlink()
    second = training.train(config)
    assert second["resumed_at"] == 1
    assert second["history"] == first["history"]
    for name, weight in load_file(str(tmp_path / "run" / "policy" / "model.safetensors")).items():
        assert torch.equal(weight, saved[name])


def test_the_shapes_policy_sees_pictures_as_they_are(random_policy, tmp_path):
    """Terms are the same with and without the model's processor, and an answer in another size's pixels scores 0."""
    import dpad_fast as df
    from dpad_fast.data.shapes_text import answer_of
    from dpad_fast.train.reward_functions import TrlRewards

    config = tiny(random_policy, tmp_path)
    processor = load_policy(random_policy)[1]
    assert df.model_size_for((112, 112), processor) == (112, 112)
    items = [shapes.sample(5, index) for index in range(4)]
    answers = [answer_of(item.target.box, item.target.points) for item in items]
    answers[3] = answer_of([2 * value for value in items[3].target.box], items[3].target.points)
    columns = {
        "completions": [f"<think> x</think><answer>{answer}</answer>" for answer in answers],
        "image": [item.image for item in items],
        "solution": [item.target.text for item in items],
        "id": [item.id for item in items],
    }
    scorer = training.make_scorer(config)
    functions, weights = training._rewards(config, scorer, processor)
    plain = TrlRewards(scorer, scene_target)
    assert weights == plain.weights()
    values = {function.__name__: function(**columns) for function in functions}
    assert values == {function.__name__: function(**columns) for function in plain.functions()}
    assert values["box_l1"] == [1, 1, 1, 0]
