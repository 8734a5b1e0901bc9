"""A tiny CLIP for the tests of trainers; the tests of installed releases run in environments of their own."""

import os
import random

import pytest

from dpad_fast.testing import rewards as shared


def pytest_ignore_collect(collection_path, config):
    """Leaves out with_NAME folders but in their environment (environments.py) and where they are asked for by path."""
    if not collection_path.name.startswith("with_"):
        return None
    asked = os.environ.get("DPAD_FAST_INTEGRATION") == collection_path.name.removeprefix("with_")
    return None if asked or any(collection_path.name in str(argument) for argument in config.args) else True


@pytest.fixture(autouse=True)
def fixed_seeds():
    """The same random numbers in every run."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the generator that frameworks use
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny():
    return shared.tiny_clip()
