"""A tiny Qwen2.5-VL, a data set that was prepared, and verl's configuration."""

import os

import pytest

from dpad_fast.testing.verl import SIZE, configuration

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 lets its workers starve on a machine that is busy


@pytest.fixture(scope="session")
def policy(tmp_path_factory):
    """The folder of a policy with Qwen2.5-VL's processor and a tokenizer over bytes."""
    from dpad_fast.train.tiny_policy import write_tiny_policy

    return write_tiny_policy(tmp_path_factory.mktemp("policy"), "Qwen/Qwen2.5-VL-3B-Instruct")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Six scenes as `dpad-fast data prepare` writes them, in two files."""
    from dpad_fast.data.prepare import prepare

    folder = tmp_path_factory.mktemp("prepared")
    prepare("shapes:3:6", folder / "set", size="{}x{}".format(*SIZE), shard_rows=4)
    return folder / "set"


@pytest.fixture(scope="session")
def configured(policy):
    """The example's configuration for the tiny policy, with overrides and settings of the reward."""

    def make(*overrides, kwargs=None):
        return configuration(policy, *overrides, kwargs=kwargs)

    return make


@pytest.fixture(scope="session")
def tokenizer(policy):
    from verl.utils import hf_tokenizer

    return hf_tokenizer(str(policy))


@pytest.fixture(scope="session")
def processor(policy):
    from verl.utils import hf_processor

    return hf_processor(str(policy))


@pytest.fixture(scope="session")
def dataset(prepared, configured, tokenizer, processor):
    """The prepared data set through the class that verl's configuration names."""
    from verl.utils.dataset.rl_dataset import get_dataset_class

    config = configured(f"data.train_files={prepared}/train-*.parquet", "data.filter_overlong_prompts=true")
    made = get_dataset_class(config.data)
    return made(config.data.train_files, tokenizer=tokenizer, config=config.data, processor=processor)
