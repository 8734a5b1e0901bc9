import pytest

from dpad_fast import testing_rewards as shared


@pytest.fixture(scope="session")
def tiny():
    return shared.tiny_clip()
