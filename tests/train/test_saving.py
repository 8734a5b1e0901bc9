"""A checkpoint under faults: a full disk, weights that broke, rotted files, pickled payloads."""

import errno
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys

import pytest
import torch

pytest.importorskip("trl")

import safetensors.torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from dpad_fast import cli
from dpad_fast.evaluate.asking import asking_of
from dpad_fast.train import resume, saving
from dpad_fast.train import run as training
from dpad_fast.train.config import from_dict
from dpad_fast.train.policy import load_policy
from dpad_fast.train.resume import MARKER, is_complete, last_complete, numbered, read_json
from dpad_fast.train.trainer import DpadTrainer

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def tiny(policy, out, **changes):
    values = {
        "policy": str(policy),
        "out": str(out),
        "steps": 3,
        "save_every": 1,
        "keep": 2,
        "tensorboard": False,
        "rewards": {"preset": "seg-zero"},
        "grpo": {"queries": 2, "generations": 2, "completion_tokens": 4, "beta": 0.5},
        "evaluation": {"scenes": 0},
        **changes,
    }
    return from_dict(values)


@pytest.fixture(scope="module")
def finished(random_policy, tmp_path_factory):
    """The folder of a run of three steps; checkpoints 2 and 3 are kept."""
    out = tmp_path_factory.mktemp("finished") / "run"
    training.train(tiny(random_policy, out))
    return out


@pytest.fixture
def killed(finished, tmp_path):
    """A copy of it as a kill after step 3 leaves it: no policy yet."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    shutil.rmtree(out / "policy")
    (out / "training.json").unlink()
    return out


def test_the_marker_lists_every_file(finished):
    assert [step for step, _ in numbered(finished)] == [2, 3]
    for step, folder in numbered(finished):
        files = read_json(folder / MARKER)["files"]
        assert set(files) == {path.name for path in folder.iterdir()} - {MARKER}
        assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= set(
            files
        )
        assert is_complete(folder)
        assert step == read_json(folder / MARKER)["step"]
    assert resume.damage(finished / "policy") is None
    assert not list(finished.glob(".policy*"))


@pytest.mark.parametrize("name", ["optimizer.pt", "model.safetensors", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("harm", ["inverted", "missing"])
def test_a_run_goes_on_from_the_checkpoint_before_the_damage(random_policy, finished, killed, name, harm):
    """The policy's weights are those of a run without faults, within 1e-6."""
    path = killed / "checkpoint-3" / name
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))
    with pytest.warns(RuntimeWarning, match=rf"checkpoint-3 is not used: {name} .*; going on from checkpoint-2$"):
        result = training.train(tiny(random_policy, killed))
    assert result["resumed_at"] == 2
    whole = load_file(str(finished / "policy" / "model.safetensors"))
    again = load_file(str(killed / "policy" / "model.safetensors"))
    for key, weight in whole.items():
        torch.testing.assert_close(again[key], weight, rtol=0, atol=1e-6)
    assert is_complete(killed / "checkpoint-3")


def test_a_finished_policy_that_rotted_is_made_again_from_the_last_checkpoint(random_policy, finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    weights = out / "policy" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + bytes(255 - byte for byte in whole[-4:]))
    with pytest.warns(RuntimeWarning, match=r"policy is made again: model\.safetensors has other content"):
        assert training.train(tiny(random_policy, out))["resumed_at"] == 3
    assert weights.read_bytes() == whole


def test_a_policy_whose_saving_was_interrupted_is_named_and_made_again(random_policy, finished, tmp_path, capsys):
    """A folder without its marker, as a copy that stopped half-way leaves it."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    (out / "policy" / MARKER).unlink()
    for load in (load_policy, lambda folder: asking_of(str(folder)).load(torch.device("cpu"))):
        with pytest.raises(
            ValueError, match=r"run/policy' has no complete\.json: saving was interrupted; run the train"
        ):
            load(out / "policy")
    with pytest.raises(ValueError, match="saving was interrupted"):
        training.load_run_policy(tiny(out / "policy", tmp_path / "next"))
    with pytest.warns(RuntimeWarning, match=r"policy is made again: it has no complete\.json"):
        assert training.train(tiny(random_policy, out))["resumed_at"] == 3
    assert load_policy(out / "policy")[0].num_parameters() > 0
    weights = out / "policy" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"is not as it was saved: model\.safetensors has \d+ bytes"):
        load_policy(out / "policy")
    shutil.copytree(finished / "policy", tmp_path / "policy")  # no run's: such folders have no markers
    (tmp_path / "policy" / MARKER).unlink()
    assert load_policy(tmp_path / "policy")[0].num_parameters() > 0


@pytest.mark.parametrize("content", [b"[" * 200_000, b"\xff\xfe{", b"", None])
def test_a_damaged_training_log_is_written_again(random_policy, finished, tmp_path, content):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    path = out / "training.json"
    whole = json.loads(path.read_bytes())
    path.write_bytes(json.dumps({"fingerprint": whole["fingerprint"]}).encode() if content is None else content)
    again = training.train(tiny(random_policy, out))
    assert again["history"] == whole["history"]
    assert json.loads(path.read_bytes()) == again


@pytest.mark.parametrize("content", [b"[" * 200_000, b"\xff\xfe{", b"", b"[]", None])
def test_checkpoints_of_nobody_knows_which_configuration_are_not_resumed(random_policy, killed, content):
    """Without a readable config.json, another configuration's checkpoints would be gone on from, in silence."""
    before = {path: path.stat().st_mtime_ns for path in killed.rglob("*") if path.is_file() and path.name != ".lock"}
    path = killed / "config.json"
    del before[path]
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.json is missing or cannot be read, so that nobody knows which"):
        training.train(tiny(random_policy, killed, seed=5))
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


