"""Every benchmark that the registry names is there, draws nothing when it is imported, and its contestants agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

LOOK = """
import importlib, json, pkgutil, sys
import numpy, torch
import bench
from bench import registry
names = [m.name for m in pkgutil.walk_packages(bench.__path__, "bench.")] + [b.module for b in registry.BENCHMARKS.values()]
large = []
for name in dict.fromkeys(names):
    module = importlib.import_module(name)
    for key, value in vars(module).items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            size = item.nbytes if isinstance(item, (numpy.ndarray, torch.Tensor)) else 0
            if size > 1000:
                large.append(f"{name}.{key}")
doors = [b.module for b in registry.BENCHMARKS.values()
         if not callable(getattr(sys.modules[b.module], "contests" if b.kind == "contests" else "main", None))]
print(json.dumps([names, large, doors]))
"""  # noqa: E501


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=dict(os.environ), check=False, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


def test_importing_draws_nothing_and_every_door_opens() -> None:
    pytest.importorskip("open_clip")
    done = run("-c", LOOK)
    assert done.returncode == 0, done.stderr
    names, large, doors = json.loads(done.stdout)
    assert {"bench.cpu.masks", "bench.gpu.contests", "bench.reward.race", "bench.static.triton"} <= set(names)
    assert large == []
    assert doors == []


def test_what_there_is_and_what_there_is_not() -> None:
    listed = run("-m", "bench.run", "--list")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [
        "preprocess", "masks", "polygons", "advantage", "linear", "data", "reward", "hostile", "gpu", "gpu-static",
    ]  # fmt: skip
    unknown = run("-m", "bench.run", "maskz")
    assert unknown.returncode == 2
    assert "no CPU op is called 'maskz'; there are preprocess, masks" in unknown.stderr


def test_a_benchmark_of_its_own_takes_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench import linear, run

    seen: list[Any] = []
    monkeypatch.setattr(linear, "main", lambda arguments: seen.append(arguments) or 0)
    assert run.main(["linear", "--rounds", "1"]) == 0
    assert seen == [["--rounds", "1"]]


def test_hostile_completions_are_counted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench import hostile

    monkeypatch.setattr(hostile, "PRESETS", ("dpad",))
    assert hostile.main(["--count", "3"]) == 0
    assert "dpad" in capsys.readouterr().out


def test_a_set_is_made_and_read(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench import data

    assert data.main(["--rows", "3", "--radius", "20"]) == 0
    printed = capsys.readouterr().out
    assert "3 rows, 5 annotations each" in printed
    assert "refcoco" in printed
