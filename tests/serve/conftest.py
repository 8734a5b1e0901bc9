"""A server in a process of its own on a free port of this machine, and the scorer that it must equal."""

import threading

import pytest

pytest.importorskip("fastapi")

import dpad_fast as df
from dpad_fast.serve.app import ScoreServer
from dpad_fast.serve.server import listen, runner
from dpad_fast.serve.settings import Settings
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


class Threaded:
    """A server in a thread of this process, for tests that need settings of their own but no process to kill."""

    def __init__(self, scorer, **settings):
        self.app = ScoreServer(scorer, Settings(**settings), "transformers guarded")
        self.socket, ready = listen("127.0.0.1", 0), threading.Event()
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.runner = runner(self.app, self.socket, lambda url: ready.set())
        self.thread = threading.Thread(target=self.runner.run, args=([self.socket],))
        self.thread.start()
        assert ready.wait(60)

    def stop(self):
        self.runner.should_exit = True
        self.thread.join(60)
        self.socket.close()
        assert not self.thread.is_alive()


@pytest.fixture
def start(scorer):
    """A function: settings -> a server in a thread, with `scorer` unless another is given."""
    started = []

    def start(scorer=scorer, **settings):
        started.append(Threaded(scorer, **settings))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def scorer():
    return df.RewardScorer(df.RewardConfig.preset("dpad", shape="margin"), df.load_encoder("shapes"))
