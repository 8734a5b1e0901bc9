"""`dpad-fast evaluate --policy`: its options, its side file, kills and processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from dpad_fast import cli
from dpad_fast.data import forms, rows
from dpad_fast.train.tiny_policy import write_tiny_policy

SHAPES = ("--policy", "policy-e", "--data", "shapes:7:4", "--segmenter", "background")


@pytest.fixture(autouse=True)
def one_thread():
    """As the processes have that are started here: sums in another order could change what greedy decoding takes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_policy(tmp_path_factory.mktemp("tiny") / "policy", "Qwen/Qwen2.5-VL-3B-Instruct")


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def environment():
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        env.pop(name, None)
    return env


def start(*arguments, processes=1):
    """The command in the background, in a process group of its own."""
    command = ["-m", "dpad_fast"]
    if processes > 1:  # "multi_gpu" is the launcher's word for several processes; they find no GPU and take the CPU
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
        options += ["--dynamo_backend", "no", "--main_process_port", str(port)]
        command = ["-m", "accelerate.commands.launch", *options, "-m", "dpad_fast"]
    return subprocess.Popen(
        [sys.executable, *command, "evaluate", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True,
    )  # fmt: skip


def kill_when(process, path, lines):
    """Kills a process, and it alone, once a file has so many lines."""
    for _ in range(6000):
        if path.is_file() and path.read_bytes().count(b"\n") >= lines:
            break
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


def gone(group):
    """Whether no process of a group is left, within some seconds."""
    for _ in range(200):
        rows = subprocess.run(["ps", "-eo", "pgid,stat"], capture_output=True, text=True, check=True).stdout.split("\n")
        if not [row for row in rows[1:] if row.split()[:1] == [str(group)] and "Z" not in row.split()[1]]:
            return True
        time.sleep(0.05)
    return False


def test_the_answers_go_through_the_ruler(tmp_path, run, measured):
    out = tmp_path / "o.json"
    run("evaluate", *SHAPES, "--tokens", 100, "--json", out, "--protocol", "all")
    found = json.loads(out.read_text())
    assert (found["n"], found["missing"], found["completions"]) == (4, 0, 4)
    assert found["protocols"]["strict"]["gIoU"] > 0.9  # it was trained on this world
    assert set(found["policy"]) == {"name", "prompt", "system", "samples", "temperature", "seed", "batch", "tokens"}
    side = tmp_path / "o.json.completions.jsonl"
    again, _ = measured("--predictions", side, "--data", "shapes:7:4", "--segmenter", "background", "--protocol", "all")
    assert again["records"] == found["records"]
    assert again["protocols"] == found["protocols"]


def test_options_reach_the_policy(tmp_path, run, monkeypatch):
    seen = []

    def record(path, samples, asking, asked, device, progress):
        names = [sample.id for sample in samples()]
        seen.append((asking, asked["form"], str(device), progress))
        text = json.dumps({"bbox_2d": [0, 0, 4, 4]})
        path.write_text("".join(json.dumps({"id": name, "completion": text}) + "\n" for name in names))
        return len(names)

    monkeypatch.setattr("dpad_fast.evaluate.completions.write_completions", record)
    side = tmp_path / "new" / "c.jsonl"
    run(
        "evaluate", "--policy", "p", "--data", "shapes:7:3", "--form", "shapes", "--completions", side, "--quiet",
        "--prompt-template", "seg-zero", "--system", "s", "--coordinates", "norm1", "--batch", "3", "--temperature",
        "0.5", "--samples", "2", "--tokens", "9", "--seed", "4", "--device", "cpu", "--format", "qwen3-vl",
        "--segmenter", "box", "--workers", "1", "--table", "markdown", "--tokenizer", "words",
    )  # fmt: skip
    ((asking, form, device, progress),) = seen
    assert (asking.prompt, asking.system, asking.coordinates, asking.format) == ("seg-zero", "s", "norm1", "qwen3-vl")
    assert (asking.batch, asking.temperature, asking.samples, asking.tokens, asking.seed) == (3, 0.5, 2, 9, 4)
    assert (asking.policy, form, device, progress) == ("p", "shapes", "cpu", None)
    assert len(lines_of(side)) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--policy", "policy-e"), "--data FOLDER is missing"),
        ((*SHAPES, "--shapes", "3"), "--policy is given and --shapes, too"),
        ((*SHAPES, "--predictions", "x"), "--policy is given and predictions, too"),
        ((*SHAPES, "--missing", "skip"), "--missing goes with predictions, not with --policy"),
        ((*SHAPES, "--processor", "x"), "--processor goes with predictions, not with --policy"),
        ((*SHAPES, "--samples", "2"), "samples is 2, but greedy"),
        ((*SHAPES, "--batch", "0"), "batch must be at least 1"),
        ((*SHAPES, "--temperature", "-1"), "temperature must be"),
        ((*SHAPES, "--prompt-template", "x"), "prompt template is 'x'"),
        ((*SHAPES, "--coordinates", "x"), "coordinates must be one of"),
        ((*SHAPES, "--protocol", "x"), "--protocol 'x' is unknown"),
        ((*SHAPES, "--device", "x"), "device 'x'"),
        ((*SHAPES, "--completions", "-"), "--completions must be a file"),
        (("p.jsonl", "--data", "d", "--tokens", "3"), "--tokens goes with --policy, not with predictions"),
        (("policy-e", "--shapes", "3", "--batch", "3"), "--batch goes with --policy, not with --shapes"),
    ],
)
def test_what_does_not_go_is_refused(refused, arguments, said):
    assert said in refused("evaluate", *arguments)


