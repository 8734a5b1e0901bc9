"""A run's settings as TRL gets them: shares of a step, vLLM, sharding, precision."""

import json

import pytest

pytest.importorskip("trl")

from dpad_fast.train.config import from_dict
from dpad_fast.train.grpo_arguments import _sharding, grpo_arguments, per_device
from dpad_fast.train.policy import quiet
from dpad_fast.train.sections import VllmConfig


def test_a_step_is_shared_by_the_processes(monkeypatch, tmp_path):
    config = from_dict({"out": str(tmp_path), "grpo": {"queries": 4, "generations": 4, "accumulate": 2}})
    for processes, each in ((1, 8), (2, 4), (4, 2)):
        assert per_device(config, processes) == each
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match=r"= 16 completions a step cannot be shared evenly by 3 processes with"):
        grpo_arguments(config, [1.0])


def test_vllm_settings_are_trls_own():
    from trl import GRPOConfig

    assert VllmConfig().arguments() == {}
    colocate = VllmConfig(mode="colocate", tensor_parallel_size=2, max_model_length=2600, enable_sleep_mode=True)
    assert colocate.arguments() == {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": 0.3,
        "vllm_max_model_length": 2600,
        "vllm_tensor_parallel_size": 2,
        "vllm_enable_sleep_mode": True,
    }
    server = VllmConfig(mode="server", server_base_url="http://a:1", group_port=9).arguments()
    assert server["vllm_server_base_url"] == "http://a:1"
    assert server["vllm_group_port"] == 9
    assert {*colocate.arguments(), *server} <= set(GRPOConfig.__dataclass_fields__)


def test_the_order_of_rows_follows_the_setting(tmp_path):
    for shuffle in (False, True):
        config = from_dict({"out": str(tmp_path), "data": {"shuffle": shuffle}})
        with quiet():
            assert grpo_arguments(config, [1.0]).shuffle_dataset is shuffle


def test_the_file_of_fsdp_is_read(tmp_path):
    path = tmp_path / "fsdp.yaml"
    config = from_dict({"device": "auto", "grpo": {"fsdp": str(path)}})
    path.write_text(json.dumps({"version": 2}))
    assert _sharding(config) == {"fsdp": True, "fsdp_config": {"version": 2}}
    path.write_text("[1")
    with pytest.raises(ValueError, match=r"grpo\.fsdp: .*fsdp\.yaml cannot be read"):
        _sharding(config)
    path.write_text("- a")
    with pytest.raises(ValueError, match=r"grpo\.fsdp: .* must hold a mapping of settings, got list"):
        _sharding(config)
