"""`bench.reward --device`, rehearsed on the CPU with a tiny model: compares, times, writes a row per contestant."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.filterwarnings("ignore::UserWarning")  # transformers: a processor without torchvision's fast path
def test_every_contestant_is_compared_and_timed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.reward import __main__ as door
    from bench.reward import work as ways
    from dpad_fast.testing import rewards

    model, processor = rewards.tiny_clip()
    monkeypatch.setattr(ways, "make_clip", lambda: (model, processor, processor))
    monkeypatch.setattr(ways, "WORDS", ["red", "cat", "table"])  # one token each
    options = ["--device", "cpu", "--queries", "1", "--runs", "1", "--threads", "1", "--out", str(tmp_path)]
    assert door.main(options) == 0
    assert "decisions agree" in capsys.readouterr().out
    with (tmp_path / "reward-gpu.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["contestant"] for row in rows]
    assert {"dpad_fast guarded, cold", "dpad_fast guarded, cold, JPEG bytes", "dpad_fast float32, images known"} <= {
        *names
    }
    assert sum(name.startswith("hand-written") for name in names) == 4
    assert all(float(row["p50_ms"]) > 0 for row in rows)
    exact = [row for row in rows if row["contestant"].startswith("dpad_fast float32")]
    assert all(float(row["error"]) < 1e-6 and row["wrong"] == "0" for row in exact)


def test_scripts_of_the_day_are_sound() -> None:
    for script in (ROOT / "bench" / "gpu" / "day").glob("*.sh"):
        assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    for path in ("tests/kernels", "tests/ops/test_cuda.py", "tests/clip/test_gpu_encoder.py"):
        assert (ROOT / path).exists()
        assert path in (ROOT / "bench" / "gpu" / "day" / "run.sh").read_text()
