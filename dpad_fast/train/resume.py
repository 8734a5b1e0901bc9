"""Which checkpoint to go on from after a kill, and files that are either whole or absent."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dpad_fast import files

STATE = "trainer_state.json"
MARKER = "complete.json"
# Suffixes of what trainers and `from_pretrained` look for, and of files that somebody is still writing.
_READ_BY_TRAINERS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".partial", ".tmp", ".incomplete"}
_NUMBERED = re.compile(r"checkpoint-(\d+)")


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader finds the old file or the new one, never half of it.

    Args:
        path: the file.
        value: plain data.
    """
    files.write_json(path, value)


def read_json(path: Path) -> Any:
    """The file's content, or None if there is no such file or it is not whole.

    Args:
        path: the file.

    Returns:
        What the JSON holds, or None.
    """
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):  # brackets without end are no JSON either
        return None


def seal(folder: Path, step: int) -> None:
    """Write the marker of completeness: every file that is there, its size and its SHA-256.

    The marker comes last and appears at once, so a folder without it was not written to its end.

    Args:
        folder: a checkpoint, or a policy, whose other files are all written.
        step: the optimiser step that it is of.
    """
    paths = _files(folder)
    with ThreadPoolExecutor(4) as pool:  # hashing leaves the interpreter's lock
        digests = list(pool.map(_digest, paths.values()))
    files = {
        name: {"size": path.stat().st_size, "sha256": digest}
        for (name, path), digest in zip(paths.items(), digests, strict=True)
    }
    write_json(folder / MARKER, {"step": step, "files": files})


def damage(folder: Path, contents: bool = True) -> str | None:
    """The fault of a folder that `seal` closed.

    Args:
        folder: a checkpoint or a policy.
        contents: look at every byte, which takes seconds for a large model; else at names and sizes.

    Returns:
        None if every file is as it was written, else what is wrong with which file. Files that came later do no harm,
        unless they are of the kinds that a trainer would read, or look half-written.
    """
    marker = read_json(folder / MARKER)
    if marker is None:
        return f"it has no {MARKER}: it was not written to its end, or by an earlier version"
    if not _well_formed(marker):
        return f"{MARKER} is damaged"
    there = _files(folder)
    for name, want in marker["files"].items():
        if name not in there:
            return f"{name} is missing"
        if (size := there[name].stat().st_size) != want["size"]:
            return f"{name} has {size} bytes, {want['size']} were written"
    extra = sorted(name for name in there if name not in marker["files"] and Path(name).suffix in _READ_BY_TRAINERS)
    if extra:
        return f"{extra[0]} is not one of the files that were written"
    if not contents:
        return None
    with ThreadPoolExecutor(4) as pool:
        digests = pool.map(_digest, (there[name] for name in marker["files"]))
        for (name, want), digest in zip(marker["files"].items(), digests, strict=True):
            if digest != want["sha256"]:
                return f"{name} has other content than was written"
    return None


def _well_formed(marker: Any) -> bool:
    files = marker.get("files") if isinstance(marker, dict) else None
    return isinstance(files, dict) and all(
        isinstance(entry, dict) and isinstance(entry.get("size"), int) and isinstance(entry.get("sha256"), str)
        for entry in files.values()
    )


def _files(folder: Path) -> dict[str, Path]:
    """The files of a folder and its sub-folders by their names from there, without the marker and hidden ones."""
    names = ((path.relative_to(folder), path) for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        name.as_posix(): path
        for name, path in names
        if name.as_posix() != MARKER and not any(part.startswith(".") for part in name.parts)
    }


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:  # a sector that cannot be read any more
        return f"unreadable: {error.strerror}"
    return digest.hexdigest()


def checkpoint_damage(checkpoint: Path) -> str | None:
    """The fault of a `checkpoint-N` folder; see `damage`. Its marker and its state must be of step N, too.

    Args:
        checkpoint: the folder.

    Returns:
        None if training can go on from it, else what is wrong with which file.
    """
    numbered = _NUMBERED.fullmatch(checkpoint.name)
    if numbered is None:
        return "it is not named checkpoint-N"
    wrong = damage(checkpoint)
    if wrong is not None:
        return wrong
    for name, key in ((MARKER, "step"), (STATE, "global_step")):
        holds = read_json(checkpoint / name)
        if not isinstance(holds, dict) or holds.get(key) != int(numbered.group(1)):
            return f"{name} is not of step {numbered.group(1)}"
    return None


def is_complete(checkpoint: Path) -> bool:
    """Whether a `checkpoint-N` folder was written to its end, and is as it was written.

    Args:
        checkpoint: the folder.

    Returns:
        Whether training can go on from it.
    """
    return checkpoint_damage(checkpoint) is None


def numbered(folder: Path) -> list[tuple[int, Path]]:
    """The `checkpoint-N` folders of a run with their steps, the lowest first.

    Args:
        folder: the run's, or one that does not exist.

    Returns:
        (step, folder) of each, complete or not.
    """
    found = ((m, path) for path in folder.glob("checkpoint-*") if (m := _NUMBERED.fullmatch(path.name)))
    return sorted((int(m.group(1)), path) for m, path in found if path.is_dir())


def last_complete(folder: Path) -> Path | None:
    """The complete checkpoint with the highest step in a run's folder. Warns once of all that it skips.

    Args:
        folder: holds `checkpoint-N` folders, or does not exist.

    Returns:
        The checkpoint's folder, or None if there is none.
    """
    passed_over = []
    chosen = None
    for _, path in reversed(numbered(folder)):
        wrong = checkpoint_damage(path)
        if wrong is None:
            chosen = path
            break
        passed_over.append(f"{path} is not used: {wrong}")
    if passed_over:
        instead = "starting from the beginning" if chosen is None else f"going on from {chosen.name}"
        warnings.warn(f"{'; '.join(passed_over)}; {instead}", RuntimeWarning, stacklevel=2)
    return chosen


def step_of(checkpoint: Path) -> int:
    """The step that a `checkpoint-N` folder was saved at.

    Args:
        checkpoint: the folder.

    Returns:
        N.
    """
    return int(checkpoint.name.rsplit("-", 1)[1])


def restore_weights(model: Any, checkpoint: Path) -> None:
    """Load a checkpoint's weights through the model's own `from_pretrained`.

    The Trainer's resume loads the file by its names and takes no notice of names that do not fit. Some models
    (Qwen2.5-VL among them) are written with other names than they have in memory, so it would go on from the weights
    that it happened to have, without a word.

    Args:
        model: a `PreTrainedModel`; changed in place.
        checkpoint: a folder with its configuration and weights.

    Raises:
        RuntimeError: if a weight is missing or has another shape.
    """
    loaded = type(model).from_pretrained(str(checkpoint), dtype=model.dtype)
    model.load_state_dict(loaded.state_dict(), strict=True)
