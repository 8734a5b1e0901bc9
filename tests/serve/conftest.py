"""A server in a process of its own on a free port of this machine, and the scorer that it must equal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import dpad_fast as df

ROOT = Path(__file__).parents[2]


class Running:
    """A `dpad-fast serve` process."""

    def __init__(self, *options: object, port: int = 0) -> None:
        command = [sys.executable, "-m", "dpad_fast.cli", "serve", "--encoder", "shapes", "--port", str(port)]
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [*command, *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert " on http://" in line, line + (self.process.stderr.read() if self.process.stderr else "")
        self.url = line.split()[-1]
        self.port = int(self.url.rpartition(":")[2])

    def stop(self, how: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            status = self.process.wait(timeout=60)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()
            self.process.stderr.close()
        return status


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
