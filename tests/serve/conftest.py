"""A server in a process of its own on a free port of this machine, and the scorer that it must equal."""

import pytest

import dpad_fast as df
from dpad_fast.testing.serving import Running


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A folder of pictures, the server's `--root`."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="session")
def running(root):
    server = Running("--set", "shape=margin", "--root", root, "--window-ms", 2, "--queue", 3000)
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def start():
    """`Running`, for servers of a test's own."""
    return Running


@pytest.fixture(scope="session")
def scorer():
    return df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), df.load_encoder("shapes"))
