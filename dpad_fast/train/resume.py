"""Which checkpoint to go on from after a kill, and files that are either whole or absent."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

from dpad_fast import files

STATE = "trainer_state.json"
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
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def is_complete(checkpoint: Path) -> bool:
    """Whether a `checkpoint-N` folder was written to its end.

    The trainer writes weights, optimiser, scheduler and random state, and its own state last; a kill in between leaves
    files missing or cut off. So the state must be there and name step N, and every file must be readable to its end.

    Args:
        checkpoint: the folder.

    Returns:
        Whether training can go on from it.
    """
    numbered = _NUMBERED.fullmatch(checkpoint.name)
    state = read_json(checkpoint / STATE)
    if numbered is None or not isinstance(state, dict) or state.get("global_step") != int(numbered.group(1)):
        return False
    weights = sorted(checkpoint.glob("*.safetensors"))
    if not weights or not all(_opens(path) for path in weights):
        return False
    saved = [*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]
    return all(zipfile.is_zipfile(path) for path in saved)  # the directory of a zip file is at its end


def _opens(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:  # compares the header with the file's length
            return len(list(file.keys())) > 0
    except (SafetensorError, OSError):
        return False


def last_complete(folder: Path) -> Path | None:
    """The complete checkpoint with the highest step in a run's folder.

    Args:
        folder: holds `checkpoint-N` folders, or does not exist.

    Returns:
        The checkpoint's folder, or None if there is none.
    """
    found = [(int(m.group(1)), p) for p in folder.glob("checkpoint-*") if (m := _NUMBERED.fullmatch(p.name))]
    for _, path in sorted(found, reverse=True):
        if is_complete(path):
            return path
    return None


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
