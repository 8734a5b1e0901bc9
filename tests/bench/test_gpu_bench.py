"""`bench.gpu` without a GPU: it refuses in one line, and its contestants agree, which the CPU can tell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


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


# pycocotools 2.0.11 raises this warning with NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_contestants_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.gpu.contests import contests

    compared = set()
    for contest in contests("cpu", count=6, height=60, width=250, pictures=2):
        calls, agreement, problems = contest.prepare(1)
        assert not problems
        compared.add(contest.op)
        for provider in (*contest.ours, *contest.peers):
            if provider.name not in calls or provider.agree == "other":
                continue
            word = agreement[provider.name]
            if "grey levels" in word:
                assert float(word.split()[2]) <= 3, (provider.name, word)
            elif word != "equal":
                assert float(word.split()[-1]) < 1e-5, (provider.name, word)
    assert compared == {"preprocess", "masks", "polygons", "advantage", "reward"}
