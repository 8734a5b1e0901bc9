"""What happens between steps: a log of metrics that cannot be written does not end a run."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, warnings
from pathlib import Path
from types import SimpleNamespace
from transformers import TrainerControl, TrainerState
from dpad_fast.train.callbacks import tensorboard

limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # a write beyond it fails, as on a full disk
args = SimpleNamespace(to_json_string=lambda: "{}", output_dir=sys.argv[1])
state, control = TrainerState(is_world_process_zero=True), TrainerControl()
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    callback = tensorboard(Path(sys.argv[1]))
    callback.on_train_begin(args, state, control)
    for step in range(100):
        state.global_step = step
        callback.on_log(args, state, control, logs={f"metric_{i}": 0.5 for i in range(10)})
    callback.on_train_end(args, state, control)
print(*[str(warning.message) for warning in seen if "nothing more" in str(warning.message)], sep="\\n")
"""


def run(folder, limit):
    command = [sys.executable, "-c", PROGRAM, str(folder), str(limit)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("limit", [0, 4096])
def test_tensorboard_on_a_full_disk_warns_once(tmp_path, limit):
    done = run(tmp_path / "tensorboard", limit)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'tensorboard'}: nothing more is written: File too large\n"
    assert "Traceback" not in done.stderr


def test_tensorboard_writes_every_metric(tmp_path):
    done = run(tmp_path, 10**7)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path)).Reload()
    assert len(events.Scalars("train/metric_3")) == 100