class Payload:
    """Unpickled, it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["rng_state.pth", "optimizer.pt", "scheduler.pt"])
def test_a_payload_is_refused_in_one_line(random_policy, killed, tmp_path, name, capsys):
    """Refused even where the marker was made to fit."""
    folder = killed / "checkpoint-2"
    shutil.rmtree(killed / "checkpoint-3")
    torch.save({"python": Payload(tmp_path / "owned")}, folder / name)
    resume.seal(folder, 2)
    settings = tmp_path / "run.yaml"
    settings.write_text(json.dumps(tiny(random_policy, killed).as_dict()))
    assert cli.main(["train", str(settings)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert name in said[0]
    assert "checkpoint-2 is refused" in said[0]
    assert not (tmp_path / "owned").exists()
    pickle.loads(pickle.dumps(Payload(tmp_path / "owned")))
    assert (tmp_path / "owned").exists()  # the payload is a real one


def test_state_that_is_no_zip_is_refused_too(random_policy, killed):
    folder = killed / "checkpoint-2"
    shutil.rmtree(killed / "checkpoint-3")
    (folder / "optimizer.pt").write_bytes(b"PK\x03\x04" + b"\0" * 500)
    resume.seal(folder, 2)
    with pytest.raises(ValueError, match=r"checkpoint-2 is refused: its optimizer\.pt"):
        training.train(tiny(random_policy, killed))


def test_weights_that_broke_are_not_kept(random_policy, killed, monkeypatch):
    shutil.rmtree(killed / "checkpoint-3")

    def step(self, *args, **kwargs):
        output = original_step(self, *args, **kwargs)
        with torch.no_grad():
            next(iter(self.model.parameters()))[0, :3] = float("nan")
        return output

    original_step = DpadTrainer.training_step
    monkeypatch.setattr(DpadTrainer, "training_step", step)
    with pytest.raises(ValueError, match=r"step 3: the policy's \S+ is not finite \(\d+ of \d+ values.*not kept"):
        training.train(tiny(random_policy, killed))
    assert not (killed / "policy").exists()
    assert [s for s, _ in numbered(killed)] == [2]
    assert is_complete(killed / "checkpoint-2")


def test_a_checkpoint_with_nan_is_not_made_the_policy(random_policy, killed):
    """A checkpoint sealed by somebody else, with right digests."""
    folder = killed / "checkpoint-3"
    weights = load_file(str(folder / "model.safetensors"))
    next(iter(weights.values())).view(-1)[5] = float("inf")
    safetensors.torch.save_file(weights, str(folder / "model.safetensors"), {"format": "pt"})
    resume.seal(folder, 3)
    with pytest.raises(ValueError, match=r"after step 3: the policy's .* is not finite \(1 of \d+ values\)"):
        training.train(tiny(random_policy, killed))
    assert not (killed / "policy").exists()


def full_os(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "optimizer.pt")


def full_safetensors(*args, **kwargs):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def full_torch(*args, **kwargs):
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize(
    ("method", "fault", "said"),
    [
        ("_save_optimizer_and_scheduler", full_os, r"optimizer\.pt could not be written: No space left on device"),
        (
            "save_model",
            full_safetensors,
            r"checkpoint-3/\*\.safetensors could not be written: .*No space left on device \(os error 28\)",
        ),
        ("_save_rng_state", full_torch, r"could not be written: the disk took no more"),
    ],
)
def test_a_full_disk_loses_nothing_that_was_there(random_policy, killed, monkeypatch, method, fault, said, keep):
    shutil.rmtree(killed / "checkpoint-3")
    with monkeypatch.context() as patch:
        patch.setattr(DpadTrainer, method, fault, raising=True)
        with pytest.raises(OSError, match=said + r".* MB are free\); checkpoint-2 is kept; make room"):
            training.train(tiny(random_policy, killed, keep=keep))
    assert [step for step, _ in numbered(killed)] == [2]  # nothing half-written stays
    assert is_complete(killed / "checkpoint-2")
    assert training.train(tiny(random_policy, killed, keep=keep))["resumed_at"] == 2
    assert [step for step, _ in numbered(killed)] == ([2, 3] if keep == 2 else [3])


def test_a_marker_that_cannot_be_written_leaves_the_checkpoint_before_it(random_policy, killed, monkeypatch):
    shutil.rmtree(killed / "checkpoint-3")
    with monkeypatch.context() as patch:
        patch.setattr("dpad_fast.train.trainer.seal", full_os)
        with pytest.raises(OSError, match="checkpoint-2 is kept"):
            training.train(tiny(random_policy, killed, keep=1))
    assert last_complete(killed) == killed / "checkpoint-2"


def test_a_policy_that_cannot_be_written_leaves_the_one_that_was_there(random_policy, killed, monkeypatch):
    (killed / "policy").mkdir()
    (killed / "policy" / "note").write_text("of an earlier day")
    with monkeypatch.context() as patch:
        patch.setattr(DpadTrainer, "save_model", full_safetensors)
        with pytest.raises(OSError, match="checkpoint-3 is kept"):
            training.train(tiny(random_policy, killed))
    assert (killed / "policy" / "note").exists()
    assert not list(killed.glob(".policy*"))
    training.train(tiny(random_policy, killed))
    assert resume.damage(killed / "policy") is None


def test_other_errors_are_not_called_a_full_disk(tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    with pytest.raises(RuntimeError, match="CUDA error"), saving.writing(tmp_path / "checkpoint-1"):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    assert (tmp_path / "checkpoint-1").exists()


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (400, "File too large"),  # the configuration
        (
            7_000_000,
            "checkpoint-3/*.safetensors could not be written: Error while serializing: I/O error: File too large",
        ),
        (10_000_000, "checkpoint-1/optimizer.pt could not be written: the disk took no more"),  # twice the weights
    ],
    ids=["configuration", "weights", "optimizer"],
)
def test_files_over_the_limit_of_a_process(random_policy, killed, tmp_path, limit, said):
    """The operating system refuses the bytes: one line, status 2, and the checkpoint before is kept."""
    shutil.rmtree(killed / "checkpoint-3")
    config = tiny(random_policy, killed, keep=1)
    if "optimizer" in said:  # in another folder, with the vision tower trained
        grpo = {"queries": 2, "generations": 2, "completion_tokens": 4, "freeze_vision": False}
        config = tiny(random_policy, tmp_path / "fresh", grpo=grpo)
    settings = tmp_path / "run.yaml"
    settings.write_text(json.dumps(config.as_dict()))
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "dpad_fast.cli", "train", str(settings)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 2, run.stderr
    assert len(run.stderr.strip().splitlines()) == 1
    assert said in run.stderr
    assert is_complete(killed / "checkpoint-2")
    assert [step for step, _ in numbered(killed)] == [2]
    assert numbered(tmp_path / "fresh") == []


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [
        (1, None, [5]),
        (2, None, [4, 5]),
        (3, None, [1, 4, 5]),
        (4, None, [1, 3, 4, 5]),
        (None, None, [1, 3, 4, 5]),
        (0, None, [1, 3, 4, 5]),
        (1, 1, [1, 5]),
        (2, 1, [1, 5]),
        (3, 1, [1, 4, 5]),
    ],
)
def test_older_checkpoints_go_and_those_that_are_not_complete_go_first(tmp_path, keep, best, left):
    for step in (1, 3, 4, 5, 8):  # 8: of a run that went further, until it is written again
        (tmp_path / f"checkpoint-{step}").mkdir()
        if step != 3:
            (tmp_path / f"checkpoint-{step}" / MARKER).write_text("{}")
    saving.prune(tmp_path / "checkpoint-5", keep, None if best is None else str(tmp_path / f"checkpoint-{best}"))
    assert [step for step, _ in numbered(tmp_path)] == [*left, 8]


def test_a_script_of_ones_own_resumes_by_the_same_rule(random_policy, killed):
    """`trainer.train(resume_from_checkpoint=...)`: True passes damage over, a folder by name is refused."""
    from dpad_fast.train.run import make_scorer, make_trainer

    (killed / "checkpoint-3" / "optimizer.pt").unlink()
    config = tiny(random_policy, killed)
    with pytest.raises(ValueError, match=r"checkpoint-3 cannot be resumed: optimizer\.pt is missing"):
        make_trainer(config, make_scorer(config)).train(resume_from_checkpoint=str(killed / "checkpoint-3"))
    trainer = make_trainer(config, make_scorer(config))
    with pytest.warns(RuntimeWarning, match="checkpoint-3 is not used"):
        trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 3
    assert is_complete(killed / "checkpoint-3")


def test_two_processes_write_one_checkpoint(random_policy, tmp_path):
    """Each writes its random state; the marker comes after both and lists both."""
    settings = tmp_path / "run.yaml"
    settings.write_text(json.dumps(tiny(random_policy, tmp_path / "run", steps=2).as_dict()))
    launch = ["-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [sys.executable, *launch, "-m", "dpad_fast.cli", "train", str(settings)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    newest = tmp_path / "run" / "checkpoint-2"
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= set(read_json(newest / MARKER)["files"])
    assert last_complete(tmp_path / "run") == newest
    assert resume.damage(tmp_path / "run" / "policy") is None
    (newest / "rng_state_1.pth").unlink()
    with pytest.warns(RuntimeWarning, match=r"rng_state_1\.pth is missing; going on from checkpoint-1"):
        last_complete(tmp_path / "run")
