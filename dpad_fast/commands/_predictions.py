"""Predictions in memory, for `dpad-fast data check --completions`: JSONL of {"id", "completion"}."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpad_fast.terminal import read_stdin


@dataclass(frozen=True)
class Prediction:
    """One line.

    Attributes:
        place: "FILE:NUMBER", for messages.
        values: the whole line; "id" and "completion" are texts.
    """

    place: str
    values: dict[str, Any]

    @property
    def id(self) -> str:
        """Of the sample that it answers."""
        return str(self.values["id"])

    @property
    def text(self) -> str:
        """The completion."""
        return str(self.values["completion"])


def read(source: str) -> list[Prediction]:
    """Read predictions.

    Args:
        source: a JSONL file in UTF-8, one {"id": sample id, "completion": text} a line; "-" for standard input.

    Returns:
        The lines that are not blank.

    Raises:
        ValueError: a line is not as it should be, or there is none; names file and line.
        OSError: the file cannot be read.
    """
    name = "standard input" if source == "-" else source
    raw = read_stdin() if source == "-" else Path(source).read_bytes()
    try:
        text = raw.decode("utf-8-sig")  # some editors put a byte order mark in front
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{name}:{number} is not UTF-8 (byte 0x{raw[error.start]:02x})") from None
    # "\n" alone ends a line: JSON strings may hold other separators, such as U+2028.
    rows = [_row(f"{name}:{n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not rows:
        raise ValueError(f"{name} holds no line")
    return rows


def _row(place: str, line: str) -> Prediction:
    try:
        values = json.loads(line)
    except RecursionError:
        raise ValueError(f"{place} is not valid JSON: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{place} is not valid JSON: {error}") from None
    if not isinstance(values, dict) or not all(isinstance(values.get(key), str) for key in ("id", "completion")):
        raise ValueError(f'{place} must be {{"id": text, "completion": text}}')
    return Prediction(place, values)
