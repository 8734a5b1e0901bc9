"""`bench.gpu` without a GPU: it refuses in one line, its contestants agree, and all of it runs on the CPU."""

from __future__ import annotations

import csv
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import dpad_fast as df

ROOT = Path(__file__).parents[2]
# pycocotools 2.0.11 raises the first with NumPy 2; kornia and transformers speak of what they will change.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    names = {"door": "bench.gpu.__main__", "registry": "bench.registry", "contests": "bench.gpu.contests"}
    names |= {"trainers": "bench.gpu.trainers", "clocks": "bench.gpu.clocks"}
    return SimpleNamespace(**{name: importlib.import_module(module) for name, module in names.items()})


@pytest.mark.skipif(torch.cuda.is_available(), reason="looks at what happens where there is no GPU")
def test_refuses_in_one_line_without_a_gpu() -> None:
    command = [sys.executable, "-m", "bench.gpu"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("bench.gpu: ")
    assert done.stderr.endswith("; nothing was timed\n")


def test_the_whole_run_on_the_cpu(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = bench.door.main(["--device", "cpu", "--tiny", "--runs", "9", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert (status, printed.splitlines()[-1]) == (0, "outputs agree"), printed
    with (tmp_path / "gpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["op"] for row in rows} == {"preprocess", "masks", "polygons", "advantage", "reward"}
    for row in rows:
        assert row["note"] == "", row
        times = [float(row[key]) for key in ("p20_us", "p50_us", "p80_us", "warm_us", "graph_us", "ratio")]
        assert min(times) > 0, row
        if row["kind"] == "other":
            continue
        if "grey levels" in row["agreement"]:
            assert float(row["agreement"].split()[2]) <= 3, row
        elif row["agreement"] != "equal":
            assert float(row["agreement"].split()[-1]) < 1e-5, row
    names = {row["provider"] for row in rows}
    assert {"torchvision v2, crops of one size at once", "transformers' fast processor"} <= names
    assert names >= {"pycocotools on the CPU", "pycocotools on the CPU, from run lengths"}


def contest(bench: Any, ours: Any, **peers: Any) -> Any:
    call, provider = bench.registry.call, bench.registry.Provider
    others = tuple(provider(name, call(function)) for name, function in peers.items())
    numbers = bench.contests.numbers(0.0)
    return bench.registry.Contest("op", "case", (provider("ours", call(ours)),), others, numbers)


def test_what_is_wrong_is_recorded_and_the_rest_is_timed(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, two = torch.ones(2), torch.full((2,), 2.0)

    def breaks() -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")

    def is_missing() -> torch.Tensor:
        raise ModuleNotFoundError("No module named 'peer'")

    made = contest(bench, lambda: one, same=lambda: one, differs=lambda: two, breaks=breaks, absent=is_missing)
    monkeypatch.setattr(bench.contests, "contests", lambda device: {"op": [made]})
    assert bench.door.main(["--device", "cpu", "--runs", "9", "--out", str(tmp_path)]) == 1
    with (tmp_path / "gpu.csv").open(newline="") as file:
        rows = {row["provider"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["ours", "same", "differs", "breaks"]
    assert rows["differs"]["note"] == "should agree exactly"
    assert rows["differs"]["agreement"] == "differs by up to 1.0e+00"
    assert rows["breaks"]["note"] == "failed: RuntimeError: CUDA error: an illegal memory access"
    assert [float(rows[name]["p50_us"] or 0) > 0 for name in rows] == [True, True, True, False]


def test_input_that_cannot_be_made_ends_its_op_only(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept: list[int] = []

    def breaks() -> Iterator[Any]:
        yield made
        kept.append(len((tmp_path / "gpu.csv").read_text().splitlines()))  # written after each case
        raise torch.OutOfMemoryError("CUDA out of memory\nby so much")

    made = contest(bench, lambda: torch.ones(2))
    monkeypatch.setattr(bench.contests, "contests", lambda device: {"masks": breaks(), "reward": [made]})
    assert bench.door.main(["--device", "cpu", "--runs", "9", "--out", str(tmp_path)]) == 1
    assert kept == [2]
    said = capsys.readouterr()
    line = "failed: masks, from here on: OutOfMemoryError: CUDA out of memory"
    assert (said.err.splitlines(), said.out.splitlines()[-1]) == ([line], line)
    with (tmp_path / "gpu.csv").open(newline="") as file:
        assert [float(row["p50_us"]) > 0 for row in csv.DictReader(file)] == [True, True]


@pytest.mark.parametrize("where", ["call", "replay", "time"])
def test_a_graph_that_fails_costs_no_other(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str
) -> None:
    graphs: list[int] = []

    def breaks() -> None:
        raise RuntimeError("CUDA error: out of memory")

    class Breaking(bench.clocks.CpuClock):  # type: ignore[misc, name-defined]
        def captured(self, call: Any) -> Any:
            graphs.append(0)
            return (breaks if where == "replay" and len(graphs) == 1 else call), call()

        def time(self, call: Any) -> float:
            if where == "time" and len(graphs) == 1:
                breaks()
            return super().time(call)  # type: ignore[no-any-return]

    def ours() -> torch.Tensor:
        if where == "call" and len(graphs) == 1:
            graphs[0] += 1
            if graphs[0] > 1:  # the first is the one that is captured
                breaks()
        return torch.ones(2)

    made = contest(bench, ours, peer=lambda: torch.ones(2))
    monkeypatch.setattr(bench.contests, "contests", lambda device: {"op": [made]})
    monkeypatch.setattr(bench.door, "CpuClock", Breaking)
    assert bench.door.main(["--device", "cpu", "--runs", "9", "--out", str(tmp_path)]) == 1
    with (tmp_path / "gpu.csv").open(newline="") as file:
        mine, peer = csv.DictReader(file)
    assert (mine["graph_us"], mine["note"]) == ("", "failed as a graph: RuntimeError: CUDA error: out of memory")
    assert (float(mine["p50_us"]) > 0, float(peer["graph_us"]) > 0, peer["note"]) == (True, True, "")
    assert capsys.readouterr().out.splitlines()[-1] == "wrong: case: ours"


def test_a_cache_that_cannot_be_flushed_ends_no_run(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An error of the call before is met by the next that waits for the device."""

    class Broken(bench.clocks.CpuClock):  # type: ignore[misc, name-defined]
        def flush(self) -> None:
            raise RuntimeError("CUDA error: an illegal memory access")

    made = contest(bench, lambda: torch.ones(2))
    monkeypatch.setattr(bench.contests, "contests", lambda device: {"op": [made]})
    monkeypatch.setattr(bench.door, "CpuClock", Broken)
    assert bench.door.main(["--device", "cpu", "--runs", "9", "--out", str(tmp_path)]) == 1
    with (tmp_path / "gpu.csv").open(newline="") as file:
        (ours,) = csv.DictReader(file)
    assert ours["note"] == "failed when timed flushed: RuntimeError: CUDA error: an illegal memory access"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--only", "typo", "--tiny", "--device", "cpu"], "--only: no case has 'typo' in its op or name"),
        (["--device", "foo"], "argument --device: invalid choice: 'foo'"),
        (["--device", "cuda:1"], "argument --device: invalid choice: 'cuda:1'"),
    ],
)
def test_what_was_mistyped_is_named(
    bench: Any, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.door.main(options)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_only_a_whole_run_on_a_gpu_goes_to_the_results(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    results, there = importlib.import_module("bench.results"), tmp_path / "results"
    monkeypatch.setattr(results, "FOLDER", there)
    made = contest(bench, lambda: torch.ones(2))
    monkeypatch.setattr(bench.contests, "contests", lambda device, **tiny: {"op": [made]})
    monkeypatch.setattr(bench.door, "missing", lambda: None)
    monkeypatch.setattr(bench.door, "GpuClock", lambda device: bench.clocks.CpuClock())  # stands for the GPU
    monkeypatch.setattr(results, "day", lambda device: {"driver": ""})
    monkeypatch.setattr(results, "name_of", lambda device: "GPU")
    for part in (["--device", "cpu"], ["--tiny"], ["--only", "case"]):
        assert bench.door.main(["--runs", "9", *part]) == 0
        assert not there.exists()
        asked = tmp_path / part[0]
        assert bench.door.main(["--runs", "9", *part, "--out", str(asked)]) == 0
        assert [file.name for file in asked.iterdir()] == ["gpu.csv"]
    assert bench.door.main(["--runs", "9"]) == 0
    assert [file.name for file in there.iterdir()] == ["gpu.csv"]


def test_graphs_come_last_and_are_held_against_the_call(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    class Recording(bench.clocks.CpuClock):  # type: ignore[misc, name-defined]
        def captured(self, call: Any) -> Any:
            asked.append((tmp_path / "gpu.csv").read_text())
            if len(asked) == 1:
                raise RuntimeError("operation not permitted when stream is capturing")
            return (lambda: None), call() + 1

    made = contest(bench, lambda: torch.ones(2), peer=lambda: torch.ones(2))
    monkeypatch.setattr(bench.contests, "contests", lambda device: {"op": [made]})
    monkeypatch.setattr(bench.door, "CpuClock", Recording)
    assert bench.door.main(["--device", "cpu", "--runs", "9", "--out", str(tmp_path)]) == 1
    assert len(asked) == 2
    assert "ours" in asked[0]  # what was timed is safe before the first capture
    with (tmp_path / "gpu.csv").open(newline="") as file:
        ours, peer = csv.DictReader(file)
    assert ours["note"] == "no graph: RuntimeError: operation not permitted when stream is capturing"
    assert peer["note"] == "another result from the graph: differs by up to 1.0e+00"
    assert (ours["graph_us"], float(ours["p50_us"]) > 0) == ("", True)


def test_nothing_is_timed_once_or_when_time_is_up(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--device", "cpu", "--tiny", "--out", str(tmp_path)]
    assert bench.door.main([*options, "--once", "--only", "reward"]) == 0
    assert bench.door.main([*options, "--seconds", "0", "--only", "reward"]) == 0
    assert "no time for reward: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_lines_of_trl_are_those_that_ours_equals(bench: Any) -> None:
    pytest.importorskip("trl")
    rewards = torch.randn(64)
    found = bench.trainers.trl(8)(rewards[:, None])
    torch.testing.assert_close(found, df.ops.group_advantage(rewards, 8, eps=1e-4), atol=1e-6, rtol=0)
    rewards[3] = torch.nan  # an unscored completion gets nothing, and its group is scored without it
    found = bench.trainers.trl(8)(rewards[:, None])
    torch.testing.assert_close(found, df.ops.group_advantage(rewards, 8, eps=1e-4), atol=1e-6, rtol=0)


def test_functions_of_a_package_that_cannot_be_imported(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verl whose modules import what is not installed; its functions are its own."""
    for file, text in {
        "verl/__init__.py": "import nothing_of_this_name",
        "verl/utils/groupwise.py": "from verl.utils.device import x\ndef group_mean(x):\n    return x.mean()\n",
        "verl/trainer/ppo/core_algos.py": (
            "from omegaconf import DictConfig\n"
            "@register('grpo')\n"
            "def compute(scores, config: DictConfig = None) -> AlgoConfig:\n"
            "    return scores - group_mean(scores), defaultdict(list)\n"
        ),
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    compute = bench.trainers.verl("compute")
    assert compute(torch.tensor([1.0, 3.0]))[0].tolist() == [-1, 1]
    with pytest.raises(ImportError, match="this release of verl has no another"):
        bench.trainers.verl("another")
    with pytest.raises(ImportError, match=r"this release of verl has no nowhere\.py"):
        bench.trainers.functions("verl", "nowhere.py", {})
    with pytest.raises(ImportError, match="nobody_has_this is not installed"):
        bench.trainers.functions("nobody_has_this", "x.py", {})


def test_boxes_are_of_different_sizes(bench: Any) -> None:
    crops = importlib.import_module("bench.gpu.crops")
    boxes = [crops._box(i, 480, 640) for i in range(16)]
    assert len({(right - left, bottom - top) for left, top, right, bottom in boxes}) == 16
    assert np.array(boxes).min() >= 0
    assert all(right <= 640 and bottom <= 480 for _, _, right, bottom in boxes)


def test_the_driver_is_read(bench: Any, tmp_path: Path) -> None:
    results = importlib.import_module("bench.results")
    said = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (dvs-builder)\nGCC"
    (tmp_path / "version").write_text(said)
    assert results.driver(tmp_path / "version") == "580.159.04"
    assert results.driver(tmp_path / "nowhere") == "unknown"


class Gpu:
    """Stands for `torch.cuda`: records what is done on which stream, and counts milliseconds by events."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.now = 0.0
        self.stream_now = "main"

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("synchronize", "current_stream", "stream", "graph", "Stream", "Event", "CUDAGraph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def synchronize(self) -> None:
        self.done.append("synchronize")

    def current_stream(self) -> Any:
        return SimpleNamespace(
            name=self.stream_now, wait_stream=lambda other: self.done.append(f"main waits for {other.name}")
        )

    def Stream(self) -> Any:
        return SimpleNamespace(name="side", wait_stream=lambda other: self.done.append(f"side waits for {other.name}"))

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self.stream_now = stream.name
        yield
        self.stream_now = "main"

    @contextmanager
    def graph(self, graph: Any) -> Iterator[None]:
        self.done.append("capture")
        yield
        self.done.append("captured")

    def CUDAGraph(self) -> Any:
        return SimpleNamespace(replay=lambda: self.done.append("replay"))

    def Event(self, enable_timing: bool) -> Any:
        event = SimpleNamespace(at=None, synchronize=lambda: self.done.append("event"))
        event.record = lambda: setattr(event, "at", self.now)
        event.elapsed_time = lambda other: other.at - event.at
        return event


def test_a_gpus_clock(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu()
    gpu.patch(monkeypatch)
    monkeypatch.setattr(bench.clocks, "CACHE", 64)
    clock = bench.clocks.GpuClock(torch.device("cpu"))

    made = torch.ones(2)

    def call() -> torch.Tensor:
        gpu.now += 0.25
        gpu.done.append(f"call on {gpu.stream_now}")
        return made

    assert clock.time(call) == 250.0  # microseconds
    assert gpu.done == ["call on main", "event"]
    gpu.done.clear()
    with pytest.raises(RuntimeError, match="works on the host"):
        bench.clocks.GpuClock.captured(SimpleNamespace(device=torch.device("cuda")), call)
    assert "capture" not in gpu.done
    gpu.done.clear()
    replay, result = clock.captured(call)
    replay()
    assert result is made
    warm = ["side waits for main", "call on side", "call on side", "main waits for side", "synchronize"]
    assert gpu.done == [*warm, "capture", "call on main", "captured", "replay"]
    clock.flush()
    assert gpu.done[-1] == "synchronize"


def test_everyone_is_first_as_often_as_the_others(bench: Any) -> None:
    turns = ["".join(bench.clocks.beginning_with("abc", turn)) for turn in range(4)]
    assert turns == ["abc", "bca", "cab", "abc"]
    assert bench.clocks.beginning_with([], 3) == []
