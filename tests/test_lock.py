"""Two runs in one folder: the second is refused by name, and nothing is left of a lock whose holder died."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from dpad_fast.lock import NAME, hold, only_one

HOLD = (
    "import sys; from pathlib import Path; from dpad_fast.lock import only_one\n"
    "with only_one(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds tmp_path / "run"."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_process_is_refused_until_the_first_is_dead(tmp_path, holder):
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match=rf"run is in use by another run, process {holder.pid}:"), only_one(folder):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with only_one(folder):
        assert (folder / NAME).read_text() == f"{os.getpid()}\n"
    with only_one(folder):  # given back
        pass


def test_the_same_thread_may_and_another_may_not(tmp_path):
    said = []

    def other():
        try:
            with only_one(tmp_path / "link" / ".." / "run"):
                said.append("held")
        except ValueError as error:
            said.append(str(error))

    (tmp_path / "link").mkdir()
    with only_one(tmp_path / "run"):
        with only_one(tmp_path / "run"):
            pass
        thread = threading.Thread(target=other)  # the inner one must not have given it back
        thread.start()
        thread.join()
    assert f"process {os.getpid()}" in said[0]
    other()
    assert said[1:] == ["held"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_train_and_experiment_are_refused_before_they_touch_the_folder(tmp_path, holder):
    pytest.importorskip("trl")
    from dpad_fast.experiment import run_experiment
    from dpad_fast.train import run as training
    from dpad_fast.train.config import from_dict

    config = from_dict({"out": str(tmp_path / "run"), "steps": 1, "evaluation": {"scenes": 0}})
    for start in (training.train, run_experiment):
        with pytest.raises(ValueError, match=f"in use by another run, process {holder.pid}"):
            start(config)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [NAME]


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch):
    import fcntl

    def refuse(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="cannot be locked"), only_one(tmp_path):
        pass


def test_a_folder_can_be_held_without_a_mark(tmp_path):
    folder = tmp_path / "run"
    with only_one(folder, mark=False):
        with only_one(folder, mark=False):  # the same thread
            pass
        body = f"with only_one(Path({str(folder)!r}), False): pass"
        code = f"from pathlib import Path; from dpad_fast.lock import only_one\n{body}"
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert told.returncode == 1
        assert "is in use by another run, process unknown" in told.stderr
        assert list(folder.iterdir()) == []
    with only_one(folder, mark=False):  # given back
        pass


def test_an_open_file_is_held_until_it_is_closed(tmp_path):
    path = tmp_path / "x.part"
    path.touch()
    with path.open() as first, path.open() as second:
        hold(first.fileno(), path)
        with pytest.raises(ValueError, match=r"x\.part is in use by another run"):
            hold(second.fileno(), path)
    with path.open() as third:
        hold(third.fileno(), path)
        path.unlink()
    with (tmp_path / "y").open("w") as late:
        (tmp_path / "y").unlink()
        with pytest.raises(ValueError, match="another run's, which has just ended"):
            hold(late.fileno(), tmp_path / "y")
