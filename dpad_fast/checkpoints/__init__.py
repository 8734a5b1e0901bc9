"""The weights that come with the package, and how a model is found by name: a shipped name first, then a folder."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

SMALL_CLIP = "shapes"
"""The small CLIP of the shapes world. Training configurations have called it "clip"; both names work everywhere."""
SMALL_SIGLIP = "shapes-siglip"
"""The second small encoder of the shapes world, trained SigLIP's way."""
ENCODERS = (SMALL_CLIP, SMALL_SIGLIP)
POLICIES = ("policy-e", "policy-f", "policy-j")
_FOLDERS = {SMALL_CLIP: "clip", "clip": "clip", **{name: name for name in (SMALL_SIGLIP, *POLICIES)}}


def shipped(name: str | Path) -> Path | None:
    """Folder of a checkpoint that comes with the package.

    Args:
        name: "shapes" or "clip" for the small CLIP, `SMALL_SIGLIP`, or one of `POLICIES`; a folder is not looked at.

    Returns:
        Its folder, None for any other name.
    """
    folder = _FOLDERS.get(str(name))
    return None if folder is None else _place(folder)


def checkpoint(name_or_path: str | Path) -> Path:
    """Folder of a model that is on this machine.

    Args:
        name_or_path: a shipped name, which goes before a folder of the same name (that one is `./NAME`), or a folder.

    Returns:
        The folder.

    Raises:
        ValueError: if there is neither; names both places.
    """
    found = shipped(name_or_path) or Path(name_or_path)
    if not os.path.isfile(found / "config.json"):
        ours = _place(_FOLDERS.get(str(name_or_path), str(name_or_path)))
        given = os.path.abspath(name_or_path)
        raise ValueError(f"checkpoint {str(name_or_path)!r}: no config.json in {ours} nor in {given}")
    return found


def is_small_clip(name_or_path: str | Path) -> bool:
    """Whether a name or a folder is the small CLIP's.

    Args:
        name_or_path: as for `checkpoint`.

    Returns:
        True for either of its names and for its folder, however that is written.
    """
    return small_encoder(name_or_path) == SMALL_CLIP


def small_encoder(name_or_path: str | Path) -> str | None:
    """Which of the shipped encoders of the shapes world a name or a folder is.

    Args:
        name_or_path: as for `checkpoint`.

    Returns:
        One of `ENCODERS`; None for anything else.
    """
    for name in ENCODERS:
        ours = _place(_FOLDERS[name])
        if shipped(name_or_path) == ours:
            return name
        if os.path.isdir(name_or_path) and os.path.realpath(name_or_path) == os.path.realpath(ours):
            return name
    return None


def _place(folder: str) -> Path:
    return Path(str(files("dpad_fast"))) / "checkpoints" / folder
