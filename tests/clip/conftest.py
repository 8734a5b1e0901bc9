"""A CLIP of a few thousand random weights, shared by the tests of encoders."""

import pytest

from dpad_fast.testing import rewards as shared


@pytest.fixture(scope="session")
def tiny():
    return shared.tiny_clip()
