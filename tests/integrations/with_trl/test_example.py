"""The example for TRL and the benchmark of trainers run as printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")
ROOT = Path(__file__).parents[3]


def test_the_example_runs(tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "trl_grpo.py")],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    steps = re.findall(r"^step (\d): reward (\d\.\d\d), unscored 0\.00$", done.stdout, re.MULTILINE)
    assert [number for number, _ in steps] == ["1", "2"]
    assert all(float(reward) > 0 for _, reward in steps)


def test_the_contest_compares_rewards_and_prints_seconds():
    pytest.importorskip("open_clip")
    command = ["-m", "bench.trainers", "--trainer", "trl", "--steps", "1", "--queries", "1", "--generations", "2"]
    done = subprocess.run(
        [sys.executable, *command, "--threads", "1"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    for way in ("one at a time", "dpad_fast", "dpad_fast, async"):
        assert re.search(rf"│ {way} +│ +\d+\.\d\d │ +\d+\.\d{{3}} │ +\d+\.\d │ +0 of 4 │", done.stdout), done.stdout
