"""A tiny CLIP, and an encoder of it, for the tests of this folder."""

import pytest

import dpad_fast as df
from dpad_fast.testing import rewards as shared


@pytest.fixture(scope="session")
def tiny():
    return shared.tiny_clip()


@pytest.fixture(scope="session")
def encoder(tiny):
    return df.ClipEncoder.from_transformers(*tiny)
