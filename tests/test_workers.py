"""Worker processes end with a parent that is killed and with an error beside them; a worker that is killed is named."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dpad_fast
from dpad_fast.workers import worker_pool

# Starts two workers that sleep for as long as the test may last, and prints their ids.
PARENT = """
import os, sys, time
sys.path.insert(0, {here!r})
from test_workers import working
from dpad_fast.workers import worker_pool
if __name__ == "__main__":
    with worker_pool(2) as pool:
        tasks = [pool.submit(working, {folder!r}) for _ in range(2)]
        tasks[0].result()
"""
_started: list[str] = []


def working(folder: str) -> None:
    (Path(folder) / f"{os.getpid()}.working").touch()
    time.sleep(300)


def begin(word: str) -> None:
    _started.append(word)


def begun() -> list[str]:
    return _started


def ended_by_the_system() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def ids(folder: Path, count: int) -> list[int]:
    """The processes that work, once there are `count`."""
    until = time.monotonic() + 60
    while len(found := [int(path.stem) for path in folder.glob("*.working")]) < count:
        assert time.monotonic() < until
        time.sleep(0.01)
    return found


def gone(process: int) -> bool:
    """Whether a process has ended, within 30 s; one that nobody has waited for yet has."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_killed_parent_takes_its_workers_along(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(here=str(Path(__file__).parent), folder=str(tmp_path)))
    path = os.pathsep.join([str(Path(dpad_fast.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    parent = subprocess.Popen([sys.executable, script], env={**os.environ, "PYTHONPATH": path})
    workers = ids(tmp_path, 2)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert all(map(gone, workers))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_beside_them_ends_them_at_once(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), worker_pool(1) as pool:  # noqa: PT012 - the whole block is tried
        pool.submit(working, str(tmp_path))
        (worker,) = ids(tmp_path, 1)
        raise error
    assert gone(worker)


def test_each_is_started_before_its_first_task() -> None:
    with worker_pool(1, begin, "a word") as pool:
        assert pool.submit(begun).result() == ["a word"]
    assert _started == []


def test_one_that_the_system_ends_is_an_error_in_a_line() -> None:
    said = r"one of 2 worker processes was ended from outside \(out of memory\?\)"
    with pytest.raises(OSError, match=said), worker_pool(2) as pool:
        pool.submit(ended_by_the_system).result()


def test_the_package_has_no_other_pool_of_processes() -> None:
    found = set()
    for file in Path(dpad_fast.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.partition(".")[0] for alias in node.names} | {getattr(node, "module", None)}
                if names & {"ProcessPoolExecutor", "multiprocessing"}:
                    found.add(file.name)
    assert found == {"workers.py"}


def failing(_: bytes) -> None:
    raise ValueError("the first task fails")


def hand_in_large_tasks() -> None:
    with worker_pool(2) as pool:
        tasks = [pool.submit(failing, bytes(1 << 20)) for _ in range(8)]
        tasks[0].result()


def test_an_error_ends_the_pool_beside_tasks_that_are_larger_than_their_pipe() -> None:
    with pytest.raises(ValueError, match="the first task fails"):
        hand_in_large_tasks()


def large(size: int) -> bytes:
    return bytes(size)


def stop_beside_large_results() -> None:
    with worker_pool(2) as pool:
        tasks = [pool.submit(large, 1 << 24) for _ in range(12)]
        tasks[0].result()
        raise KeyboardInterrupt


def test_an_interrupt_ends_the_pool_beside_results_that_are_half_written() -> None:
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            stop_beside_large_results()
