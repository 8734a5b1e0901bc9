"""The example's configuration by verl's own checks, the advantage by its estimators, the plugin on its import."""

import importlib
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("verl")

import torch

from dpad_fast.integrations import _verl_plugin
from dpad_fast.integrations.verl import check_config, dpad_advantage

ROOT = Path(__file__).parents[3]


def test_the_example_s_configuration_passes_verl_s_own_checks(configured):
    from verl.trainer.ppo.reward import resolve_reward_manager_cls
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    from dpad_fast.integrations.verl import DpadRewardManager

    config = configured()
    assert config.trainer.use_v1
    assert not need_critic(config)
    assert need_reference_policy(config)
    validate_config(config, use_reference_policy=True, use_critic=False)
    assert omega_conf_to_dataclass(config.algorithm).adv_estimator == "dpad"
    assert resolve_reward_manager_cls(config) is DpadRewardManager
    check_config(config)


def test_the_command_that_the_page_prints_composes():
    """Hydra's `--cfg job` prints what verl would run with, and stops there."""
    page = (ROOT / "docs" / "verl.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith("python -m verl.trainer.main_ppo --config-path"))
    words = shlex.split(line.replace("$PWD", str(ROOT)))[1:]
    command = [sys.executable, *words, "--cfg", "job"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert "DpadRewardManager" in done.stdout, done.stderr
    assert yaml.safe_load(done.stdout)["data"]["custom_cls"]["name"] == "DpadDataset"


def test_the_advantage_is_verl_s_grpo_where_it_is_set_so(configured):
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, get_adv_estimator_fn

    estimator = get_adv_estimator_fn(configured().algorithm.adv_estimator)
    rng = np.random.default_rng(0)
    for count, size in ((64, 8), (48, 16), (30, 3), (7, 1)):
        uid = np.array([f"u{i // size}" for i in range(count)], dtype=object)[rng.permutation(count)]
        rewards = torch.zeros(count, 12)
        places = torch.from_numpy(rng.integers(1, 12, count))
        rewards[torch.arange(count), places] = torch.from_numpy(rng.integers(0, 7, count)).float()
        mask = (torch.arange(12)[None] <= places[:, None]).long()
        for normed in (True, False):
            algorithm = configured(f"algorithm.norm_adv_by_std_in_grpo={normed}").algorithm
            ours, returns = estimator(token_level_rewards=rewards, response_mask=mask, config=algorithm, index=uid)
            theirs, _ = compute_grpo_outcome_advantage(rewards, mask, uid, norm_adv_by_std_in_grpo=normed)
            assert ours.dtype == theirs.dtype
            assert ours.shape == theirs.shape
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
            assert torch.equal(ours, returns)


def test_the_advantage_through_verl_s_trainer_leaves_nan_out(configured):
    from tensordict import TensorDict
    from verl import DataProto
    from verl.trainer.ppo.ray_trainer import compute_advantage

    rewards = torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, float("nan")], [0.0, 5.0]])
    batch = TensorDict({"token_level_rewards": rewards, "response_mask": torch.ones(4, 2)}, batch_size=4)
    data = DataProto(batch=batch, non_tensor_batch={"uid": np.array(["a", "a", "a", "b"], dtype=object)})
    config = configured("+algorithm.dpad.scale=none", "+algorithm.dpad.singleton=zero").algorithm
    made = compute_advantage(data, adv_estimator="dpad", config=config)
    assert made.batch["advantages"][:, 0].tolist() == [-1.0, 1.0, 0.0, 0.0]
    wrong = {"+algorithm.dpad.scle=std": "scle; known: scale", "+algorithm.dpad.scale=gdpo": "one of std"}
    for key, message in wrong.items():
        with pytest.raises(ValueError, match=message):
            compute_advantage(data, adv_estimator="dpad", config=configured(key).algorithm)
    with pytest.raises(ValueError, match="index is missing"):
        dpad_advantage(rewards, torch.ones(4, 2))


def test_the_plugin_imports_nothing_and_the_name_is_known_once_verl_has_its_estimators():
    """`import verl` alone imports neither anything else of ours nor verl's registry, which takes seconds."""
    code = """
        import sys
        import verl
        light = ("dpad_fast._version", "dpad_fast.integrations", "dpad_fast.integrations._verl_plugin")
        assert light[-1] in sys.modules, "not loaded"
        print([name for name in sys.modules if name.startswith("dpad_fast.") and name not in light])
        print("verl.trainer.ppo.core_algos" in sys.modules)
        from verl.trainer.ppo import core_algos
        print(core_algos.get_adv_estimator_fn("dpad").__module__)
        print(core_algos.__spec__.origin == core_algos.__file__, core_algos.get_adv_estimator_fn("grpo").__name__)
        """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.splitlines() == [
        "[]",
        "False",
        "dpad_fast.integrations._verl_plugin",
        "True compute_grpo_outcome_advantage",
    ], done.stderr


def test_a_plugin_loaded_after_verl_s_estimators_registers_at_once_and_a_name_that_is_taken_fails_no_import(
    monkeypatch, caplog
):
    from verl.trainer.ppo import core_algos

    monkeypatch.delitem(core_algos.ADV_ESTIMATOR_REGISTRY, "dpad")
    importlib.reload(_verl_plugin)
    assert core_algos.get_adv_estimator_fn("dpad") is _verl_plugin.dpad
    importlib.reload(_verl_plugin)  # another function of the same name
    assert "cannot register algorithm.adv_estimator=dpad" in caplog.text
