"""Two processes of one run: the losses of one, one writer, and the way back after one of them is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml

pytest.importorskip("trl")

STEPS = 3
SETTINGS = {
    "policy": "policy-e",
    "steps": STEPS,
    "save_every": 1,
    "threads": 1,
    "tensorboard": False,
    "grpo": {"queries": 2, "generations": 4, "completion_tokens": 40, "paired_sampling": True},
    "evaluation": {"scenes": 4},
}


def launch(folder, processes, out):
    """A training of some processes in the background, in a process group of its own."""
    (folder / "run.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = ["-m", "dpad_fast"]
    if processes > 1:  # "multi_gpu" is the launcher's word for several processes; they find no GPU and take the CPU
        options = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
        options += ["--dynamo_backend", "no", "--main_process_port", str(port)]
        start = ["-m", "accelerate.commands.launch", *options, "-m", "dpad_fast"]
    command = [sys.executable, *start, "train", str(folder / "run.yaml"), "--out", str(out)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        env.pop(name, None)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True
    )


def workers_of(launcher):
    """The process numbers of what a launcher started."""
    rows = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout.split("\n")[1:]
    return [int(pid) for pid, parent in (row.split() for row in rows if row) if int(parent) == launcher.pid]


def ended(process):
    """Its standard output; fails with what it said where it did not end well."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err[-3000:]
    return out


def history(out):
    return json.loads((out / "training.json").read_text())["history"]


def curves(out):
    return [[line[key] for key in ("loss", "reward", "kl", "grad_norm", "learning_rate")] for line in history(out)]


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory):
    """The folders of the same run on one process and on two, and what two wrote to standard output."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "b").mkdir()
    one, two = launch(folder, 1, folder / "one"), launch(folder / "b", 2, folder / "two")
    ended(one)
    return folder / "one", folder / "two", ended(two)


def test_two_processes_have_the_losses_of_one(one_and_two):
    one, two, _ = one_and_two
    assert len(curves(one)) == STEPS
    for left, right in zip(curves(one), curves(two), strict=True):
        assert right == pytest.approx(left, abs=1e-5)
    assert any(line["reward_std"] > 0 for line in history(one))  # there was something to learn from


def test_one_of_them_writes_and_tells(one_and_two):
    _, two, said = one_and_two
    assert said.count(f"step {STEPS}/{STEPS}") == 1
    assert said.count("result.json") == 1
    names = {path.name for path in two.iterdir() if not path.name.startswith(".")}
    assert {"config.json", "before.json", "after.json", "training.json", "result.json", "policy"} <= names
    assert not [path for path in two.rglob("*") if path.suffix in {".partial", ".tmp"}]
    records = json.loads((two / "result.json").read_text())["records"]
    ids = [record["id"] for record in records["after"]]
    assert len(ids) == len(set(ids)) == SETTINGS["evaluation"]["scenes"]


def test_they_share_one_file_of_embeddings(one_and_two):
    _, two, _ = one_and_two
    from dpad_fast.clip import EmbeddingCache, load_encoder

    encoder = load_encoder("shapes", cache=EmbeddingCache(folder=two / "embeddings"))
    assert encoder.cache is not None
    assert any((two / "embeddings").iterdir())


def test_after_one_is_killed_the_same_command_goes_on(one_and_two, tmp_path):
    out = tmp_path / "killed"
    process = launch(tmp_path, 2, out)
    for _ in range(600):
        if (out / "checkpoint-1" / "complete.json").exists():
            break
        time.sleep(0.05)
    os.kill(max(workers_of(process)), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert "going on after step" in ended(launch(tmp_path, 2, out))
    for left, right in zip(curves(one_and_two[0]), curves(out), strict=True):
        assert right == pytest.approx(left, abs=1e-5)
