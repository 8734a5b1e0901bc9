"""Names of models: a name that leads nowhere is refused at once, not after half a minute of a hub's retries."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 4.0
"""Seconds to wait for a hub's answer."""


def only_local(
    name: str, shipped: Sequence[str], files: Sequence[str] = ("config.json",), *, cached: bool | None = None
) -> bool:
    """Whether a model or data set must be taken from this machine; raises where it is not here and cannot be reached.

    Args:
        name: a folder, a shipped name, or OWNER/NAME on the Hugging Face hub.
        shipped: the names that come with the package.
        files: a model is in the local cache when one of these is.
        cached: whether it is in a local cache, for what is not a model; None: as `files` say.

    Returns:
        True for a folder, and for a cached model while the hub cannot be reached.

    Raises:
        ValueError: it is no folder, not cached, and no name on a hub or the hub cannot be reached; in one line.
    """
    if Path(name).is_dir():
        return True
    if "/" not in name:
        near = difflib.get_close_matches(name, shipped, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}" if near else ""
        known = f" ({', '.join(shipped)})" if shipped else ""
        raise ValueError(f"no folder and no shipped name{known}{hint}; a name on the hub is OWNER/NAME")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ValueError("no such folder")
    from huggingface_hub import constants, try_to_load_from_cache

    if cached is None:
        cached = any(isinstance(try_to_load_from_cache(name, file), str) for file in files)
    if constants.HF_HUB_OFFLINE:
        trouble: str | None = "HF_HUB_OFFLINE is set"
    else:
        trouble = _unreachable(constants.ENDPOINT)
    if trouble is not None and not cached:
        raise ValueError(f"it is no folder and not in the local Hugging Face cache, and {trouble}")
    return trouble is not None


@contextmanager
def without_bars() -> Iterator[None]:
    """Without transformers' bars for loading files that are on this machine already."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _unreachable(endpoint: str) -> str | None:
    """Why a hub gives no answer in time, None where it answers, whatever the answer."""
    found: list[str | None] = []

    def ask() -> None:
        from huggingface_hub import get_session

        try:
            get_session().head(endpoint, timeout=PATIENCE)
            found.append(None)
        except Exception as error:  # the clients' classes differ by version, and any failure means the same
            found.append(f"{endpoint} cannot be reached: {' '.join(str(error).split()) or type(error).__name__}")

    # In a thread: looking up a host's name takes its own time, which no timeout of the client bounds.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return found[0] if found else f"{endpoint} does not answer within {PATIENCE:.0f} s"