def test_a_picture_that_is_broken_is_named_and_left_out(tmp_path, world, measured):
    folder, samples, _ = world
    (folder / f"{samples[2].id}.json").write_text("{")
    found, _ = measured("--policy", "policy-e", "--data", folder, "--tokens", "2", "--quiet")
    assert (found["n"], found["missing"]) == (2, 0)
    assert any("1 files of the data cannot be read" in note for note in found["notes"])


@pytest.mark.parametrize("form", ["reasonseg", "rows"])
def test_killed_and_started_again_it_ends_with_the_same_bytes(tmp_path, tiny, shared, form, capsys):
    data = shared.shared_data()
    if form == "rows":
        samples = [replace(sample, image=str(sample.image)) for sample in forms.load(data)]
        rows.write(samples, tmp_path / "rows.jsonl")
        data = tmp_path / "rows.jsonl"
    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    asked = ("--policy", tiny, "--data", data, "--batch", 1, "--tokens", 24, "--protocol", "all")
    side = tmp_path / "cut.json.completions.jsonl"
    kill_when(start(*asked, "--json", cut), side, 2)
    assert side.read_bytes().count(b"\n") < 6
    assert not cut.exists()
    for out in (whole, cut):
        assert cli.main(["evaluate", *map(str, asked), "--json", str(out)]) == 0
        assert ("going on after" in capsys.readouterr().err) == (out == cut)
    assert cut.read_bytes() == whole.read_bytes()
    assert side.read_bytes() == (tmp_path / "whole.json.completions.jsonl").read_bytes()
    records = json.loads(cut.read_text())["records"]
    assert [record["text"] for record in records] == [line["completion"] for line in lines_of(side)]
    assert len(records) == 6


def test_two_processes_have_the_records_of_one(tmp_path, tiny, shared):
    asked = ("--policy", tiny, "--data", shared.shared_data(), "--batch", "2", "--tokens", "10")
    two = start(*asked, "--json", tmp_path / "two.json", processes=2)
    one = start(*asked, "--json", tmp_path / "one.json")
    for process in (one, two):
        said = process.communicate(timeout=120)
        assert process.returncode == 0, said[1][-3000:]
    assert said[0].count("wrote") == 1
    assert (tmp_path / "two.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    assert len(lines_of(tmp_path / "two.json.completions.jsonl")) == 6


def test_measuring_with_workers_is_killed_and_goes_on(tmp_path, shared, capsys):
    folder = shared.shared_data()
    answers = shared.polygons_as_answers(list(forms.load(folder))) * 250
    path = shared.write(tmp_path / "p.jsonl", answers)
    asked = ("--predictions", path, "--data", folder, "--workers", 2, "--json")
    cut, whole = tmp_path / "cut.json", tmp_path / "whole.json"
    process = start(*asked, cut)
    kill_when(process, tmp_path / "cut.json.part", 4)
    assert gone(process.pid)  # its workers, too
    assert (tmp_path / "cut.json.part").read_bytes().count(b"\n") < 1500 // 32
    assert not cut.exists()
    for out in (whole, cut):
        assert cli.main(["evaluate", *map(str, asked), str(out)]) == 0
        assert ("going on after" in capsys.readouterr().err) == (out == cut)
    assert cut.read_bytes() == whole.read_bytes()
    assert len(json.loads(cut.read_text())["records"]) == 1500
