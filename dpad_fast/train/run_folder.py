"""A run's folder: who may write to it, and what an earlier call finished there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dpad_fast.lock import only_one
from dpad_fast.train import processes, resume
from dpad_fast.train.config import TrainConfig

_WORK = ("before.json", "training.json", "policy", "after.json", "result.json")


def finished(
    path: Path, mark: str, fields: Mapping[str, type | tuple[type, ...]] | None = None, key: str = "fingerprint"
) -> dict[str, Any] | None:
    """What an earlier call left in a file, if it is whole and of the same settings.

    Args:
        path: a JSON file that is written when all is done.
        mark: names the settings, such as a configuration's fingerprint.
        fields: what else must be in the file, with the types; damage costs the work, never the run.
        key: the file keeps the mark under it.

    Returns:
        The content; None where there is none, it is not whole, or it is of other settings.
    """
    there = resume.read_json(path)
    if not isinstance(there, dict) or there.get(key) != mark:
        return None
    wanted = (fields or {}).items()
    return there if all(name in there and isinstance(there[name], kind) for name, kind in wanted) else None


@contextmanager
def claim(out: Path, config: TrainConfig) -> Iterator[None]:
    """Hold a run's folder: nobody else writes to it meanwhile, and no other configuration's run is there.

    Writes the configuration to `out/config.json`, over that of a run that left no measurement, checkpoint or result.

    Args:
        out: the run's folder; made if missing.
        config: the run.

    Yields:
        Nothing.

    Raises:
        ValueError: if another process is at work there (named), or another configuration's run is there (the settings
            that differ are named).
    """
    processes.join(cpu=config.device == "cpu")
    with ExitStack() as held:  # of the processes of one distributed run, the main one holds the folder for all
        processes.from_main(lambda: _take(held, out, config))
        yield


def _take(held: ExitStack, out: Path, config: TrainConfig) -> None:
    held.enter_context(only_one(out))
    path = out / "config.json"
    there = resume.read_json(path)
    if not isinstance(there, dict) and resume.numbered(out):
        raise ValueError(
            f"{path} is missing or cannot be read, so that nobody knows which configuration the checkpoints beside "
            "it are of; put it back, give another --out, or delete that folder to start over"
        )
    other = isinstance(there, dict) and there.get("fingerprint") != config.fingerprint()
    if other and ("fingerprint" not in there or _has_work(out)):
        changed = sorted(_differing(there.get("config", {}), config.as_dict()))
        raise ValueError(
            f"{out} holds a run with another configuration (differs in {', '.join(changed) or 'its version'}); "
            "give another --out, or delete that folder to start over"
        )
    ours = {"fingerprint": config.fingerprint(), "config": config.as_dict()}
    if there != ours:
        resume.write_json(path, ours)


def _has_work(out: Path) -> bool:
    """Whether anything is there that took time; a configuration alone is left by a run that never began."""
    return bool(resume.numbered(out)) or any((out / name).exists() for name in _WORK)


def _differing(old: Any, new: Any, prefix: str = "") -> list[str]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [prefix.rstrip(".")]
    names = sorted({*old, *new} - ({"out", "name"} if not prefix else set()))
    return [found for name in names for found in _differing(old.get(name), new.get(name), f"{prefix}{name}.")]
