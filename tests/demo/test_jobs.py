"""Workers end with the process that started them: when it is told to end, and when it is killed."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("trl")

from dpad_fast import cli
from dpad_fast.demo import jobs
from dpad_fast.demo.display import LiveDisplay, PlainDisplay
from dpad_fast.demo.jobs import Ended, Job, ended_by_signals
from dpad_fast.demo.settings import SETTINGS
from dpad_fast.lock import only_one

TWO_JOBS = """
import sys
from pathlib import Path
from dpad_fast.demo.display import PlainDisplay
from dpad_fast.demo.jobs import Job, run_jobs
from dpad_fast.demo.settings import SETTINGS

folder = Path(sys.argv[1])
setting = SETTINGS["E"]
run_jobs(
    [Job(arm, "train", setting.config(arm, 0, str(folder / arm)), folder / "before.json") for arm in setting.arms],
    PlainDisplay(),
    2,
)
"""


def children(pid):
    """Process numbers of a process's children."""
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def _heed_signals():
    """Whoever runs these tests may ignore signals (nohup, a shell's background), which a child would inherit."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def started(command, workers):
    """A process, and the numbers of its workers as soon as there are so many."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_signals
    )
    seen = 0
    for line in process.stdout:
        seen += line.rstrip().endswith("] started")
        if seen == workers:
            return process, children(process.pid)
    raise AssertionError(process.communicate()[1])


@pytest.fixture
def heeding():
    """This process heeds SIGHUP and SIGINT, even where it was started to ignore them."""
    before = [(name, signal.getsignal(name)) for name in (signal.SIGHUP, signal.SIGINT)]
    _heed_signals()
    yield
    for name, handler in before:
        signal.signal(name, handler)


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")


@needs_proc
@pytest.mark.parametrize(("told", "status"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_demo_that_is_told_to_end_ends_its_worker_and_says_so(tmp_path, told, status):
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "dpad_fast.cli", "demo", "--out", str(out)]
    process, workers = started(command, 1)
    assert len(workers) == 1
    process.send_signal(getattr(signal, told))
    said, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert not any(alive(worker) for worker in workers)
    assert "[E warm start] ended before it was done" in said
    assert ("interrupted" if told == "SIGINT" else f"ended by {told}") in errors
    assert len(errors.strip().splitlines()) == 1
    with only_one(out):  # nobody holds it
        pass


@needs_proc
def test_workers_end_by_themselves_when_the_demo_is_killed(tmp_path):
    process, workers = started([sys.executable, "-c", TWO_JOBS, str(tmp_path)], 2)
    assert len(workers) == 2
    with process:
        process.kill()
    limit = time.monotonic() + 60
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < limit
        time.sleep(0.05)
    logs = list(tmp_path.glob("*/job-train.log"))
    assert len(logs) == 2
    assert not any("BrokenPipe" in log.read_text() for log in logs)  # it ended, not failed to write


def test_a_worker_that_does_not_listen_is_killed(tmp_path, monkeypatch):
    """All workers are told to end before the first is waited for."""
    monkeypatch.setattr(jobs, "PATIENCE", 0.4)
    deaf = "import signal, sys; signal.signal(15, signal.SIG_IGN); print(1, flush=True); sys.stdin.read()"
    polite = "import sys; print(1, flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = []
    for code in (deaf, polite):
        process = subprocess.Popen([sys.executable, "-c", code], **pipes)
        process.stdout.readline()
        running.append(jobs._Running(None, process, tmp_path, 0.0, threading.Thread()))
    jobs._end(running)
    assert [worker.process.returncode for worker in running] == [-signal.SIGKILL, -signal.SIGTERM]
    for worker in running:
        worker.process.communicate()


def test_signals_are_given_back_and_the_first_one_counts(heeding):
    before = [signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)]

    def work():
        try:
            signal.raise_signal(signal.SIGHUP)
        finally:
            signal.raise_signal(signal.SIGTERM)  # while workers are being ended
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Ended) as told, ended_by_signals():
        work()
    assert (told.value.code, told.value.signal) == (129, "SIGHUP")
    assert [signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)] == before


def test_a_signal_that_was_ignored_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with ended_by_signals():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_demo_in_the_folder_is_refused(tmp_path, capsys):
    said = []

    def second():
        said.append(cli.main(["demo", "--out", str(tmp_path)]))

    with only_one(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert said == [2]
    assert f"{tmp_path} is in use by another run, process {os.getpid()}" in capsys.readouterr().err


def test_displays_tell_what_was_ended(tmp_path, capsys):
    job = Job("E", "train", SETTINGS["E"].config("with R_dpad", 0, str(tmp_path)), tmp_path / "before.json")
    with PlainDisplay() as plain:
        plain.stopped(job)
    assert capsys.readouterr().out == "[E] ended before it was done\n"
    with LiveDisplay() as live:
        live.started(job)
        live.stopped(job)
        live.stopped(Job("F", "train", job.config, job.before))
    assert capsys.readouterr().out.count("ended") >= 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_full_disk_is_the_workers_last_word(tmp_path, monkeypatch, capsys):
    from dpad_fast import experiment
    from dpad_fast.demo import worker

    def full(config, tell):
        raise OSError(28, "checkpoint-3/optimizer.pt could not be written:\nNo space left on device")

    monkeypatch.setattr(experiment, "run_experiment", full)
    config = SETTINGS["E"].config("with R_dpad", 0, str(tmp_path / "run"))
    order = tmp_path / "job.json"
    order.write_text(json.dumps({"kind": "train", "config": config.as_dict(), "before": str(tmp_path / "none")}))
    assert worker.main([str(order)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
