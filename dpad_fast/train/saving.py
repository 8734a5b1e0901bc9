"""Writing a checkpoint or a policy so that a full disk, or weights that broke, cost nothing that was there."""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dpad_fast.train.resume import MARKER, damage, numbered, read_json, seal

# Messages of the writers of torch and safetensors when the operating system takes no more bytes; both hide its error.
_TORCH_WRITER = ("inline_container.cc", "PytorchStreamWriter", "iostream error")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Within it a folder is written; one that cannot be written to its end is removed, and the error is one line.

    Args:
        folder: a checkpoint that is being written.

    Yields:
        Nothing.

    Raises:
        OSError: names the file, what had been written and the free space.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(mark in str(error) for mark in _TORCH_WRITER):
            raise
        message = _disk_full_message(folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(getattr(error, "errno", None) or errno.EIO, message) from error


def _disk_full_message(folder: Path, error: Exception) -> str:
    """The message of a full disk, in one line."""
    from safetensors import SafetensorError

    written = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in written)
    newest = max(written, key=lambda path: path.stat().st_mtime_ns, default=folder)
    reason = str(error).split("[enforce", 1)[0].strip() or "the disk took no more"
    if isinstance(error, OSError):
        newest = Path(os.fsdecode(error.filename)) if error.filename else newest
        reason = error.strerror or reason
    elif isinstance(error, SafetensorError):  # it removes what it could not finish, and names no file
        newest = folder / "*.safetensors"
    left = [path.name for _, path in numbered(folder.parent) if path != folder and (path / MARKER).exists()]
    kept = f"{left[-1]} is kept" if left else "there is no earlier checkpoint"
    free = shutil.disk_usage(folder.parent).free / 1e6
    return (
        f"{newest} could not be written: {reason} ({size / 1e6:.1f} MB of {folder.name} were, {free:.0f} MB are free); "
        f"{kept}; make room and run the same command again"
    )


def check_finite(model: Any, when: str) -> None:
    """Refuse weights that no training comes back from.

    Args:
        model: its parameters are looked at, on this process.
        when: begins the message.

    Raises:
        ValueError: for a parameter with a NaN or an infinity; names the first and counts them.
    """
    broken = []
    for name, parameter in model.named_parameters():
        local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
        if not torch.isfinite(local.detach()).all():
            broken.append((name, int((~torch.isfinite(local.detach())).sum()), local.numel()))
    if broken:
        name, count, of = broken[0]
        more = f", and {len(broken) - 1} more weights" if len(broken) > 1 else ""
        raise ValueError(
            f"{when}: the policy's {name} is not finite ({count} of {of} values{more}); it is not kept. "
            "A lower grpo.learning_rate or grpo.clip_norm may help"
        )


def policy_is_whole(policy: Path) -> bool:
    """Whether a finished run's policy is as it was written; warns of what is wrong with it.

    Args:
        policy: its folder.

    Returns:
        Whether the run need not be finished again.
    """
    if not policy.is_dir():
        return False
    wrong = damage(policy)
    if wrong is not None:
        warnings.warn(f"{policy} is made again: {wrong}", RuntimeWarning, stacklevel=3)
    return wrong is None


def check_saved(policy: Path) -> None:
    """Refuse the policy of a run whose saving did not come to its end; other folders need no marker.

    Args:
        policy: a folder, or anything else that a policy may be named by.

    Raises:
        ValueError: the folder is `policy` in a run's, and has no marker or a file that is missing or cut off.
    """
    run = read_json(policy.parent / "config.json") if policy.name == "policy" and policy.is_dir() else None
    if not isinstance(run, dict) or not {"fingerprint", "config"} <= run.keys():
        return
    marker, again = policy / MARKER, "run the training's command again, which makes it from the last checkpoint"
    if not marker.is_file():
        raise ValueError(f"policy {str(policy)!r:.200} has no {MARKER}: saving was interrupted; {again}")
    wrong = damage(policy, contents=False)
    if wrong is not None:
        raise ValueError(f"policy {str(policy)!r:.200} is not as it was saved: {wrong}; {again}")


def keep_policy(trainer: Any, policy: Path, step: int) -> None:
    """Write the trained policy beside its place, and move it there when it is whole.

    Args:
        trainer: a `DpadTrainer`; all processes of a run call this.
        policy: the folder; what is there is replaced.
        step: that it was trained to.

    Raises:
        ValueError: if a weight is not finite.
        OSError: if the disk is full; what was in the folder stays.
    """
    check_finite(trainer.model, f"after step {step}")
    partial = policy.with_name(".policy.partial")
    main = trainer.is_world_process_zero()
    if main:
        shutil.rmtree(partial, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    with writing(partial):
        trainer.save_model(str(partial))
        trainer.accelerator.wait_for_everyone()
        if main:
            seal(partial, step)
    if main:
        shutil.rmtree(policy, ignore_errors=True)
        partial.replace(policy)
    trainer.accelerator.wait_for_everyone()


def prune(newest: Path, keep: int | None, best: str | None = None) -> None:
    """Delete checkpoints before the newest, those that are not complete first, until `keep` are left.

    Called when the newest is sealed, so that there is a complete one at any time.

    Args:
        newest: the checkpoint that was just written; it stays, and what has a higher step is left alone.
        keep: how many stay, the newest among them; None or 0 for all.
        best: another one that stays.
    """
    if not keep or keep < 0:
        return
    older = [path for _, path in numbered(newest.parent) if _step(path) < _step(newest) and str(path) != best]
    older.sort(key=lambda path: ((path / MARKER).exists(), _step(path)))
    spared = keep - 1 - (best is not None and Path(best) != newest)
    for path in older[: max(0, len(older) - max(0, spared))]:
        (path / MARKER).unlink(missing_ok=True)  # first, so that a kill leaves nothing that looks whole
        shutil.rmtree(path, ignore_errors=True)


def _step(path: Path) -> int:
    return int(path.name.rsplit("-", 1)[1])
