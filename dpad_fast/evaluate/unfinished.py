"""A run that has not ended, as far as its folder tells: what was measured before training, and the log so far."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpad_fast.evaluate.measure import from_rows, summarise
from dpad_fast.evaluate.metrics import plain
from dpad_fast.train import resume

DURING = "during.json"


def read_unfinished(folder: Path) -> dict[str, Any]:
    """The content that a run's result.json would have by now.

    Args:
        folder: the run's, without result.json.

    Returns:
        As `dpad-fast train` writes it; "unfinished" holds the last step that is known.

    Raises:
        ValueError: the folder is no run's, or nothing was measured or logged yet; names it.
    """
    there = resume.read_json(folder / "config.json")
    if not isinstance(there, dict) or not isinstance(there.get("config"), dict):
        raise ValueError(f"{folder} holds neither result.json nor config.json of a run")
    before, after = _rows(folder / "before.json"), _rows(folder / "after.json")
    history = _history(folder)
    if not before and not history:
        raise ValueError(f"{folder} is a run that has not got far enough: nothing is measured or logged yet")
    return {
        "kind": "run",
        "unfinished": history[-1].get("step", 0) if history else 0,
        "config": there["config"],
        "before": plain(summarise(from_rows(before))) if before else {},
        "after": plain(summarise(from_rows(after))) if after else {},
        "records": {"before": before, "after": after},
        "history": history,
        "during": read_during(folder),
        "versions": {},
    }


def _rows(path: Path) -> list[dict[str, Any]]:
    content = resume.read_json(path)
    rows = content.get("records") if isinstance(content, dict) else None
    try:
        from_rows(rows or [])
    except (ValueError, TypeError):
        return []
    return rows or []


def _history(folder: Path) -> list[dict[str, Any]]:
    """The log: of all steps where training ended, else as far as the last checkpoint that can be read."""
    logs = [(folder / "training.json", "history")]
    logs += [(path / resume.STATE, "log_history") for _, path in reversed(resume.numbered(folder))]
    for path, key in logs:
        content = resume.read_json(path)
        lines = content.get(key) if isinstance(content, dict) else None
        if isinstance(lines, list):
            return [line for line in lines if isinstance(line, dict) and "reward" in line]
    return []


def read_during(out: Path) -> list[Mapping[str, Any]]:
    """The measurements of a run while it trained.

    Args:
        out: the run's folder.

    Returns:
        One `{"step", "metrics"}` per measurement, in order; none where the file is not there or damaged.
    """
    lines = resume.read_json(out / DURING)
    if not isinstance(lines, list):
        return []
    return [line for line in lines if isinstance(line, dict) and isinstance(line.get("step"), int)]
